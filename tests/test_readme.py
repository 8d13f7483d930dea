"""The pages' own commands and requests, run as they stand against a real service."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gradledger_server.api.telemetry import Metrics
from tests.service import Service

README = (Path(__file__).parents[1] / "README.md").read_text()
CLIENT = (Path(__file__).parents[1] / "clients" / "python" / "README.md").read_text()
TABLES = (Path(__file__).parents[1] / "docs" / "tables.md").read_text()
TRANSFORMS = (Path(__file__).parents[1] / "docs" / "transforms.md").read_text()


def block(language: str) -> str:
    """The README's code block in that language."""
    (found,) = blocks(language, README)
    return found


def blocks(language: str, page: str) -> list[str]:
    return [str(found) for found in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)]


def run(*command: str, text: str, service: Service) -> str:
    there = text.replace("http://127.0.0.1:8000", service.url)
    done = subprocess.run([*command, there], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_run_with_curl_finds_the_minimum(service: Service) -> None:
    told = run("bash", "-euc", text=block("bash"), service=service)
    found = re.search(r"^w = (\S+)$", told, re.MULTILINE)
    assert found and float(found[1]) == pytest.approx(3.0, abs=1e-3)
    assert '"kind":"push"' in told or '"saved_offset"' in told
    assert service.request("GET", "/v1/models/parabola").status == 404


def test_the_run_with_python_finds_the_minimum(service: Service) -> None:
    told = run(sys.executable, "-c", text=block("python"), service=service)
    assert re.match(r"\[(2\.9|3\.0)\d*\] 200 0 memory\n", told), told
    assert "['m/w', 'param/w', 't/w', 'v/w']" in told


def test_the_clients_own_page_trains_and_computes_meanwhile(own_service: Service) -> None:
    plain, fewer, ahead = blocks("python", CLIENT)
    assert run(sys.executable, "-c", text=plain, service=own_service).startswith("100 0 ")
    assert run(sys.executable, "-c", text=fewer, service=own_service) == "100 1.0\n"
    assert run(sys.executable, "-c", text=ahead, service=own_service).startswith("10 1 "), "a step stale each"


def test_a_tables_life_goes_as_its_page_says(service: Service) -> None:
    for request in blocks("", TABLES)[0].split("\n\n"):
        asked, body = request.split("\n→")[0].split("\n", 1)
        method, path = asked.split()
        answer = service.request(method, path, json.loads(body))
        assert answer.status in (200, 201), answer.data
    told = json.loads(answer.data)
    assert told["step"] == 1
    assert told["parameters"]["emb#rows"] == [4, 17]
    assert [len(told["parameters"][name]) for name in ("w", "emb")] == [2, 2]


def test_the_transforms_it_shows_make_a_model(service: Service) -> None:
    answer = service.request("PUT", "/v1/models/transformed", json.loads(blocks("json", TRANSFORMS)[0]))
    assert answer.status == 201, answer.data
    assert json.loads(answer.data)["transforms"]["clip_global_norm"]["max_norm"] == 1.0


@pytest.mark.parametrize("path", re.findall(r"\]\(([\w/.-]+)\)", README))
def test_every_file_it_names_is_there(path: str) -> None:
    assert (Path(__file__).parents[1] / path).exists()


def test_the_stops_it_lists_open_the_docstrings_of_their_modules() -> None:
    stops = re.findall(r"^(\d/6) (\w+)\s.*?([\w/]+\.py)", README, re.MULTILINE)
    assert len(stops) == 6
    for number, _, module in stops:
        source = (Path(__file__).parents[1] / "service/gradledger_server" / module).read_text()
        assert number in source, f"{module} does not name stop {number}"


def test_it_lists_every_metric() -> None:
    told = {metric.name for metric in Metrics().registry.collect()}
    listed = re.findall(r"^\| `(gradledger_\w+)` \|", README, re.MULTILINE)
    assert {name.removesuffix("_total") for name in listed} == {
        name for name in told if name.startswith("gradledger_")
    }
