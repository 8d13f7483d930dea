"""What the server's replies say has become of wishes to append."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from redis.exceptions import ExecAbortError, OutOfMemoryError, RedisError

from gradledger_server.errors import StoreUnavailable
from gradledger_server.store.chunks import Row
from gradledger_server.store.connection import raise_in_our_words
from gradledger_server.store.contract import Appended, Gap, Gone, Moved, Outcome, Seen
from gradledger_server.store.packing import Command


class Wish(NamedTuple):
    """One append on its way: the commands that make it, and the row of its payload, if that is large."""

    commands: list[Command]
    row: Row | None = None


def outcomes(wishes: Sequence[Wish], replies: Sequence[Any]) -> tuple[list[Outcome], list[Row]]:
    """What became of the wishes, and the rows that nobody needs now. Raises StoreFull or StoreUnavailable."""
    coming = iter(replies)
    answers = [[next(coming) for _ in wish.commands] for wish in wishes]
    # A chunk that found no room explains why its script found no chunk, so it is looked at first.
    no_room = OutOfMemoryError | ExecAbortError
    for error in (reply for answer in answers for reply in answer if isinstance(reply, no_room)):
        raise_in_our_words(error)
    became = [outcome(answer[-1]) for answer in answers]
    refused = [w for w, its in zip(wishes, became, strict=True) if not isinstance(its, Appended)]
    return became, [wish.row for wish in refused if wish.row]


def outcome(reply: list[Any] | RedisError) -> Outcome:
    """What the commit script says. Raises StoreFull or StoreUnavailable."""
    if isinstance(reply, RedisError):
        raise_in_our_words(reply)
    match reply:
        case [b"appended", offset, chain]:
            return Appended(int(offset), chain.decode())
        case [b"seen"]:
            return Seen()
        case [b"gap", expected]:
            return Gap(int(expected))
        case [b"moved"]:
            return Moved()
        case [b"gone"]:
            return Gone()
        case [b"late"]:
            raise StoreUnavailable("the creation took too long; nothing was begun")
    raise StoreUnavailable(
        "the payload expired in the server before it could be appended; nothing was appended"
    )
