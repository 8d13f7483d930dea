"""A program for elements that have been updated unequally often: what depends on t comes as an array.

    per_row(program)  →  the program with its t-dependent scalars turned into arrays, and those scalars

Such an array is an input that keeps its value, as a slot does that nobody assigns, so every backend spells
the program as it spells any other. The operations and their order are the same and so are the bits:
each element meets the number that the scalar form would have given it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache

from gradledger_server.kernels.trace import PROGRAMS_KEPT, Program, Scalar


@lru_cache(maxsize=PROGRAMS_KEPT)
def per_row(program: Program) -> tuple[Program, Mapping[str, Scalar]]:
    """The program whose slots are followed by its t-dependent scalars, and those scalars by name."""
    by_row = {ref: x for ref, x in program.scalars.items() if isinstance(x, Scalar) and depends_on(x, "t")}
    if not by_row:
        return program, by_row
    shared = {ref: x for ref, x in program.scalars.items() if ref not in by_row}
    varied = replace(
        program,
        slots=(*program.slots, *by_row),
        scalars=shared,
        results=(*program.results, *by_row),
    )
    return varied, by_row


def depends_on(scalar: Scalar, name: str) -> bool:
    """Whether the scalar is computed from the input `name`."""
    if not scalar.operands:
        return scalar.name == name
    return any(isinstance(x, Scalar) and depends_on(x, name) for x in scalar.operands)
