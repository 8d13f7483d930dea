"""What the client's connections do when the other side does what it may."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from gradledger import Client
from gradledger.errors import (
    BodyTooLarge,
    CertificateRefused,
    ConnectionFailed,
    HandshakeFailed,
    MalformedAnswer,
    Refused,
)
from gradledger.pool import KEPT, Pool
from tests.clients.python.speaking import Story, answer, body, head, speaking
from tests.service import Service

MODELS = b'{"models": []}'
LARGE_BYTES = 16 << 20


def one_try(port: int, timeout_s: float = 10.0, **headers: str) -> Client:
    return Client(f"http://127.0.0.1:{port}", timeout_s=timeout_s, retry_for_s=0, headers=headers)


def twice(asked: list[int]) -> Story:
    """Two answers on each connection; how many each gave is in `asked`."""

    def story(connection: socket.socket) -> None:
        asked.append(0)
        for _ in range(2):
            head(connection)
            answer(connection, MODELS)
            asked[-1] += 1

    return story


def test_a_connection_is_used_again_until_the_service_hangs_up() -> None:
    asked: list[int] = []

    with speaking(twice(asked)) as port, one_try(port) as client:
        for _ in range(6):
            assert client.models() == []
            time.sleep(0.05)  # for the end to arrive
    assert asked == [2, 2, 2]


def test_an_interim_answer_is_never_taken_for_the_next_ones() -> None:
    def story(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        answer(connection, MODELS)

    with speaking(story) as port, one_try(port) as client:
        for _ in range(2):
            with pytest.raises(ConnectionFailed, match="interim answer of status 103"):
                client.models()


def test_what_is_no_http_is_told_in_one_line() -> None:
    def story(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(b"hello\r\n\r\n")

    with (
        speaking(story) as port,
        one_try(port) as client,
        pytest.raises(ConnectionFailed, match=r"no answer \(BadStatusLine: hello\)"),
    ):
        client.models()


@pytest.mark.parametrize("said", [("Connection: close",), ()])
def test_an_announced_end_is_no_surprise(said: tuple[str, ...]) -> None:
    def once(connection: socket.socket) -> None:
        head(connection)
        if said:
            answer(connection, MODELS, "200 OK", *said)
        else:  # an answer without a length ends with its connection
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n" + MODELS)

    with speaking(once) as port, one_try(port) as client:
        assert [client.models() for _ in range(3)] == [[]] * 3


def test_an_answer_that_is_cut_leaves_no_connection_behind() -> None:
    cut = iter([True, False])

    def story(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n" + MODELS[: 5 if next(cut) else 14]
        )

    with speaking(story) as port, one_try(port) as client:
        with pytest.raises(ConnectionFailed, match=r"IncompleteRead.*9 more expected"):
            client.models()
        assert client.models() == []


@pytest.mark.parametrize("lengths", ["-1", "ten", "14, 14", "14\r\nContent-Length: 5"])
def test_an_answer_of_which_nobody_knows_the_length_is_refused_at_once(lengths: str) -> None:
    """What follows it would be read as another's."""

    def story(connection: socket.socket) -> None:
        head(connection)
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {lengths}\r\n\r\n".encode() + MODELS)
        connection.recv(1)

    with speaking(story) as port, one_try(port, timeout_s=5.0) as client:
        began = time.monotonic()
        with pytest.raises(MalformedAnswer, match="expected one Content-Length, got"):
            client.models()
        assert time.monotonic() - began < 4


