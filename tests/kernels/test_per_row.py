"""A program whose t is another for each row gives every row the bits it would get alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradledger_server.kernels.device import open_device
from gradledger_server.kernels.per_row import depends_on, per_row
from gradledger_server.kernels.trace import Scalar
from gradledger_server.machine.row_step import RowStep
from gradledger_server.machine.spec import Group
from gradledger_server.machine.step import Update
from gradledger_server.optim import catalog, chain

OPTIMIZERS: list[dict[str, Any]] = [
    *({"rule": rule} for rule in catalog.ELEMENTWISE),
    {"rule": "adam", "weight_decay": 0.1},
    {"rule": "adagrad", "lr_decay": 0.5},
    {"rule": "momentum", "dampening": 0.7},
]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("compiled", [False, True], ids=["numpy", "llvm"])
@pytest.mark.parametrize("given", OPTIMIZERS, ids=str)
def test_rows_of_any_count_get_the_bits_they_would_get_alone(
    given: dict[str, Any], compiled: bool, dtype: Any
) -> None:
    optimizer = catalog.expand_optimizer(given, where="optimizer")
    group = Group("*", optimizer, {"name": "constant"}, {})
    step = RowStep(group, np.dtype(dtype), open_device("cpu", compiled=compiled))
    generator = np.random.default_rng(4)
    width, counts = 5, np.array([1, 7, 1, 2, 1000, 7, 123_456_789, 3])
    arrays = [generator.standard_normal(width * counts.size).astype(dtype) for _ in ("w", "g", *step.slots)]
    arrays[2:] = [np.abs(slot) for slot in arrays[2:]]
    update = Update(offset=8, s=4, norm=1.0)
    places = np.arange(counts.size, dtype=np.int32)
    for lr in (0.1, 0.05):  # it changes in between
        alone = [array.copy() for array in arrays]
        for row, count in enumerate(counts.tolist()):
            w, g, *slots = (array[row * width : (row + 1) * width] for array in alone)
            step.advance_all(w, g, slots, t=count, lr=lr, update=update)
        step.advance(places, width, arrays[0], arrays[1], arrays[2:], t=counts, lr=lr, update=update)
        assert [array.tobytes() for array in arrays] == [array.tobytes() for array in alone]


def test_only_what_depends_on_t_is_spread() -> None:
    optimizer = catalog.expand_optimizer({"rule": "adam"}, where="optimizer")
    program = chain.program(optimizer)
    varied, by_row = per_row(program)
    assert by_row
    assert varied.slots == (*program.slots, *by_row)
    assert not {ref for ref in varied.scalars if ref in by_row}
    assert varied.assignments == program.assignments
    assert per_row(program)[0] is varied, "kernels are remembered by their program"
    plain = chain.program(catalog.expand_optimizer({"rule": "sgd"}, where="optimizer"))
    assert per_row(plain) == (plain, {})


def test_dependence_is_found_however_deep() -> None:
    t, lr = Scalar("t"), Scalar("lr")
    assert depends_on(1 - lr * (2 ** (t - 1)), "t")
    assert not depends_on(1 - lr * lr, "t")
