"""Flask and Redis: parameters and moments are values in Redis, NumPy makes the step, gunicorn serves.

    python flask_redis.py <unix socket of a Redis> <elements>      prints its port

A push is raw float32 and is answered with the new parameters. Nothing is checked and nothing counts once
only; one lock keeps two pushes from overwriting each other's step.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import redis

LR, BETA1, BETA2, EPS = np.float32(1e-3), np.float32(0.9), np.float32(0.999), np.float32(1e-8)


def create(path: str, elements: int) -> Any:
    """The app. Its model begins at zero."""
    flask: Any = import_module("flask")
    app = flask.Flask(__name__)
    store: Any = redis.Redis(unix_socket_path=path)
    lock = threading.Lock()
    zeros = bytes(4 * elements)
    store.mset({"w": zeros, "m": zeros, "v": zeros, "t": 0})

    def push() -> Any:
        g = np.frombuffer(flask.request.get_data(), np.float32)
        with lock:
            *stored, t = store.mget("w", "m", "v", "t")
            w, m, v = (np.frombuffer(value, np.float32) for value in stored)
            step = int(t) + 1
            m = BETA1 * m + (1 - BETA1) * g
            v = BETA2 * v + (1 - BETA2) * g * g
            m_hat, v_hat = m / (1 - BETA1**step), v / (1 - BETA2**step)
            w = w - LR * m_hat / (np.sqrt(v_hat) + EPS)
            answer = w.tobytes()
            store.mset({"w": answer, "m": m.tobytes(), "v": v.tobytes(), "t": step})
        return flask.Response(answer, mimetype="application/octet-stream")

    app.add_url_rule("/push", view_func=push, methods=["POST"])
    return app


def main(path: str, elements: str) -> None:
    """Becomes gunicorn, as one would start it, on a port that is free."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.set_inheritable(True)
    # As gunicorn does for the sockets it opens itself; without it a small answer takes 40 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print(listener.getsockname()[1], flush=True)
    options = ["--bind", f"fd://{listener.fileno()}", "--threads", "4", "--keep-alive", "75"]
    options += ["--log-level", "error", "--chdir", str(Path(__file__).parent)]
    app = f"flask_redis:create({path!r}, {int(elements)})"
    command = [sys.executable, "-m", "gunicorn", *options, app]
    os.execv(sys.executable, command)  # noqa: S606  # there is no shell to want


if __name__ == "__main__":
    main(*sys.argv[1:])