def test_the_time_out_bounds_silence_and_not_a_large_body_on_its_way() -> None:
    timeout_s, took_s = 1.0, []

    def slowly(connection: socket.socket) -> None:
        first, _, early = head(connection).partition(b"\r\n\r\n")
        began, left = time.monotonic(), int(first.partition(b"Content-Length: ")[2]) - len(early)
        for _ in range(6):
            body(connection, 1 << 20)
            time.sleep(0.3)
        took_s.append(time.monotonic() - began)
        body(connection, left - (6 << 20))  # what the kernel holds comes at once
        answer(connection, b"{}", "400 Bad Request", "Connection: close")

    grads = {"w": np.zeros(LARGE_BYTES // 4, np.float32)}
    with speaking(slowly) as port, one_try(port, timeout_s) as client:
        with pytest.raises(Refused, match="HTTP 400"):
            client.model("slow").push(grads)
        assert took_s[0] > 1.5 * timeout_s

    def never(connection: socket.socket) -> None:
        head(connection)
        stuck.wait(20)

    stuck = threading.Event()
    with speaking(never) as port, one_try(port, timeout_s) as client:
        began = time.monotonic()
        with pytest.raises(ConnectionFailed, match="TimeoutError"):
            client.model("stuck").push(grads)
        stuck.set()
        assert time.monotonic() - began < 8 * timeout_s


def test_who_asks_the_service_to_wait_waits_longer() -> None:
    def late(connection: socket.socket) -> None:
        head(connection)
        time.sleep(0.6)
        answer(connection, b'{"fate": "applied", "step": 3}', "200 OK", "Connection: close")

    with speaking(late) as port, one_try(port, timeout_s=0.3) as client:
        assert client.model("late").fate(1, wait_s=5).step == 3
        with pytest.raises(ConnectionFailed, match="TimeoutError"):
            client.model("late").fate(1)


def test_a_refusal_is_heard_before_the_whole_body_is_sent() -> None:
    def refuse(connection: socket.socket) -> None:
        head(connection)
        answer(connection, b'{"type": "/problems/body-too-large", "detail": "too much"}', "413 Too Large")

    grads = {"w": np.zeros(LARGE_BYTES // 4, np.float32)}
    with speaking(refuse) as port, one_try(port) as client, pytest.raises(BodyTooLarge, match="too much"):
        client.model("large").push(grads)


def test_addresses_are_taken_as_people_write_them(service: Service) -> None:
    asked: list[bytes] = []

    def note(connection: socket.socket) -> None:
        asked.append(head(connection))
        answer(connection, MODELS, "200 OK", "Connection: close")

    with speaking(note) as port:
        for url in (f"127.0.0.1:{port}", f"http://127.0.0.1:{port}/", f"http://localhost:{port}/a b/c%20d/"):
            with Client(url, retry_for_s=0) as client:
                client.models()
        with one_try(port, Host="door.example", Accept_Encoding="gzip") as client:
            client.models()
    lines = [request.split(b"\r\n")[0].split()[1] for request in asked]
    assert lines == [b"/v1/models"] * 2 + [b"/a%20b/c%20d/v1/models", b"/v1/models"]
    assert asked[0].count(b"Host: 127.0.0.1:%d\r\n" % port) == 1
    assert asked[3].count(b"Host: ") == asked[3].count(b"Host: door.example\r\n") == 1
    for url, port_there in (("http://[::1]", 80), ("https://[::1]/", 443), ("http://[fe80::abcd]:81", 81)):
        connection = Pool(url, 1.0).take()
        assert (connection.host, connection.port) == (url.split("[")[1].split("]")[0], port_there)
    for url in (
        "ftp://127.0.0.1",
        "http://",
        "/a/socket",
        "http://127.0.0.1:many",
        "http://a..b:1",
        "http://a b",
    ):
        with pytest.raises(ValueError, match=r"address|[Pp]ort"):
            Client(url)


def test_no_more_idle_connections_are_kept_than_that(service: Service) -> None:
    pool = Pool(service.url, 5.0)
    held = [pool.take() for _ in range(KEPT + 3)]
    for connection in held:
        connection.ask("GET", "/livez", {}, (), 5.0).read()
    for connection in held:
        pool.give_back(connection)
    assert sum(connection.sock is not None for connection in held) == KEPT
    pool.close()
    assert all(connection.sock is None for connection in held)
    with pool.connection() as connection:
        connection.ask("GET", "/livez", {}, (), 5.0).read()
    assert connection.sock is None, "who is done after the end hangs up as well"


def test_a_request_without_a_body_says_so_where_one_is_expected() -> None:
    asked: list[bytes] = []

    def note(connection: socket.socket) -> None:
        asked.append(head(connection))
        answer(connection, b"{}", "200 OK", "Connection: close")

    with speaking(note) as port, one_try(port) as client:
        model = client.model("bodiless")
        model.quarantine("bad")
        model.release("bad")
    assert [b"Content-Length: 0\r\n" in request for request in asked] == [True, False]


@pytest.fixture
def certified(tmp_path: Path) -> tuple[ssl.SSLContext, Path]:
    """How a server called localhost proves it, and the certificate to believe it by."""
    if shutil.which("openssl") is None:
        pytest.skip("its certificate is made with openssl")
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    named = ["-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*make, *named, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    terms = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    terms.load_cert_chain(certificate, key)
    return terms, certificate


def test_a_certificate_is_checked(
    certified: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    terms, certificate = certified
    asked: list[int] = []

    with speaking(twice(asked), terms) as port:
        began = time.monotonic()
        with (
            Client(f"https://localhost:{port}") as client,
            pytest.raises(CertificateRefused, match="SSL_CERT_FILE"),
        ):
            client.models()
        assert time.monotonic() - began < 10, "another try would not help"
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
        with Client(f"https://localhost:{port}", retry_for_s=0) as client:
            for _ in range(4):
                assert client.models() == []
                time.sleep(0.05)  # for the end to arrive
        assert asked == [2, 2]
        with (
            Client(f"https://127.0.0.1:{port}", retry_for_s=0) as client,
            pytest.raises(CertificateRefused, match=r"127\.0\.0\.1"),
        ):
            client.models()


def test_a_service_without_tls_is_told_from_one_with_a_certificate_nobody_knows(service: Service) -> None:
    with (
        Client(service.url.replace("http://", "https://")) as client,
        pytest.raises(
            HandshakeFailed, match="speaks no TLS there, its address begins with http://"
        ) as caught,
    ):
        client.models()
    assert caught.value.tries == 1, "another try would not help"
    assert not isinstance(caught.value, CertificateRefused)


def test_a_refusal_is_heard_over_tls_as_well(
    certified: tuple[ssl.SSLContext, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    terms, certificate = certified
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))

    def refuse(connection: socket.socket) -> None:
        head(connection)
        answer(connection, b'{"type": "/problems/body-too-large", "detail": "too much"}', "413 Too Large")
        connection.shutdown(socket.SHUT_WR)
        time.sleep(0.5)  # for the client to hear it before the connection is reset

    grads = {"w": np.zeros(LARGE_BYTES // 4, np.float32)}
    with (
        speaking(refuse, terms) as port,
        Client(f"https://localhost:{port}", retry_for_s=0) as client,
        pytest.raises(BodyTooLarge, match="too much"),
    ):
        client.model("large").push(grads)
