"""Where a service listens: what it prints works as it stands, and what cannot be had comes with a cure."""

from __future__ import annotations

import re
import socket
import subprocess
import threading
from pathlib import Path

import pytest

from gradledger_server.address import listening, url_from_here, url_of
from gradledger_server.cli import main
from gradledger_server.doctor import is_ready
from gradledger_server.errors import GradledgerError
from tests.service import Service


def has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


IPV6 = pytest.param("::1", "[::1]", marks=pytest.mark.skipif(not has_ipv6(), reason="there is no IPv6 here"))


@pytest.mark.parametrize(
    ("host", "listens", "asked"),
    [
        ("127.0.0.1", "http://127.0.0.1:8", "http://127.0.0.1:8"),
        ("192.0.2.1", "http://192.0.2.1:8", "http://192.0.2.1:8"),
        ("0.0.0.0", "http://0.0.0.0:8", "http://127.0.0.1:8"),  # noqa: S104
        ("::1", "http://[::1]:8", "http://[::1]:8"),
        ("::", "http://[::]:8", "http://[::1]:8"),
    ],
)
def test_urls(host: str, listens: str, asked: str) -> None:
    assert (url_of(host, 8), url_from_here(host, 8)) == (listens, asked)


@pytest.mark.parametrize(("host", "here"), [IPV6, ("0.0.0.0", "127.0.0.1")])  # noqa: S104
def test_what_it_prints_works_and_the_health_check_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str, here: str
) -> None:
    with Service(tmp_path / "data", "--durability", "memory", "--host", host) as service:
        told = "".join(service.output)
        assert told.startswith(f"Gradledger serves {url_of(host, service.port)}  (")
        lines = re.search(r"Try:\n((?:.*\n){4})", told)
        assert lines and lines[1].count(f"http://{here}:{service.port}/v1/models/demo") == 2
        done = subprocess.run(["bash", "-euc", lines[1]], capture_output=True, text=True, check=True)
        assert '"fate":"applied"' in done.stdout
        monkeypatch.setenv("GRADLEDGER_HOST", host)
        monkeypatch.setenv("GRADLEDGER_PORT", str(service.port))
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
        monkeypatch.setattr("sys.argv", ["gradledger", "healthcheck"])
        with pytest.raises(SystemExit, match="0"):
            main()


def test_a_taken_port_can_be_changed_or_freed() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        assert "--port" in refusal("127.0.0.1", other.getsockname()[1])


@pytest.mark.parametrize("host", ["nosuch.invalid", "192.0.2.1", "a..b", "ü" * 80])
def test_an_address_that_is_not_here_is_changed_at_the_host(host: str) -> None:
    advice = refusal(host, 0)
    assert "--host" in advice and "--port" not in advice


def refusal(host: str, port: int) -> str:
    """What to do about it."""
    with pytest.raises(GradledgerError, match=re.escape(f"cannot listen on {host}:{port}: ")) as refused:
        listening(host, port).__enter__()
    return refused.value.advice


def test_a_port_that_speaks_another_protocol_is_not_ready() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            line, _ = other.accept()
            with line:
                line.recv(100)
                line.sendall(b"-ERR unknown command\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert not is_ready("127.0.0.1", other.getsockname()[1])
        thread.join()
    assert not is_ready("a..b", 80)
