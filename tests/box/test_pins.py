"""constraints.txt pins all that the pyproject files ask for, nothing else, and within their ranges."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import distribution
from itertools import chain

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.box.recipe import CHECKOUT

BUILD = ["hatchling", "editables"]
OURS = {"gradledger", "gradledger-server"}


def pins() -> dict[str, str]:
    lines = (CHECKOUT / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


def asked() -> dict[str, list[Requirement]]:
    """What both pyproject files ask for, by extra; plain dependencies under the empty name."""
    found: dict[str, list[Requirement]] = {"": []}
    for file in ("pyproject.toml", "clients/python/pyproject.toml"):
        project = tomllib.loads((CHECKOUT / file).read_text())["project"]
        found[""] += map(Requirement, project["dependencies"])
        for extra, wanted in project.get("optional-dependencies", {}).items():
            found.setdefault(extra, []).extend(map(Requirement, wanted))
    return found


def needed(name: str, extras: frozenset[str], seen: set[tuple[str, frozenset[str]]]) -> Iterator[str]:
    """The canonical names of a distribution installed here and of everything it needs here."""
    if (name, extras) in seen:
        return
    seen.add((name, extras))
    yield name
    for text in distribution(name).requires or []:
        wanted = Requirement(text)
        if any(wanted.marker is None or wanted.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield from needed(canonicalize_name(wanted.name), frozenset(wanted.extras), seen)


def closure() -> set[str]:
    """Everything that `make install` brings, besides our own two distributions."""
    wanted = [one for extra in ("", "demo", "dev") for one in asked()[extra] if one.name not in OURS]
    wanted += map(Requirement, BUILD)
    roots = [(canonicalize_name(one.name), frozenset(one.extras)) for one in wanted]
    seen: set[tuple[str, frozenset[str]]] = set()
    return {name for root, extra in roots for name in needed(root, extra, seen)}


def section(heading: str) -> set[str]:
    """The names pinned under one comment of constraints.txt."""
    text = (CHECKOUT / "constraints.txt").read_text()
    [block] = [block for block in text.split("\n\n") if block.startswith(f"# {heading}")]
    return set(re.findall(r"(?m)^([a-z0-9-]+)==", block))


def test_everything_that_is_installed_is_pinned_and_nothing_else() -> None:
    pinned = section("The build, the service")
    assert closure() <= pinned
    if sys.version_info[:2] == (3, 11):  # the image's Python; others may need fewer
        assert pinned <= closure()


def test_installed_versions_are_the_pinned_ones() -> None:
    installed = {name: distribution(name).version for name in closure()}
    assert installed == {name: version for name, version in pins().items() if name in installed}


def test_every_range_admits_its_pin() -> None:
    pinned = pins()
    for wanted in chain.from_iterable(asked().values()):
        name = canonicalize_name(wanted.name)
        if name not in OURS | {"cuda-toolkit"}:
            assert pinned[name] in wanted.specifier, f"{wanted} does not admit {name}=={pinned[name]}"


def test_torch_is_one_exact_version_and_for_benchmarks_only() -> None:
    wanting = {extra for extra, wanted in asked().items() if any(one.name == "torch" for one in wanted)}
    assert wanting <= {"bench", "torch"}
    assert [str(one) for one in asked()["bench"] if one.name == "torch"] == [f"torch=={pins()['torch']}"]


def test_every_dependency_has_its_line_in_the_documentation() -> None:
    documented = set(re.findall(r"(?m)^\| `([^`]+)`", (CHECKOUT / "docs" / "dependencies.md").read_text()))
    named = {wanted.name for wanted in chain.from_iterable(asked().values())} - OURS
    assert named | set(BUILD) == documented
