"""The Python client of Gradledger, a parameter server anyone can reach with HTTP.

    model = Client().create("demo", {"w": w}, optimizer={"rule": "adam", "lr": 1e-3})
    params, receipt = model.push({"w": gradient})

Reading order: `client.py`, `model.py`, `outbox.py` (one push at a time), `worker.py` (how a push counts
once), `membership.py` (leases), `events.py` (watching), `transport.py` and `patience.py` (retries),
`tensors.py` (the bytes), `landing.py` (where they go), `compression.py` (fewer of them), `rows.py` (tables),
`seen.py` (what is here already), `asking.py`, `receipt.py`, `errors.py` (every way to fail).
"""

from gradledger import errors
from gradledger.client import Client
from gradledger.compression import BFloat16, Quantized, Residual, bfloat16, compressed, quantized
from gradledger.errors import ConnectionFailed, GradledgerError, Problem
from gradledger.events import Event, Events
from gradledger.membership import Membership
from gradledger.model import Model
from gradledger.receipt import Receipt
from gradledger.rows import Rows, Table
from gradledger.tensors import Params
from gradledger.version import __version__

__all__ = [
    "BFloat16",
    "Client",
    "ConnectionFailed",
    "Event",
    "Events",
    "GradledgerError",
    "Membership",
    "Model",
    "Params",
    "Problem",
    "Quantized",
    "Receipt",
    "Residual",
    "Rows",
    "Table",
    "__version__",
    "bfloat16",
    "compressed",
    "errors",
    "quantized",
]
