"""Which servers are good enough, and what they are said to promise."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import redis

from gradledger_server.errors import GradledgerError, StoreUnavailable, StoreUnsuitable
from gradledger_server.store import Embedded, RedisStore, open_store
from gradledger_server.store.server_facts import Fields, read_facts, require

REDIS: Fields = {
    "redis_version": "7.0.15",
    "maxmemory_policy": "noeviction",
    "maxmemory": "0",
    "role": "master",
}
FILED = {**REDIS, "aof_enabled": "1"}
VALKEY = {**FILED, "redis_version": "7.2.4", "server_name": "valkey", "valkey_version": "8.1.0"}
ALWAYS = {"appendfsync": "always", "no-appendfsync-on-rewrite": "no"}


@pytest.mark.parametrize(
    ("info", "config", "durability"),
    [
        (FILED, ALWAYS, "fsync"),
        (VALKEY, ALWAYS, "fsync"),
        (FILED, {**ALWAYS, "appendfsync": "everysec"}, "everysec"),
        (FILED, {**ALWAYS, "appendfsync": "no"}, "memory"),
        (FILED, {**ALWAYS, "no-appendfsync-on-rewrite": "yes"}, "memory"),
        (FILED, None, "memory"),
        (REDIS, ALWAYS, "memory"),
    ],
)
def test_durability_is_what_the_settings_mean(info: Fields, config: Fields | None, durability: str) -> None:
    assert read_facts(info, config).durability == durability


def test_a_durability_that_cannot_be_read_comes_with_a_note() -> None:
    assert "hides CONFIG" in read_facts(FILED, None).note
    assert read_facts(FILED, ALWAYS).note == ""


def test_the_server_s_own_name_and_version_are_told() -> None:
    facts = read_facts(VALKEY, ALWAYS)
    assert (facts.server, facts.version) == ("valkey", "8.1.0")


@pytest.mark.parametrize(
    ("info", "said"),
    [
        ({**REDIS, "redis_version": "6.2.14"}, "redis 6.2.14; expected redis 7.0 or newer"),
        ({**VALKEY, "valkey_version": "7.1.9"}, "valkey 7.1.9; expected valkey 7.2 or newer"),
        ({**REDIS, "redis_version": "unstable"}, "expected redis 7.0"),
        ({**REDIS, "maxmemory_policy": "allkeys-lru"}, "maxmemory-policy allkeys-lru"),
        ({**REDIS, "role": "slave"}, "read-only replica"),
        ({**REDIS, "cluster_enabled": "1"}, "cluster mode"),
    ],
)
def test_an_unsuitable_server_is_refused_with_its_reason(info: Fields, said: str) -> None:
    with pytest.raises(StoreUnsuitable, match=said) as refused:
        read_facts(info, ALWAYS)
    assert refused.value.advice


def test_a_server_weaker_than_asked_is_refused() -> None:
    facts = read_facts(FILED, {**ALWAYS, "appendfsync": "everysec"})
    require(facts, "memory")
    require(facts, "everysec")
    with pytest.raises(StoreUnsuitable, match="fsync was asked for; this redis gives everysec") as refused:
        require(facts, "fsync")
    assert "appendfsync always" in refused.value.advice


def test_a_real_server_is_refused_while_it_evicts_or_is_too_weak(server: Embedded, raw: redis.Redis) -> None:
    raw.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with pytest.raises(StoreUnsuitable, match="allkeys-lru"):
            RedisStore(server.url).facts()
    finally:
        raw.config_set("maxmemory-policy", "noeviction")
    with pytest.raises(StoreUnsuitable, match="gives memory"):
        RedisStore(server.url, "everysec").facts()
    assert RedisStore(server.url).facts().server == "valkey"


def test_facts_are_read_again_with_each_new_connection(
    server: Embedded, ledger: RedisStore, raw: redis.Redis
) -> None:
    assert ledger.facts().maxmemory_bytes == 0
    raw.config_set("maxmemory", 1 << 30)
    try:
        raw.client_kill_filter(_type="normal", skipme=True)
        ledger.find("model")
        assert ledger.facts().maxmemory_bytes == 1 << 30
    finally:
        raw.config_set("maxmemory", 0)


def test_a_user_who_may_not_read_config_gets_what_can_be_known(server: Embedded, raw: redis.Redis) -> None:
    raw.acl_setuser("tenant", enabled=True, passwords=["+word"], keys=["*"], commands=["+@all", "-config"])
    try:
        facts = RedisStore(f"{server.url.partition('?')[0]}?username=tenant&password=word").facts()
        assert facts.durability == "memory"
        raw.acl_setuser("tenant", enabled=True, commands=["-info"])
        with pytest.raises(StoreUnsuitable, match="INFO"):
            RedisStore(f"{server.url.partition('?')[0]}?username=tenant&password=word").facts()
        with pytest.raises(StoreUnavailable, match="login"):
            RedisStore(f"{server.url.partition('?')[0]}?username=tenant&password=wrong").facts()
    finally:
        raw.acl_deluser("tenant")


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://localhost", StoreUnsuitable),
        ("redis://127.0.0.1:1/0", StoreUnavailable),
        ("unix:///nowhere/valkey.sock", StoreUnavailable),
    ],
)
def test_a_url_that_leads_nowhere_says_so(url: str, expected: type[GradledgerError]) -> None:
    with pytest.raises(expected):
        RedisStore(url).find("model")


def advice(url: str) -> str:
    """What is to be done about the URL, as a start-up says it."""
    with pytest.raises(StoreUnavailable) as refused:
        open_store(url, Path("unused"), None)
    return refused.value.advice


def test_a_server_that_runs_and_refuses_is_not_to_be_started(server: Embedded) -> None:
    path, _, password = server.url.partition("?")
    assert advice(f"{path}?password=wrong") == advice(path) == "Check user and password in --redis-url."
    assert advice(f"{path}?{password}&db=99").startswith("Check the database number in --redis-url")


def test_what_does_not_speak_the_protocol_is_no_redis_server_or_speaks_tls() -> None:
    with web_server() as address:
        assert "is not a Redis server" in advice(f"redis://{address}")
        assert "does not speak TLS" in advice(f"rediss://{address}")
    assert advice(f"redis://{address}") == "Start the server, or check --redis-url."


@contextmanager
def web_server() -> Iterator[str]:
    """Its address; it answers whatever it is asked as web servers answer what they do not understand."""

    class Answer(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)
            self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
