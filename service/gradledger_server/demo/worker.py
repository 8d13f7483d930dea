"""One worker process: gradients of its share of the images, until it has been through them often enough.

It knows nothing of crashes: `push` returns when the push has counted, however often it had to be sent.
Each acknowledged push is told to whoever started it, as a line of JSON on standard output. It ends with
the one who started it: when its standard input closes.
"""

from __future__ import annotations

import argparse
import json

import numpy as np

from gradledger import Client
from gradledger_server.demo import digits
from gradledger_server.demo.processes import end_with_parent

BATCH = 32


def pushes_per_epoch(images: int, workers: int) -> int:
    """How many batches the smallest share holds; every worker does as many."""
    return images // workers // BATCH


def work(url: str, model: str, index: int, workers: int, epochs: int) -> None:
    """Pushes `epochs` times as many gradients as there are batches in the share of worker `index`."""
    train, _ = digits.load()
    share = train.every(workers, index)
    draw = np.random.default_rng(index)
    batches = pushes_per_epoch(len(train.y), workers)
    with Client(url) as client:
        remote = client.model(model, worker=f"w{index}")
        params = remote.pull()
        for _ in range(epochs):
            order = draw.permutation(len(share.y))
            for rows in np.split(order[: batches * BATCH], batches):
                loss, grads = digits.gradient(params, digits.Images(share.x[rows], share.y[rows]))
                params, receipt = remote.push(grads)
                told = {
                    "worker": receipt.worker,
                    "sequence": receipt.sequence,
                    "step": receipt.step,
                    "staleness": receipt.staleness,
                    "replayed": receipt.replayed,
                    "loss": loss,
                }
                print(json.dumps(told), flush=True)


def options(url: str, model: str, workers: int, epochs: int) -> list[list[str]]:
    """The command line of each worker."""
    common = ["--url", url, "--model", model, "--workers", str(workers), "--epochs", str(epochs)]
    return [[*common, "--index", str(index)] for index in range(workers)]


def main() -> None:
    """Reads the command line and works."""
    parser = argparse.ArgumentParser(prog="python -m gradledger_server.demo.worker", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--model", required=True)
    for number in ("--index", "--workers", "--epochs"):
        parser.add_argument(number, type=int, required=True)
    end_with_parent()
    work(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
