"""Requests made from the OpenAPI document, right and wrong ones: the service answers as the document says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save
from schemathesis import checks
from schemathesis.core.result import Ok

from gradledger_server.server import document
from tests.api.talk import SGD, Model
from tests.service import SAFETENSORS, Service

EXAMPLES = 12  # of each operation
TRUE_OF_EVERY_ANSWER = [
    checks.not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]

_bodies = st.one_of(
    st.just(save({"w": np.ones(2, np.float32)})),
    st.just(save({"w": np.full(2, np.nan, np.float32)})),
    st.just(save({"w": np.ones(3, np.float32)})),
    st.binary(max_size=64),
)
schemathesis.openapi.media_type(SAFETENSORS, _bodies)


OPERATIONS = [
    found.ok()
    for found in schemathesis.openapi.from_dict(document()).get_all_operations()
    if isinstance(found, Ok) and not found.ok().path.endswith("/events")  # a stream has no end to wait for
]


RIGHT, WRONG = schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE
ASKED = [(operation, RIGHT) for operation in OPERATIONS] + [
    (operation, WRONG) for operation in OPERATIONS if operation.body or operation.query
]  # what has neither body nor query cannot be asked wrongly


@pytest.mark.parametrize(
    ("operation", "mode"), ASKED, ids=[f"{operation.label} {mode.value}" for operation, mode in ASKED]
)
def test_every_answer_is_as_documented(
    service: Service, operation: Any, mode: schemathesis.GenerationMode
) -> None:
    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        if len(case.path_parameters.get("model", "")) % 2:
            case.path_parameters["model"] = existing(service).name
        case.call_and_validate(base_url=service.url, checks=TRUE_OF_EVERY_ANSWER, timeout=20)

    ask()


def existing(service: Service) -> Model:
    """A model there is, whatever the requests before did to it."""
    model = Model(service, "fuzzed")
    return model if model.send("GET").status == 200 else model.create({"w": [0.0, 0.0]}, SGD)
