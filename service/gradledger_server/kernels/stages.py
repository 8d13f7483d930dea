"""A program that needs whole tensors, run as ordinary programs with norms and the like taken in between.

    scalars of norm(w), norm(g)                       known before stage 0
    stage 0: everything that needs no other norm      r
    scalars of norm(r)                                known before stage 1
    stage 1: what needs them                          w - lr * ratio * r

Each step runs in the earliest stage it can. What a later stage or a norm needs is carried in scratch memory
("k0", "k1" …), or in the slot it belongs in, if nobody needs the old value any more. A step that is `shaped`
runs before a stage, on the host. The kernels are the same as everybody's, so are the norms: the bits do not
depend on the backend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from gradledger_server.kernels import reductions
from gradledger_server.kernels.device import Array, Device
from gradledger_server.kernels.operations import OPERATIONS
from gradledger_server.kernels.scratch import Scratch
from gradledger_server.kernels.trace import PROGRAMS_KEPT, Norm, Program, Scalar, Step, norms_of


@dataclass(frozen=True, slots=True)
class Stage:
    """One kernel. `before` it norms are taken and shaped steps made; `out` is where its w goes.

    A norm's place is the array it is taken of; a shaped step's operands and result are places already.
    """

    before: tuple[Norm | Step, ...]
    program: Program
    out: str


class StagedKernel:
    """A program with norms in one dtype, on one whole tensor. Safe to call from several threads."""

    whole = True  # made tensor by tensor

    def __init__(self, program: Program, dtype: np.dtype[Any], device: Device) -> None:
        self.program = program
        self.dtype = dtype
        self.device = device
        self.stages = split(program)
        self.kernels = [device.kernel(stage.program, dtype) for stage in self.stages]
        carried = {name for stage in self.stages for name in (stage.out, *stage.program.slots)}
        carried |= {part.result for stage in self.stages for part in stage.before if isinstance(part, Step)}
        self.carried = sorted(carried - {"out", *program.slots})
        self._scratch = Scratch(device)

    def __call__(
        self,
        out: Array,
        w: Array,
        g: Array,
        slots: Sequence[Array],
        values: Mapping[str, float],
        shapes: Sequence[tuple[int, ...]],
    ) -> None:
        """Write the new weight to `out`, which may be `w`, and the new slots in place.

        The arrays are flat, the first of `shapes` is the tensor's; `values` are t, lr and the hyperparameters
        by name.
        """
        known = dict(values)
        arrays = {"out": out, **dict(zip(self.program.inputs, (w, g, *slots), strict=True))}
        with self._scratch.borrowed(len(self.carried), out.size, self.dtype) as carried:
            arrays |= zip(self.carried, carried, strict=True)
            for stage, kernel in zip(self.stages, self.kernels, strict=True):
                for part in stage.before:
                    self._prepare(part, arrays, known, shapes[0])
                slots = [arrays[name] for name in stage.program.slots]
                kernel(arrays[stage.out], w, g, slots, stage.program.evaluate(known))

    def _prepare(
        self, part: Norm | Step, arrays: dict[str, Array], known: dict[str, float], shape: tuple[int, ...]
    ) -> None:
        if isinstance(part, Norm):
            device = self.device
            known[part.name] = reductions.norm(arrays[part.of], device.sum_of_squares, device.at_home)
            return
        operands: list[Any] = []
        for name in part.operands:
            if name in arrays:
                operands.append(self.device.at_home(arrays[name]).reshape(shape))
            else:
                scalar = self.program.scalars[name]
                operands.append(scalar.evaluate(known) if isinstance(scalar, Scalar) else scalar)
        result = OPERATIONS[part.operation].host(*operands)
        arrays[part.result][:] = self.device.to_device(np.ascontiguousarray(result).reshape(-1))


@lru_cache(maxsize=PROGRAMS_KEPT)
def split(program: Program) -> tuple[Stage, ...]:
    """The program's stages; the last one writes the weight."""
    return _Splitter(program).stages()


