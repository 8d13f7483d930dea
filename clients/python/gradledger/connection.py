"""A connection that sends a small body in one packet with its head: one system call and one waking of the
service instead of two. Large bodies go as they are."""

from __future__ import annotations

from typing import Any

from urllib3.connection import HTTPConnection, HTTPSConnection

JOINED_BYTES = 64 << 10  # up to here one packet more costs more than one copy


class _Joining:
    """Before one of urllib3's connections: its head waits for what is sent next."""

    _holds = False
    _head = b""

    def request(self, *arguments: Any, **named: Any) -> None:
        """Sends a request; one without a body is only a head."""
        self._head = b""  # of a request that was given up
        super().request(*arguments, **named)  # type: ignore[misc]
        if self._head:
            self.send(b"")

    def endheaders(self, *arguments: Any, **named: Any) -> None:
        """The head is all there."""
        self._holds = True
        try:
            super().endheaders(*arguments, **named)  # type: ignore[misc]
        finally:
            self._holds = False

    def send(self, data: Any) -> None:
        """Sends the data, and the head before it if that still waits."""
        if self._holds:
            self._head = data
            return
        head, self._head = self._head, b""
        if head and len(data) <= JOINED_BYTES:
            data = head + bytes(data)
        elif head:
            super().send(head)  # type: ignore[misc]
        super().send(data)  # type: ignore[misc]


class Connection(_Joining, HTTPConnection):
    """To http://…"""


class SecureConnection(_Joining, HTTPSConnection):
    """To https://…"""
