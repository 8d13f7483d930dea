"""A pull that finds nothing new beside a bare HTTP echo of nothing."""

from __future__ import annotations

from contextlib import closing

from benchmarks import limits
from benchmarks.connection import Connection
from benchmarks.measure import Plan, Report, take_turns, timed
from benchmarks.subject import MODEL, serving
from tests.service import SAFETENSORS

TITLE = "Unchanged pull"
GOAL = 1.5
NBYTES = 4096
LIMIT = "bare uvicorn echo"


def run(plan: Plan) -> Report:
    """`If-None-Match` with the present ETag: 304, without a body either way; one reader, one connection."""
    report = Report("unchanged", TITLE)
    path = f"/v1/models/{MODEL}/parameters"
    with limits.http(0) as echo, serving(plan, "memory", NBYTES // 4) as service:
        etag = service.request("GET", path, Accept=SAFETENSORS).headers["etag"]
        headers = f"Accept: {SAFETENSORS}\r\nIf-None-Match: {etag}\r\n"
        with closing(Connection(service.port, NBYTES)) as connection:
            pull = timed(lambda: connection.request("GET", path, headers, b""))
            samples = take_turns(
                {LIMIT: echo, "pull": pull},
                plan.pick(40, 3),
                warmups=plan.pick(100, 5),
                row=plan.pick(50, 10),
            )
            assert connection.head.startswith("http/1.1 304"), connection.head
    report.samples["pull"] = dict(samples.seconds)
    report.figures.append(samples.figure("unchanged pull (304)", "pull", (LIMIT,), goal=GOAL))
    report.figures.append(samples.quantile_figure(0.99, "unchanged pull (304)", "pull", (LIMIT,)))
    return report
