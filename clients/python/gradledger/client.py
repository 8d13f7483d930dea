"""A Gradledger service: its models and its catalogue of optimizers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import ArrayLike

from gradledger.errors import ModelExists
from gradledger.gradients import require_names
from gradledger.model import Model
from gradledger.rows import Table
from gradledger.tensors import dtype_name
from gradledger.transport import Body, Transport

DEFAULT_URL = "http://127.0.0.1:8000"


class Client:
    """The door to one service, at `url`, else at the environment's GRADLEDGER_URL, else on this machine.

    `timeout_s` bounds the silence within one try. While the service does not answer, or asks to wait, new
    tries begin for `retry_for_s` (0: one try only). `headers` go with every request.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        timeout_s: float = 30.0,
        retry_for_s: float = 60.0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.url = url or os.environ.get("GRADLEDGER_URL") or DEFAULT_URL
        self._transport = Transport(
            self.url, timeout_s=timeout_s, retry_for_s=retry_for_s, headers=headers or {}
        )

    def create(
        self,
        name: str,
        params: Mapping[str, ArrayLike | Table],
        optimizer: Mapping[str, Any] | str,
        *,
        exist_ok: bool = False,
        worker: str | None = None,
        **spec: Any,
    ) -> Model:
        """Creates a model with initial parameters (float32 or float64, or a `Table`) and its optimizer.

        `optimizer` is a rule's name or {"rule": "adam", "lr": 1e-3, …}; `spec` may hold `schedule`, `groups`,
        `transforms`, `sync` and `guard` as the API has them. With `exist_ok` a model of the same spec is
        taken as it is, so that many workers may create it; of another spec it raises ModelExists.
        """
        require_names(params)
        tables = {key: value for key, value in params.items() if isinstance(value, Table)}
        arrays = {key: np.asarray(value) for key, value in params.items() if not isinstance(value, Table)}
        shapes: dict[str, Any] = {
            key: {"shape": array.shape, "dtype": dtype_name(array.dtype)} for key, array in arrays.items()
        } | {key: table.to_json() for key, table in tables.items()}
        chosen = {"rule": optimizer} if isinstance(optimizer, str) else dict(optimizer)
        body = Body.of_json({"optimizer": chosen, **spec, "parameters": shapes})
        answer = self._transport.send("PUT", f"/v1/models/{quote(name, safe='')}", body=body)
        # An earlier try whose answer was lost may be what created it.
        if answer.status != 201 and answer.tries == 1 and not exist_ok:
            raise ModelExists(f"model {name!r} exists; take it with exist_ok=True, or choose another name")
        model = self.model(name, worker)
        model.begin(arrays)
        return model

    def model(self, name: str, worker: str | None = None) -> Model:
        """A model that exists. Without a `worker` name its pushes are counted under a new random one."""
        return Model(name, self._transport, worker)

    def models(self) -> list[dict[str, Any]]:
        """What the service says of each of its models."""
        return list(self._transport.send("GET", "/v1/models").json()["models"])

    def optimizers(self) -> list[dict[str, Any]]:
        """The catalogue: each rule with its hyperparameters, equation and paper."""
        return list(self._transport.send("GET", "/v1/optimizers").json()["optimizers"])

    def close(self) -> None:
        """Closes the connections, those in use when they are done. Later calls raise ClientClosed."""
        self._transport.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
