"""The line to the server: pooled connections, commands out, replies back, errors in our own words.

Nothing is ever sent twice, with two exceptions: a read may be asked again on a fresh connection, and a
script the server has forgotten is loaded and run, because then it certainly did not run before.
"""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from redis.backoff import NoBackoff
from redis.connection import ConnectionPool
from redis.exceptions import (
    AuthenticationError,
    ExecAbortError,
    NoScriptError,
    OutOfMemoryError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as LostConnection
from redis.exceptions import TimeoutError as TookTooLong
from redis.retry import Retry

from gradledger_server.blocks import Blocks
from gradledger_server.errors import StoreFull, StoreUnavailable, StoreUnsuitable
from gradledger_server.store import scripts
from gradledger_server.store.contract import StoreFacts
from gradledger_server.store.packing import Command, pack
from gradledger_server.store.server_facts import parse_info, read_facts, require

EVER_MADE = 1 << 31  # redis-py's pool counts what it makes, failures too; nothing is ever given back to it
CONNECT_TIMEOUT_S = 2.0
SOCKET_TIMEOUT_S = 30.0
RECEIVE_BYTES = 256 << 10  # per system call

Line = Any  # a connection of redis-py's, which has no types

QUESTIONS: list[Command] = [
    ("INFO",),
    ("CONFIG", "GET", "appendfsync"),
    ("CONFIG", "GET", "no-appendfsync-on-rewrite"),
]


class Connection:
    """Thread-safe. `durability` is the least the server must give; `url` is redis://, rediss:// or unix://."""

    def __init__(
        self,
        url: str,
        durability: str = "memory",
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        socket_timeout_s: float = SOCKET_TIMEOUT_S,
    ) -> None:
        self._durability = durability
        self.socket_timeout_s = socket_timeout_s
        self.blocks = Blocks()  # large values are received into them
        self._facts: StoreFacts | None = None
        self._idle: deque[Line] = deque()  # the one used last is taken first
        self._learning = threading.Lock()
        options: dict[str, Any] = {} if url.startswith("unix:") else {"socket_keepalive": True}
        try:
            self._maker: Any = ConnectionPool.from_url(
                url,
                socket_timeout=socket_timeout_s,
                socket_connect_timeout=connect_timeout_s,
                socket_read_size=RECEIVE_BYTES,
                retry=Retry(NoBackoff(), 0),
                protocol=2,
                client_name="gradledger",
                driver_info=None,
                max_connections=EVER_MADE,
                redis_connect_func=self._greet,
                **options,
            )
        except ValueError as unreadable:
            raise StoreUnsuitable(
                f"the Redis URL cannot be read: {unreadable}",
                hint="It looks like redis://[user:password@]host:port/db, rediss://… or unix:///path/to/socket.",
            ) from None

    def facts(self) -> StoreFacts:
        """As of the latest connection made; connects if there was none yet."""
        if self._facts is None:
            with self._learning:
                if self._facts is None:
                    self.ask(("PING",))
        assert self._facts is not None
        return self._facts

    def ask(self, *commands: Command, again: bool = False) -> list[Any]:
        """The replies, in order; the first error reply is raised once all are in. `again`: it only reads."""
        replies = self.replies(commands, again=again)
        for reply in replies:
            if isinstance(reply, RedisError):
                raise_in_our_words(reply)
        return replies

    def replies(self, commands: Sequence[Command], *, again: bool = False) -> list[Any]:
        """Like `ask`, with error replies in their places."""
        try:
            return self._exchange(commands)
        except StoreUnavailable:
            if not again:
                raise
            return self._exchange(commands)

    def take(self) -> Line:
        """A connection to ourselves, idle or new. redis-py's pool would do, at a tenth of a small push."""
        while True:
            try:
                line = self._idle.pop()
            except IndexError:
                line = self._maker.make_connection()
                line.connect()
                return line
            with contextlib.suppress(RedisError, OSError):
                if not line.can_read(timeout=0):
                    return line
            line.disconnect()  # it has something to say unasked: good-bye

    def give(self, line: Line) -> None:
        """Back for the next one; every reply has been taken."""
        self._idle.append(line)

    def hang_up(self, line: Line) -> None:
        """No reply must go astray; and where one line broke, the idle ones are not to be trusted either."""
        line.disconnect()
        self.close()

    @contextmanager
    def line(self) -> Iterator[Line]:
        """One connection to ourselves; hung up if anything goes wrong on it, so no reply goes astray."""
        with in_our_words():
            line = self.take()
            try:
                yield line
            except BaseException:
                self.hang_up(line)
                raise
            self.give(line)

    def close(self) -> None:
        """Hangs up."""
        with contextlib.suppress(IndexError):  # others may take from it meanwhile
            while True:
                self._idle.pop().disconnect()

    def _exchange(self, commands: Sequence[Command]) -> list[Any]:
        with self.line() as line:
            send(line, commands)
            replies = receive(line, len(commands))
            forgotten = [i for i, reply in enumerate(replies) if isinstance(reply, NoScriptError)]
            if forgotten:
                send(line, scripts.LOAD + [commands[i] for i in forgotten])
                rerun = receive(line, len(scripts.LOAD) + len(forgotten))[len(scripts.LOAD) :]
                for i, reply in zip(forgotten, rerun, strict=True):
                    replies[i] = reply
        return replies

    def _greet(self, line: Line) -> None:
        """On each new connection: log in, learn what the server is by now, give it the scripts."""
        try:
            line.on_connect()
            send(line, [*QUESTIONS, *scripts.LOAD])
            info, *config = receive(line, len(QUESTIONS))
            self._facts = self._checked(info, config)
            for reply in receive(line, len(scripts.LOAD)):
                if isinstance(reply, ResponseError):
                    raise reply
        except BaseException:
            line.disconnect()
            raise

    def _checked(self, info: bytes | ResponseError, config: list[list[bytes] | ResponseError]) -> StoreFacts:
        if isinstance(info, ResponseError):
            raise StoreUnsuitable(
                f"the server refuses INFO: {info}", hint="Allow the user of --redis-url the command INFO."
            )
        pairs = [answer for answer in config if not isinstance(answer, ResponseError)]
        shown = {answer[0].decode(): answer[1].decode() for answer in pairs if len(answer) == 2}
        fields = parse_info(info)
        if fields.get("loading") == "1":  # and until it has loaded, it says that it keeps no log
            raise StoreUnavailable("the server is loading its data")
        facts = read_facts(fields, shown or None)
        require(facts, self._durability)
        return facts


def send(line: Line, commands: Sequence[Command]) -> None:
    """Sends the commands; their values are read in place."""
    if commands:
        line.send_packed_command(pack(commands), check_health=False)


def receive(line: Line, count: int) -> list[Any]:
    """The next replies, error replies among them."""
    replies = []
    for _ in range(count):
        try:
            replies.append(line.read_response(disable_decoding=True))
        except ResponseError as refused:
            replies.append(refused)
    return replies


def raise_in_our_words(error: RedisError) -> NoReturn:
    """Raises one of our errors for one of redis-py's."""
    with in_our_words():
        raise error
    raise AssertionError("unreachable")


@contextmanager
def in_our_words() -> Iterator[None]:
    """redis-py's errors, translated."""
    try:
        yield
    except OutOfMemoryError as full:
        raise StoreFull(f"the server refuses to write: {full}") from full
    except ExecAbortError as aborted:
        if "OOM" not in str(aborted):
            raise StoreUnavailable(f"the server refuses: {aborted}") from aborted
        raise StoreFull(f"the server refuses to write: {aborted}") from aborted
    except AuthenticationError as refused:
        raise StoreUnavailable(
            f"the server refuses the login: {refused}", hint="Check user and password in --redis-url."
        ) from refused
    except (LostConnection, TookTooLong, OSError) as lost:
        raise StoreUnavailable(f"the server cannot be reached: {lost}") from lost
    except RedisError as refused:
        raise StoreUnavailable(f"the server refuses: {refused}") from refused
