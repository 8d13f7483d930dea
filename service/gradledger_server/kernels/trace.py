"""A rule, run once on symbols, becomes a Program that every backend can spell.

    rule(w, g, m, …, t=t, lr=lr, …)  --trace-->  Program: scalars + steps + results

Whatever depends on scalars alone (`1 - beta2**t`) is kept as a tree: the host computes it in float64 once
per update and casts it once. Whatever touches an array becomes a step in single-assignment form, equal
steps only once. What is known beforehand (a choice, or a hyperparameter that is zero) is passed as it is
and leaves no trace: adding nothing and multiplying by one are not done.

`norm(x)` of an array is a scalar too, but one that is known only once the array is. A program with norms, or
with steps that need their operands' shape, is run in stages (`stages.py`); any other is one kernel.

Values are named: arrays by their letter ("w", "g", "m"), scalars "s0", "s1" …, steps "x0", "x1" ….
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gradledger_server.kernels.operations import OPERATIONS, Symbol

PROGRAMS_KEPT = 512
"""So many programs, 100 KB each, are remembered: clients can think of specs without end."""


@dataclass(frozen=True, slots=True)
class Scalar(Symbol):
    """A scalar expression: `name` of an input with no operands, or of an operation on scalars and numbers."""

    name: str
    operands: tuple[Scalar | float, ...] = ()

    def record(self, operation: str, operands: tuple[Any, ...]) -> Any:
        for operand in operands:
            if isinstance(operand, Array):
                return operand.record(operation, operands)
        plain = _simplified(operation, operands)
        return Scalar(operation, operands) if plain is None else plain

    def evaluate(self, values: Mapping[str, float]) -> float:
        """Its float64 value, given t, lr and the hyperparameters; never an exception."""
        if not self.operands:
            return values[self.name]
        numbers = [x.evaluate(values) if isinstance(x, Scalar) else x for x in self.operands]
        return float(OPERATIONS[self.name].host(*numbers))

    def norms(self) -> Iterator[Norm]:
        """The norms it is made of."""
        for operand in self.operands:
            if isinstance(operand, Scalar):
                yield from operand.norms()


@dataclass(frozen=True, slots=True)
class Norm(Scalar):
    """The Euclidean norm of the array called `of`."""

    of: str = ""

    def norms(self) -> Iterator[Norm]:
        yield self


@dataclass(frozen=True, slots=True)
class Step:
    """`result = operation(operands)`, element by element unless it is `shaped`."""

    result: str
    operation: str
    operands: tuple[str, ...]

    @property
    def shaped(self) -> bool:
        """Whether it needs its operands' shape and all of their elements."""
        return OPERATIONS[self.operation].shaped


