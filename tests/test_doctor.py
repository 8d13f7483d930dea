"""What `gradledger doctor` finds: what a start-up would meet, in the same words."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from gradledger_server.doctor import Finding, examine
from gradledger_server.errors import GradledgerError
from gradledger_server.settings import read
from gradledger_server.store import open_store
from tests.service import Service


def found(subject: str, **options: object) -> Finding:
    """What is found of the subject."""
    given = {"port": 0, "device": "cpu", "durability": "memory"} | options
    [finding] = [each for each in examine(read(**given)) if each.subject == subject]
    return finding


def test_all_is_well_here_and_nothing_is_left_behind(tmp_path: Path) -> None:
    settings = read(port=0, device="cpu", durability="memory", data_dir=tmp_path / "new" / "data")
    findings = examine(settings)
    assert [each for each in findings if not each.ok] == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("path", ["file", "file/below", "/proc/x"])
def test_a_data_directory_that_cannot_be_is_refused_as_by_serve(tmp_path: Path, path: str) -> None:
    (tmp_path / "file").touch()
    data_dir = tmp_path / path
    finding = found("data directory", data_dir=data_dir)
    with pytest.raises(GradledgerError) as refused:
        open_store(None, data_dir, "memory")
    assert not finding.ok
    assert (finding.found, finding.fix) == (refused.value.detail, refused.value.advice)


def test_a_data_directory_that_takes_no_files_is_refused() -> None:
    finding = found("data directory", data_dir=Path("/proc"))
    assert not finding.ok and "/proc cannot be written to" in finding.found and "--data-dir" in finding.fix


def test_a_data_directory_that_is_there_stays(tmp_path: Path) -> None:
    assert found("data directory", data_dir=tmp_path).ok
    assert tmp_path.is_dir() and list(tmp_path.iterdir()) == []


def test_a_data_directory_is_not_needed_with_a_server_elsewhere() -> None:
    finding = found("data directory", data_dir=Path("/proc/x"), redis_url="redis://127.0.0.1:1")
    assert finding.ok and "--redis-url" in finding.found


def test_a_port_is_free_taken_or_our_own(service: Service) -> None:
    assert found("port").ok
    assert "ready service" in found("port", port=service.port).found
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))  # and does not answer who asks whether it is ready
        taken = found("port", port=other.getsockname()[1])
    assert not taken.ok and "--port" in taken.fix


@pytest.mark.parametrize("host", ["nosuch.invalid", "192.0.2.1"])
def test_a_host_that_is_not_here_is_refused(host: str) -> None:
    finding = found("port", host=host)
    assert not finding.ok and host in finding.found and "--host" in finding.fix
