"""The Python client of Gradledger, a parameter server anyone can reach with HTTP.

    model = Client().create("demo", {"w": w}, optimizer={"rule": "adam", "lr": 1e-3})
    params, receipt = model.push({"w": gradient})

Reading order: `client.py`, `model.py`, `worker.py` (how a push counts once), `membership.py` (leases),
`transport.py` (retries), `tensors.py` (the bytes), `rows.py` (tables), `compression.py` (fewer bytes),
`receipt.py`, `errors.py` (every way to fail).
"""

from gradledger import errors
from gradledger.client import Client
from gradledger.compression import BFloat16, Quantized, Residual, bfloat16, compressed, quantized
from gradledger.errors import ConnectionFailed, GradledgerError, Problem
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
