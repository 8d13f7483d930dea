"""The Makefile's commands, as far as they can be seen without running them, and what CI makes of them."""

from __future__ import annotations

import os
import re
import subprocess

from tests.box.recipe import CHECKOUT

PROMISED = {
    "help",
    "install",
    "demo",
    "serve",
    "test",
    "format",
    "bench",
    "bits",
    "diloco",
    "gpu-check",
    "openapi",
    "crash",
}


def make(*arguments: str) -> str:
    """What make prints, started afresh: a make around this test has no say."""
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}
    done = subprocess.run(["make", *arguments], cwd=CHECKOUT, env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_make_alone_explains_every_command() -> None:
    phony = re.search(r"(?m)^\.PHONY: (.+)$", (CHECKOUT / "Makefile").read_text().replace("\\\n", ""))
    assert phony is not None
    explained = set(re.findall(r"(?m)^  make ([a-z-]+) +\S", make()))
    assert explained == set(phony[1].split())
    assert explained >= PROMISED


def test_make_test_checks_format_lint_and_types_and_runs_the_tests() -> None:
    planned = make("--dry-run", "test")
    for step in ("ruff format --check", "ruff check", "bin/mypy", "-m pytest"):
        assert step in planned


def test_pytorch_is_installed_only_where_it_is_asked_for() -> None:
    assert "torch" not in make("--dry-run", "test")
    planned = make("--dry-run", "--assume-new", "pyproject.toml", "test", "EXTRAS=torch")
    assert "'.[torch]'" in planned and planned.index("'.[torch]'") < planned.index("-m pytest")


def test_continuous_integration_runs_make_test_with_pytorch_and_nothing_else() -> None:
    script = CHECKOUT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = [line for line in script.read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in lines if not line.startswith(("set ", "cd "))] == ["make test EXTRAS=torch"]
