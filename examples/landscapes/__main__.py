"""`python -m examples.landscapes`: starts a service, lets the rules walk, draws what they did."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from examples.landscapes.draw import picture
from examples.landscapes.functions import LANDSCAPES
from examples.landscapes.run import walk
from gradledger import Client
from gradledger_server.demo.processes import Service

WELL_KNOWN = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adadelta", "adam", "lion")
IN_DOCS = ("rosenbrock", "ravine", "saddle")
DOCS = Path(__file__).resolve().parents[2] / "docs" / "landscapes"


def main(arguments: Sequence[str]) -> None:
    options = _options(arguments)
    with live_service() as client:
        known = [rule["name"] for rule in client.optimizers()]
        rules = [rule for rule in WELL_KNOWN if rule in known] if options.docs else options.rules or known
        if unknown := set(rules) - set(known):
            raise SystemExit(f"no rule {', '.join(sorted(unknown))}; there are {', '.join(known)}")
        for name in options.landscapes or LANDSCAPES:
            started = time.monotonic()
            landscape = LANDSCAPES[name]
            paths = walk(client, landscape, rules, options.steps or landscape.steps)
            to = options.out / f"{name}.png"
            picture(landscape, paths, to, columns=options.columns, dpi=options.dpi)
            print(f"{to}: {len(paths)} paths, {time.monotonic() - started:.1f} s")


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m examples.landscapes", description=__doc__)
    parser.add_argument(
        "landscapes", nargs="*", metavar="landscape", help=f"of {', '.join(LANDSCAPES)}; default all"
    )
    parser.add_argument("--rules", nargs="+", help="default: all of the catalogue")
    parser.add_argument("--steps", type=int, help="default: each landscape's own")
    parser.add_argument("--out", type=Path, default=Path("landscapes"), help="folder for the PNGs")
    parser.add_argument("--columns", type=int, choices=(2, 4), default=4, help="panels side by side")
    parser.add_argument("--dpi", type=int, default=110)
    parser.add_argument("--docs", action="store_true", help="draw the pictures of docs/ again")
    options = parser.parse_args(arguments)
    if unknown := set(options.landscapes) - LANDSCAPES.keys():
        parser.error(f"no landscape {', '.join(sorted(unknown))}; there are {', '.join(LANDSCAPES)}")
    if options.docs:
        options.landscapes, options.out = list(IN_DOCS), DOCS
        options.columns, options.dpi = 2, 100
    return options


@contextmanager
def live_service() -> Iterator[Client]:
    """A client of `gradledger serve` in a process of its own, with a data directory that goes with it."""
    with tempfile.TemporaryDirectory(prefix="landscapes-") as directory:
        service = Service(Path(directory) / "data", Path(directory) / "log", "--durability", "memory")
        service.start()
        try:
            with Client(service.url) as client:
                yield client
        finally:
            service.stop()


if __name__ == "__main__":
    main(sys.argv[1:])