@dataclass(frozen=True, slots=True, eq=False)  # equal only to itself, so that it can key a cache of kernels
class Program:
    """A traced rule: the arrays w, g and the slots go in; `results` names what w and each slot become."""

    name: str
    slots: tuple[str, ...]
    scalars: Mapping[str, Scalar | float]
    steps: tuple[Step, ...]
    results: tuple[str, ...]

    @property
    def inputs(self) -> tuple[str, ...]:
        return ("w", "g", *self.slots)

    @property
    def assignments(self) -> tuple[tuple[str, str], ...]:
        """(array, value it takes), without the slots that keep theirs; `out` stands for the new w."""
        pairs = zip(("out", *self.slots), self.results, strict=True)
        return tuple((target, value) for target, value in pairs if target != value)

    @property
    def norms(self) -> tuple[Norm, ...]:
        """The norms its scalars need, each once."""
        every = (norm for scalar in self.scalars.values() for norm in norms_of(scalar))
        return tuple(dict.fromkeys(every))

    @property
    def staged(self) -> bool:
        """Whether it needs whole tensors: their norms or shapes. If not, it is a single kernel."""
        return bool(self.norms) or any(step.shaped for step in self.steps)

    def evaluate(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """The scalars a kernel needs, float64, from t, lr, the hyperparameters and the norms by name."""
        return tuple(x.evaluate(values) if isinstance(x, Scalar) else x for x in self.scalars.values())


@dataclass(slots=True)
class Tape:
    """What has been recorded so far. Looking up an expression first is what shares common ones."""

    scalars: dict[Scalar | float, str] = field(default_factory=dict)
    steps: dict[tuple[str, tuple[str, ...]], str] = field(default_factory=dict)

    def value(self, operand: Any) -> str:
        """The name of an array or of a scalar, which becomes known by being used."""
        if isinstance(operand, Array):
            return operand.name
        if not isinstance(operand, Scalar):
            operand = float(operand)
        return self.scalars.setdefault(operand, f"s{len(self.scalars)}")

    def step(self, operation: str, operands: Sequence[Any]) -> Array:
        key = (operation, tuple(self.value(operand) for operand in operands))
        return Array(self, self.steps.setdefault(key, f"x{len(self.steps)}"))

    def result(self, target: str, outcome: Any) -> str:
        """The name of a result; one that is another input, or a mere number, is copied into a step first."""
        if isinstance(outcome, Array) and (outcome.name == target or outcome.name in self.steps.values()):
            return outcome.name
        return self.step("copy", (outcome,)).name


@dataclass(frozen=True, slots=True, eq=False)
class Array(Symbol):
    """An array value on a tape."""

    tape: Tape
    name: str

    def record(self, operation: str, operands: tuple[Any, ...]) -> Any:
        if operation == "norm":
            return Norm(f"|{self.name}|", of=self.name)
        if OPERATIONS[operation].numpy is None and not OPERATIONS[operation].shaped:
            raise TypeError(
                f"an array cannot be used in {operation!r}: it is not the same bits on every backend"
            )
        plain = _simplified(operation, operands)
        return self.tape.step(operation, operands) if plain is None else plain


def norms_of(scalar: Scalar | float) -> Iterator[Norm]:
    """The norms a scalar is made of; a number has none."""
    return scalar.norms() if isinstance(scalar, Scalar) else iter(())


def _simplified(operation: str, operands: tuple[Any, ...]) -> Any:
    """What the operation comes to if an operand is a plain 0 or 1, else None."""
    match operation, operands:
        case ("add", (other, 0.0)) | ("add", (0.0, other)) | ("subtract", (other, 0.0)):
            return other
        case ("multiply", (other, 1.0)) | ("multiply", (1.0, other)) | ("divide", (other, 1.0)):
            return other
        case ("multiply", (_, 0.0)) | ("multiply", (0.0, _)):
            return 0.0
    return None


def trace(
    name: str,
    rule: Callable[..., tuple[Any, ...]],
    *,
    slots: Sequence[str],
    scalars: Sequence[str],
    known: Mapping[str, object],
) -> Program:
    """Run `rule` once: the slots by position, `scalars` as symbols and `known` as they are by keyword."""
    tape = Tape()
    inputs = ("w", "g", *slots)
    symbols = {scalar: Scalar(scalar) for scalar in scalars}
    outcome = rule(*(Array(tape, letter) for letter in inputs), **symbols, **known)
    targets = ("w", *slots)
    if len(outcome) != len(targets):
        raise TypeError(f"rule {name!r} returned {len(outcome)} values, expected w and {len(slots)} slots")
    results = tuple(tape.result(target, value) for target, value in zip(targets, outcome, strict=True))
    return _without_dead_steps(name, tuple(slots), tape, results)


def _without_dead_steps(name: str, slots: tuple[str, ...], tape: Tape, results: tuple[str, ...]) -> Program:
    steps = [Step(result, operation, operands) for (operation, operands), result in tape.steps.items()]
    normed = {ref: [norm.of for norm in norms_of(scalar)] for scalar, ref in tape.scalars.items()}
    needed = set(results)
    for step in reversed(steps):
        if step.result in needed:
            needed.update(step.operands)
            needed.update(of for operand in step.operands for of in normed.get(operand, ()))
    return Program(
        name=name,
        slots=slots,
        scalars={ref: scalar for scalar, ref in tape.scalars.items() if ref in needed},
        steps=tuple(step for step in steps if step.result in needed),
        results=results,
    )