class _Splitter:
    def __init__(self, program: Program) -> None:
        self.program = program
        self.shaped = {step.result for step in program.steps if step.shaped}
        self.level = self._levels()
        self.last = max(self.level.values(), default=0)
        self.readers = self._readers()
        self.place = {name: name for name in program.inputs}
        self.homes: dict[str, str] = {}  # slot → the value that may go there before the last stage
        self.carried: list[str] = []
        self._settle()

    def _levels(self) -> dict[str, int]:
        """The stage each step runs in, or before if it is shaped: as early as what it needs allows."""
        level: dict[str, int] = {}
        for step in self.program.steps:
            needed = [self._ready(of, level) for of in self._normed(step)]
            if step.shaped:
                needed += [self._ready(operand, level) for operand in step.operands]
            else:
                needed += [level.get(operand, 0) for operand in step.operands]
            level[step.result] = max((0, *needed))
        self._postpone(level)
        return level

    def _normed(self, step: Step) -> list[str]:
        """The arrays whose norms the step's scalars are made of."""
        scalars = [self.program.scalars[x] for x in step.operands if x in self.program.scalars]
        return [norm.of for scalar in scalars for norm in norms_of(scalar)]

    def _ready(self, value: str, level: Mapping[str, int]) -> int:
        """The first stage before which the whole of the value is there."""
        return level.get(value, -1) + (value not in self.shaped)

    def _postpone(self, level: dict[str, int]) -> None:
        """What is made of the inputs alone, for a later stage alone, is made there: less to carry."""
        kept = {norm.of for norm in self.program.norms} | {*self.program.results} | self.shaped
        kept |= {operand for step in self.program.steps if step.shaped for operand in step.operands}
        first_use: dict[str, int] = {}
        for step in reversed(self.program.steps):
            if step.result not in kept and not any(x in level for x in step.operands):
                level[step.result] = first_use[step.result]
            for operand in step.operands:
                first_use[operand] = min(first_use.get(operand, level[step.result]), level[step.result])

    def _readers(self) -> dict[str, int]:
        """The last stage that reads each value; the last of all for what becomes the weight or a slot."""
        readers: dict[str, int] = dict.fromkeys(self.program.results, self.last)
        for step in self.program.steps:
            for operand in step.operands:
                readers[operand] = max(readers.get(operand, 0), self.level[step.result])
        return readers

    def _settle(self) -> None:
        """Where each value is kept that outlives its stage."""
        for slot, value in zip(self.program.slots, self.program.results[1:], strict=True):
            early = value in self.level and value not in self.shaped and self.level[value] < self.last
            if early and self.readers.get(slot, 0) <= self.level[value]:
                self.homes[slot] = value
                self.place.setdefault(value, slot)
        normed = {norm.of for norm in self.program.norms}
        for value, level in self.level.items():
            outlives = value in normed or self.readers.get(value, 0) > level
            carried = value in self.shaped or (level < self.last and outlives)
            if value not in self.place and carried:
                self.carried.append(f"k{len(self.carried)}")
                self.place[value] = self.carried[-1]

    def stages(self) -> tuple[Stage, ...]:
        return tuple(self._stage(level) for level in range(self.last + 1))

    def _steps(self, level: int) -> list[Step]:
        return [step for step in self.program.steps if self.level[step.result] == level]

    def _stage(self, level: int) -> Stage:
        steps = [step for step in self._steps(level) if not step.shaped]
        here = {step.result for step in steps}
        values = self._written(level, here)
        if level == self.last:
            out, outcome = "out", self._read(self.program.results[0], here)
        else:  # a kernel writes a weight in any case; if only slots change, it goes nowhere
            out = next((place for place in values if place in self.carried), "spare")
            outcome = values.pop(out, steps[0].result)
        renamed = tuple(
            Step(step.result, step.operation, tuple(self._read(x, here) for x in step.operands))
            for step in steps
        )
        used = {x for step in renamed for x in step.operands} | {outcome, *values, *values.values()}
        slots = (*self.program.slots, *(place for place in self.carried if place in used))
        scalars = {ref: scalar for ref, scalar in self.program.scalars.items() if ref in used}
        results = (outcome, *(values.get(slot, slot) for slot in slots))
        name = f"{self.program.name}_{level}"
        return Stage(self._before(level), Program(name, slots, scalars, renamed, results), out)

    def _written(self, level: int, here: set[str]) -> dict[str, str]:
        """What the stage leaves behind, besides the weight: scratch array or slot → the value it takes."""
        values = {self.place[value]: value for value in self.level if value in here and value in self.place}
        values |= {slot: value for slot, value in self.homes.items() if value in here}
        if level == self.last:
            pairs = zip(self.program.slots, self.program.results[1:], strict=True)
            values |= {slot: self._read(value, here) for slot, value in pairs if slot not in self.homes}
        return values

    def _read(self, value: str, here: set[str]) -> str:
        """A value's name within a stage: its own where it is computed, its place afterwards."""
        return value if value in here else self.place.get(value, value)

    def _before(self, level: int) -> tuple[Norm | Step, ...]:
        """Shaped steps in their order, each after the norms it needs, then all other norms."""
        due = [norm for norm in self.program.norms if self._ready(norm.of, self.level) == level]
        parts: list[Norm | Step] = []
        for step in self._steps(level):
            if step.shaped:
                parts += [norm for norm in due if norm.of in self._normed(step)]
                operands = tuple(self.place.get(operand, operand) for operand in step.operands)
                parts.append(Step(self.place[step.result], step.operation, operands))
        parts = list(dict.fromkeys([*parts, *due]))
        return tuple(
            Norm(part.name, of=self.place[part.of]) if isinstance(part, Norm) else part for part in parts
        )
