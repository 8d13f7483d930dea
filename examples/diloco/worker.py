"""One worker process: its share of the text, one of the two ways, and how many bytes went either way.

Everything it says to the service passes through a relay that counts. It tells what it sees as lines of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Generator
from typing import Any

import numpy as np
import torch

from examples.diloco.recipe import ADAMW, BATCH, DILOCO, PARALLEL, SEED, SYNC, WAYS, WORKERS
from examples.diloco.relay import Relay
from examples.diloco.text import Text
from examples.diloco.transformer import LENGTH, Transformer, loss_of
from gradledger import Client
from gradledger.torch import DiLoCo, ModuleParameters
from gradledger_server.demo.processes import end_with_parent

STRETCHES = 10  # of each held-out piece


class Training:
    """The model, this worker's batches, and the held-out text."""

    def __init__(self, index: int) -> None:
        text = Text()
        self.model = Transformer(len(text.characters), SEED)
        self._batches = text.batches(index, WORKERS, size=BATCH, length=LENGTH)
        self._held_out = text.held_out(STRETCHES, LENGTH)

    def gradient(self) -> None:
        """The next batch's, where PyTorch keeps gradients."""
        self.model.zero_grad()
        loss_of(self.model, *next(self._batches)).backward()

    def loss(self) -> float:
        """Nats per character of the held-out text."""
        with torch.no_grad():
            return float(loss_of(self.model, *self._held_out))


def parallel(client: Client, name: str, worker: str, training: Training) -> Generator[None]:
    """Every step is a round of gradients; the service runs AdamW. Yields after each step."""
    params = ModuleParameters(training.model)
    remote = client.create(
        name, params.read(params.names), PARALLEL.adamw, sync=SYNC, exist_ok=True, worker=worker
    )
    with remote.join(worker):
        params.write(remote.pull())
        while True:
            training.gradient()
            named = training.model.named_parameters()
            pulled, _ = remote.push({key: np.asarray(each.grad) for key, each in named}, wait_s=60)
            params.write(pulled)
            yield


def diloco(client: Client, name: str, worker: str, training: Training) -> Generator[None]:
    """AdamW here; every H-th step is a round as well, in int8. Yields after each step."""
    betas = ADAMW["beta1"], ADAMW["beta2"]
    inner = torch.optim.AdamW(
        training.model.parameters(), lr=DILOCO.lr, betas=betas, weight_decay=ADAMW["weight_decay"]
    )
    options: Any = {"client": client, "name": name, "worker": worker, "sync": SYNC}
    with DiLoCo(training.model, inner, every=DILOCO.look, wire="int8", **options) as outer:
        while True:
            training.gradient()
            outer.step(weight=BATCH * LENGTH)
            yield


def work(url: str, way: str, index: int, steps: int) -> None:
    """Makes so many steps, and tells of each."""
    torch.set_num_threads(1)
    training, name = Training(index), f"characters-{way}"
    make = {"parallel": parallel, "diloco": diloco}[way]
    with Relay(url) as relay, Client(relay.url) as client:
        made = make(client, name, f"w{index}", training)
        for step in range(1, steps + 1):
            next(made)
            told: dict[str, Any] = {
                "worker": index,
                "step": step,
                "sent": relay.sent_bytes,
                "received": relay.received_bytes,
            }
            if index == 0 and step % WAYS[way].look == 0:
                told["loss"] = training.loss()
            print(json.dumps(told), flush=True)
        made.close()


def options(url: str, way: str, steps: int) -> list[list[str]]:
    """The command line of each worker."""
    common = ["--url", url, "--way", way, "--steps", str(steps)]
    return [[*common, "--index", str(index)] for index in range(WORKERS)]


def main() -> None:
    """Reads the command line and works."""
    parser = argparse.ArgumentParser(prog="python -m examples.diloco.worker", description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--way", choices=WAYS, required=True)
    for number in ("--index", "--steps"):
        parser.add_argument(number, type=int, required=True)
    end_with_parent()
    work(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
