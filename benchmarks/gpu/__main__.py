"""`python -m benchmarks.gpu`: bits, then speed, then a service, and all of it into docs/gpu.md.

Exits with 0 if every bit is NumPy's, with 1 if one is not, with 3 if there is no GPU to ask.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks import bits, facts, table
from benchmarks.bits import Verdict
from benchmarks.gpu import service, speed
from benchmarks.measure import Plan, Report
from benchmarks.variants import rules
from gradledger_server.errors import DeviceUnavailable
from gradledger_server.kernels.device import open_device
from gradledger_server.optim import catalog

PAGE = Path(__file__).resolve().parents[2] / "docs" / "gpu.md"
DIFFERENT, NO_GPU = 1, 3


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status."""
    options = _parser().parse_args(arguments)
    try:
        device = open_device("gpu")
    except DeviceUnavailable as missing:
        print(f"Nothing was checked: {missing.detail}\n{missing.advice}", file=sys.stderr)
        return NO_GPU
    print(f"{device.name}: every program of every rule beside NumPy", flush=True)
    verdicts = bits.check(device, options.rules, int(options.elements))
    keep = partial(_keep, options, facts.machine() | gpu_facts(import_module("cupy")))
    keep("gpu-bits", verdict_table(verdicts))
    with tempfile.TemporaryDirectory(prefix="d") as directory:
        plan = Plan(options.quick, Path(directory))
        for measure in (partial(speed.run, plan, device, options.rules), partial(through_service, plan)):
            report = measure()
            text = table.render(report)
            print(f"\n{report.title}\n\n{text}", flush=True)
            keep(report.family, text)
    return DIFFERENT if any(verdict.differences for verdict in verdicts) else 0


def _keep(options: argparse.Namespace, machine: Mapping[str, str], family: str, text: str) -> None:
    """Into the page at once: what comes later may break on a machine nobody has seen yet."""
    if not options.quick:
        table.between_marks(options.page, family, text, machine, datetime.now(UTC).date())
        print(f"Written: {family} in {options.page.name}", flush=True)


def verdict_table(verdicts: Sequence[Verdict]) -> str:
    """What comparing came to, rule by rule, and where the device computed."""
    return table.grid(
        ("rule", "computed on", "programs", "elements", "bits"),
        [
            (
                v.name,
                "the host" if v.name in catalog.MATRIX_RULES else "the GPU",
                str(v.programs),
                f"{v.elements:.2e}",
                "**differ**" if v.differences else "equal",
            )
            for v in verdicts
        ],
    )


def through_service(plan: Plan) -> Report:
    """The service's report; without its figures, and with the reason, where it cannot run."""
    try:
        import_module("gradledger_server.server")
        return service.run(plan)
    except ImportError as missing:
        report = Report("gpu-service", service.TITLE)
        report.notes.append(
            f"Not measured here: the service's own dependencies are missing ({missing.name})."
        )
        return report


def gpu_facts(cupy: Any) -> dict[str, str]:
    """The GPU and what compiles for it."""
    properties = cupy.cuda.runtime.getDeviceProperties(0)
    driver = cupy.cuda.runtime.driverGetVersion()
    return {
        "GPU": properties["name"].decode(),
        "its memory": f"{properties['totalGlobalMem'] / 2**30:.0f} GiB",
        "driver for CUDA": f"{driver // 1000}.{driver % 1000 // 10}",
        "NVRTC": ".".join(map(str, cupy.cuda.nvrtc.getVersion())),
        "cupy": cupy.__version__,
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--elements", type=float, default=1e8, help="to compare per rule")
    parser.add_argument("--quick", action="store_true", help="tiny sizes for the speeds; writes no page")
    parser.add_argument("--rules", nargs="+", default=rules(), choices=rules(), metavar="RULE")
    parser.add_argument("--page", type=Path, default=PAGE, help="where the tables go")
    return parser


if __name__ == "__main__":
    sys.exit(main())
