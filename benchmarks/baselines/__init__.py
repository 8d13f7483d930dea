"""The service beside what most people would write instead, a small honest program each: the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from importlib.util import find_spec

import numpy as np
import redis

from benchmarks import limits
from benchmarks.measure import Case, Plan, Report, take_turns, timed
from benchmarks.noise import noise
from benchmarks.subject import Pusher, require_steps, serving

TITLE = "What one would write instead"
FLASK, FASTAPI = "Flask + Redis + NumPy", "FastAPI + memory + torch"
NEEDED = {FLASK: ("flask", "gunicorn"), FASTAPI: ("torch",)}
LR = 1e-3


def run(plan: Plan) -> Report:
    """Adam, 64 MiB and 4 KiB, one worker and one connection; the service at durability `memory`."""
    report = Report("baselines", TITLE)
    missing = {name: [package for package in NEEDED[name] if find_spec(package) is None] for name in NEEDED}
    for name, packages in missing.items():
        if packages:
            report.notes.append(f"{name}: skipped, because {', '.join(packages)} is not installed here.")
    there = [name for name, packages in missing.items() if not packages]
    if there:
        _measure(plan, report, there, plan.pick(64 << 20, 1 << 20), row=1)
        _measure(plan, report, there, 4096, row=plan.pick(50, 5))
    return report


def _measure(plan: Plan, report: Report, names: list[str], nbytes: int, *, row: int) -> None:
    with ExitStack() as opened:
        cases = {name: opened.enter_context(_baseline(name, nbytes)) for name in names}
        service = opened.enter_context(serving(plan, "memory", nbytes // 4))
        pusher = Pusher(service, nbytes // 4)
        samples = take_turns(cases | {"push": timed(pusher.push)}, plan.pick(15, 2), row=row)
        require_steps(service, pusher.sequence)
        pusher.close()
    size = f"{nbytes >> 20} MiB" if nbytes >> 20 else f"{nbytes >> 10} KiB"
    report.samples[size] = dict(samples.seconds)
    for name in names:
        report.figures.append(samples.figure(f"{size} Adam, durability memory", "push", (name,)))


@contextmanager
def _baseline(name: str, nbytes: int) -> Iterator[Case]:
    """A push to the program, once a first one has shown that it is Adam's step that comes back."""
    elements = nbytes // 4
    with ExitStack() as opened:
        if name == FLASK:
            path = _socket(opened.enter_context(limits.valkey()))
            program = limits.peer(path, str(elements), program="baselines/flask_redis.py")
        else:
            program = limits.peer(str(elements), program="baselines/fastapi_torch.py")
        connection = opened.enter_context(closing(limits.patiently(opened.enter_context(program), nbytes)))
        gradient = noise(elements, 9)
        body = gradient.view(np.uint8).data
        answer = np.frombuffer(connection.request("POST", "/push", "", body), np.float32)
        # From zero, the first step is -lr times the sign, but where a gradient is no larger than eps.
        large = np.abs(gradient) > 1e-5
        np.testing.assert_allclose(answer[large], -LR * np.sign(gradient[large]), rtol=2e-3)
        yield timed(lambda: connection.request("POST", "/push", "", body))


def _socket(client: redis.Redis) -> str:
    path: str = client.connection_pool.connection_kwargs["path"]
    return path
