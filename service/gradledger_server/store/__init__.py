"""THE MEMORY: logs, snapshots and names, in a server of our own or in yours.

Read contract.py first, then memory.py (the same in plain Python), then log.py, snapshots.py and names.py.
"""

from __future__ import annotations

from pathlib import Path

from redis.exceptions import AuthenticationError, InvalidResponse, ResponseError

from gradledger_server.errors import StoreUnavailable
from gradledger_server.store.contract import Store
from gradledger_server.store.embedded import Embedded
from gradledger_server.store.ledger import RedisStore
from gradledger_server.store.memory import MemoryStore

__all__ = ["Embedded", "MemoryStore", "RedisStore", "Store", "open_store"]


def open_store(redis_url: str | None, data_dir: Path, durability: str | None) -> RedisStore:
    """The store at the URL, or one with a Valkey of its own in `data_dir`, which ends with `close`.

    `durability` is the least that is accepted; None means fsync of our own Valkey and whatever another
    server gives. Raises StoreUnsuitable or StoreUnavailable.
    """
    if redis_url is None:
        return _EmbeddedStore(Embedded(data_dir, durability or "fsync").start(), durability or "fsync")
    store = RedisStore(redis_url, durability or "memory")
    try:
        store.facts()
    except StoreUnavailable as lost:
        raise StoreUnavailable(lost.detail, hint=_next_move(redis_url, lost)) from lost
    return store


def _next_move(redis_url: str, lost: StoreUnavailable) -> str:
    """What whoever wrote the URL can do about it."""
    match lost.__cause__:
        case AuthenticationError():
            return lost.advice
        case InvalidResponse():
            return "What answers there is not a Redis server, or speaks TLS (rediss://): check --redis-url."
        case ResponseError():
            return "Check the database number in --redis-url, and what its user may do."
        case None:
            return "Wait until it has, or check --redis-url."
    if redis_url.startswith("rediss:"):
        return "Start the server, or check --redis-url: one that does not speak TLS is named with redis://."
    return "Start the server, or check --redis-url."


class _EmbeddedStore(RedisStore):
    """A store that owns its server."""

    def __init__(self, server: Embedded, durability: str) -> None:
        super().__init__(server.url, durability)
        self._server = server
        self.alone = True

    def close(self) -> None:
        """Hangs up and ends the server."""
        super().close()
        self._server.stop()
