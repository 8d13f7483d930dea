"""Whatever a model is and whatever happens to it: its state is a function of its log, on any device."""

from __future__ import annotations

import hashlib
import json
import random
from math import prod

import numpy as np
import pytest

from gradledger_server.blocks import Blocks
from gradledger_server.dtypes import NUMPY_DTYPE
from gradledger_server.entries import Create, Record
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.device import Device
from gradledger_server.machine import image
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.model import Model
from gradledger_server.optim.catalog import RULES
from gradledger_server.wire import records, safetensors
from tests.machine import lives
from tests.machine.bodies import NUMPY

LLVM = CpuDevice()


def digest(model: Model) -> str:
    """Of all there is to the model. One NaN is as good as another: IEEE 754 leaves their bits open."""
    taken = image.copy(model)
    data, start = bytearray(b"".join(part.tobytes() for part in taken.parts)), 0
    for _, dtype, shape in taken.tensors:
        values = np.frombuffer(data, NUMPY_DTYPE[dtype], prod(shape), start)
        if dtype != "I64":
            values[np.isnan(values)] = np.nan
        start += values.nbytes
    told = json.dumps([taken.tensors, taken.facts], sort_keys=True)
    return hashlib.sha256(told.encode() + data).hexdigest()


def reborn(model: Model, device: Device) -> Model:
    """As a snapshot brings it back."""
    taken = image.copy(model)
    parts = [safetensors.header(taken.tensors), *(part.tobytes() for part in taken.parts)]
    tensors = safetensors.decode(memoryview(b"".join(parts)), safetensors.OWN)
    return image.restore(records.from_json(records.to_json(taken.facts)), tensors, device, Blocks())


def replayed(log: list[Record], device: Device) -> Model:
    first, *others = map(records.from_record, log)
    assert isinstance(first, Create)
    model = begin(first, device, Blocks())
    for offset, entry in enumerate(others, start=2):
        apply(model, offset, entry)
    return model


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("extreme", [False, True], ids=["moderate", "extreme"])
@pytest.mark.parametrize("rule", RULES)
def test_lived_restored_or_replayed_a_model_is_the_same(rule: str, extreme: bool) -> None:
    """Settings at the edges of what is allowed make infinities and NaN, and nothing else goes wrong."""
    draw = random.Random(f"{rule} {extreme}")
    first, *others = lives.entries(lives.wanted(rule, draw, extreme=extreme), draw, 12, extreme=extreme)
    assert isinstance(first, Create)
    live, restored = begin(first, LLVM, Blocks()), begin(first, NUMPY, Blocks())
    log = [records.to_record(first)]
    for offset, entry in enumerate(others, start=2):
        log.append(records.to_record(entry))
        if draw.random() < 0.3:
            restored = reborn(restored, NUMPY)
        assert repr(apply(restored, offset, entry)) == repr(apply(live, offset, entry))
    assert digest(restored) == digest(live) == digest(replayed(log, NUMPY)), first.spec


@pytest.mark.parametrize("rule", RULES)
def test_an_expanded_spec_is_a_request_for_itself(rule: str) -> None:
    for number in range(5):
        spec = lives.wanted(rule, random.Random(f"{rule} {number}")).json
        asked = {name: value for name, value in spec.items() if name != "parameters"}
        shapes = {name: (tuple(its["shape"]), its["dtype"]) for name, its in spec["parameters"].items()}
        assert json.dumps(specs.expand(asked, shapes, spec["parameters"]).json) == json.dumps(spec)
