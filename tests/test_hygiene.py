"""What no file of ours may hold: data run as code, registry addresses, one machine's paths, loose ends."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
LINES_PER_FILE = 350

RUNS_DATA_AS_CODE = [
    r"^\s*(from|import)\s+(pickle|cPickle|dill|cloudpickle|marshal|shelve|joblib)\b",
    r"\b(pickle|marshal)\.loads?\(",
    r"(?<![\w.])(eval|exec)\(",
    r"\byaml\.(unsafe_)?load\(",
    r"allow_pickle\s*=\s*True",
    r"\btorch\.load\(",
    r"shell\s*=\s*True",
]

BELONGS_TO_ONE_MACHINE = [
    # Spelled with a class in each, so that this file does not hold what it forbids.
    r"[p]y[p]i[.]org",
    r"python[h]osted[.]org",
    r"regis[t]ry[.]npm[j]s",
    r"deb[.]deb[i]an[.]org",
    r"pro[x]y[.]go[l]ang",
    r"repo1?[.]ma[v]en",
    r"(?<![\w.])/(work|root|home/[a-z]+|opt)/[\w.]",
    r"(?<![\w.])/tmp/[a-z]",
    r"file:///[a-z]",
]

UNFINISHED = [r"\b(TO[D]O|FIX[M]E|X[X]X)\b"]


def tracked(*paths: str) -> list[Path]:
    """The files under `paths` that git tracks, or would on `git add`."""
    command = [
        "git",
        "ls-files",
        "-z",
        "--cached",
        "--others",
        "--exclude-standard",
        "--",
        *(paths or (".",)),
    ]
    listed = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    if listed.returncode != 0:
        pytest.skip("not a git checkout: there is no list of the files that are ours")
    return [
        CHECKOUT / name
        for name in sorted(set(listed.stdout.split("\0")))
        if name and (CHECKOUT / name).is_file()
    ]


def lines_matching(files: list[Path], patterns: list[str]) -> list[str]:
    """`file:line: text` for every line of a text file that matches one of the patterns."""
    forbidden = re.compile("|".join(patterns))
    found = []
    for path in files:
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:  # an image, a vector: not a place where code or addresses are written
            continue
        for number, line in enumerate(text.splitlines(), start=1):
            if forbidden.search(line):
                found.append(f"{_shown(path)}:{number}: {line.strip()[:120]}")
    return found


def _shown(path: Path) -> str:
    return str(path.relative_to(CHECKOUT)) if CHECKOUT in path.parents else path.name


def test_no_data_is_ever_run_as_code() -> None:
    assert lines_matching(tracked("service/*.py", "clients/*.py"), RUNS_DATA_AS_CODE) == []


def test_nothing_names_a_registry_or_a_path_of_one_machine() -> None:
    ours = [path for path in tracked() if path.suffix != ".svg"]
    assert lines_matching(ours, BELONGS_TO_ONE_MACHINE) == []


def test_nothing_is_marked_as_unfinished() -> None:
    assert lines_matching(tracked("service", "clients"), UNFINISHED) == []


def test_no_file_hides_a_second_noun() -> None:
    code = [
        path
        for path in tracked("service", "clients")
        if path.suffix in {".py", ".lua", ".ts", ".go", ".java"}
    ]
    long = {
        _shown(path): count for path in code if (count := len(path.read_text().splitlines())) > LINES_PER_FILE
    }
    assert long == {}


@pytest.mark.parametrize(
    ("patterns", "line"),
    [
        (RUNS_DATA_AS_CODE, "import pickle"),
        (RUNS_DATA_AS_CODE, "    from marshal import loads"),
        (RUNS_DATA_AS_CODE, "rule = eval(text)"),
        (RUNS_DATA_AS_CODE, "numpy.load(file, allow_pickle = True)"),
        (RUNS_DATA_AS_CODE, "weights = torch.load(path)"),
        (BELONGS_TO_ONE_MACHINE, "--index-url https://" + "pypi" + ".org/simple"),
        (BELONGS_TO_ONE_MACHINE, "data = '/" + "home/ada/data'"),
        (BELONGS_TO_ONE_MACHINE, "cd /" + "tmp/scratch"),
        (UNFINISHED, "# TO" + "DO: finish"),
    ],
)
def test_each_gate_catches_its_kind(tmp_path: Path, patterns: list[str], line: str) -> None:
    file = tmp_path / "code.py"
    file.write_text(f"first = 1\n{line}\n")
    assert lines_matching([file], patterns) == [f"code.py:2: {line.strip()}"]


def test_gates_let_ordinary_code_through(tmp_path: Path) -> None:
    file = tmp_path / "code.py"
    file.write_text("kernel.exec(1)\nmodel.eval()\ntmpfs = '/tmp'\ndef retrieval(): ...\n")
    assert lines_matching([file], RUNS_DATA_AS_CODE + BELONGS_TO_ONE_MACHINE) == []
