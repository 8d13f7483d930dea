"""A push with everything hard-wired: what Python, uvicorn and Valkey need for it and nothing else.

    python bare.py <unix socket of a Valkey>       prints its port

One model, one tensor, one worker, one thread. The body's digest and norm are taken, the commit script appends
it, the compiled kernel applies it, and a receipt goes out with the new weights. Nothing is checked, nothing
recovers, nobody else is served: it is no server, but the bound of one that is written in Python.
"""

from __future__ import annotations

import math
import socket
import sys
import threading
import time
from array import array
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import hiredis
import numpy as np
import orjson
import uvicorn
from xxhash import xxh3_128_hexdigest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.peers import end_with_input
from gradledger_server.kernels.device import open_device
from gradledger_server.optim import catalog, chain
from gradledger_server.store import keys, scripts
from gradledger_server.store.packing import Command, pack

Message = MutableMapping[str, Any]

ELEMENTS = 1024
EPOCH = "bare"
NAMES = [key(EPOCH) for key in (keys.head, keys.log, keys.keys, keys.chunks)]


class Bare:
    """The app: state in a few arrays, and one socket to Valkey."""

    def __init__(self, path: str) -> None:
        adam = catalog.expand_optimizer({"rule": "adam"}, where="optimizer")
        self.device = open_device("cpu")
        self.program = chain.program(adam)
        self.kernel = self.device.kernel(self.program, np.float32)
        self.numbers = catalog.numbers(adam)
        self.w, *self.slots = (self.device.zeros(ELEMENTS, np.float32) for _ in range(3))
        self.step = 0
        self.line = socket.socket(socket.AF_UNIX)
        self.line.connect(path)
        self.replies = hiredis.Reader()
        self.ask(("SCRIPT", "LOAD", scripts.commit.text))
        deadline_ms = 1000 * (int(time.time()) + 60)
        self.ask(scripts.commit(NAMES, "first", b"{}", b"", "", 1, "any", 10_000, "", 0, deadline_ms))

    def ask(self, command: Command) -> Any:
        self.line.sendall(b"".join(pack([command])))
        while (reply := self.replies.gets()) is False:
            self.replies.feed(self.line.recv(1 << 16))
        return reply

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        (sequence,) = parse_qs(scope["query_string"])[b"sequence"]
        receipt = self.push(body, int(sequence))
        headers = [(b"content-length", b"%d" % len(body)), (b"receipt", receipt)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body[: -self.w.nbytes] + self.w.tobytes()})

    def push(self, body: bytes, sequence: int) -> bytes:
        """Measured, appended, applied; its receipt as JSON."""
        g = np.frombuffer(body, np.float32, ELEMENTS, len(body) - 4 * ELEMENTS)
        facts = {
            "digest": xxh3_128_hexdigest(body),
            "grad_norm": math.sqrt(self.device.sum_of_squares(g)),
            "sequence": sequence,
            "at_ms": time.time_ns() // 1_000_000,
        }
        meta = orjson.dumps(facts)
        reply = self.ask(scripts.commit(NAMES, "next", meta, body, "w:w0", sequence, "any", 10_000, "", 0))
        assert reply[0] == b"appended", reply
        self.step += 1
        scalars = array("d", self.program.evaluate({**self.numbers, "t": self.step}))
        self.kernel(self.w, self.w, g, self.slots, scalars)
        return orjson.dumps({"fate": "applied", "step": self.step, **facts})


def main(path: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    app = Bare(path)
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=end_with_input, daemon=True).start()
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
