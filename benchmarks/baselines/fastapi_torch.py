"""FastAPI and torch: parameters and moments are in memory, torch.optim.Adam makes the step, uvicorn serves.

    python fastapi_torch.py <elements>      prints its port

A push is raw float32 and is answered with the new parameters. Nothing is checked, nothing counts once only,
and nothing is left when the process ends.
"""

from __future__ import annotations

import socket
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import Response

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks.peers import end_with_input


def create(elements: int) -> FastAPI:
    """The app. Its model begins at zero."""
    torch: Any = import_module("torch")
    app = FastAPI()
    parameter = torch.nn.Parameter(torch.zeros(elements))
    optimizer = torch.optim.Adam([parameter], lr=1e-3)

    async def push(request: Request) -> Response:
        parameter.grad = torch.frombuffer(bytearray(await request.body()), dtype=torch.float32)
        optimizer.step()
        answer = parameter.detach().numpy().tobytes()
        return Response(answer, media_type="application/octet-stream")

    app.add_api_route("/push", push, methods=["POST"])
    return app


def main(elements: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    threading.Thread(target=end_with_input, daemon=True).start()
    config = uvicorn.Config(create(int(elements)), log_config=None, access_log=False)
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
