"""Rules and transforms that see whole tensors: the same bits on each device, in all sorts of shapes.

The others see elements, whatever the shape: `tests/kernels/test_bits.py`.
"""

from __future__ import annotations

import pytest

from benchmarks import bits
from benchmarks.variants import WHOLE, Variant, variants
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.device import Device
from gradledger_server.optim import catalog
from tests.elsewhere import Elsewhere

SHAPES = ((1025,), (64, 33), (7, 300), (257, 1), (1, 1), (16, 3, 5), (2, 3, 3, 9), (), (0, 3))
DEVICES: dict[str, Device] = {"llvm": CpuDevice(threads=2), "elsewhere": Elsewhere()}


def chosen() -> list[Variant]:
    """The rules in every form, and before all transforms; the transforms before momentum."""
    return [
        variant
        for rule in catalog.RULES
        for variant in variants(rule)
        if (
            variant.transforms.keys() <= WHOLE
            if rule == "momentum"
            else rule not in catalog.ELEMENTWISE
            and (not variant.transforms or variant.name == f"{rule}, all transforms")
        )
    ]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("variant", chosen(), ids=lambda variant: variant.name)
def test_a_tensor_moves_alike_on_every_device(variant: Variant, device: str) -> None:
    """In place and elsewhere, in float32 and float64, in turns."""
    there = DEVICES[device]
    ways = [variant.way(dtype, there) for dtype in bits.DTYPES]
    for number, shape in enumerate(SHAPES):
        if catalog.refusal(variant.optimizer, shape) is None:
            chunk = bits.Chunk(variant, bits.DTYPES[number % 2], 3 * number, shape)
            difference = bits.compare(ways[number % 2], there, chunk)
            assert difference is None, str(difference)


def test_every_kind_is_among_them() -> None:
    names = {variant.name for variant in chosen()}
    assert catalog.RULES.keys() - catalog.ELEMENTWISE.keys() <= names
    assert {f"momentum, {transform}" for transform in WHOLE} <= names
    assert {"adafactor, all transforms", "lamb, first decay", "muon, optax"} <= names
