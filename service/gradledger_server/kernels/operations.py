"""The arithmetic a rule may use: one row per operation, spelt for every backend.

Rows with a NumPy, LLVM and CUDA spelling work on arrays, and are only what IEEE 754 rounds correctly or does
not round at all, so every backend gives the same bits. Rows without are for scalars, which the host computes
in float64 before a kernel runs. A new operation is a row here, and a function or operator below if a rule is
to write it.

What a library decides for itself is decided here: a comparison gives 1 or 0, and 0 where an operand is NaN;
`maximum` and `minimum` hand a NaN on, and take the second operand where both are equal, also of two zeros;
`sign` of either zero is 0; `ratio` is 0 where the denominator is 0.

Called with symbolic values an operation records itself (`trace.py`); called with arrays or floats it
computes, so a rule is also an ordinary function.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Protocol

import numpy as np

from gradledger_server.kernels import powers


class Value(Protocol):
    """What a rule computes with: a NumPy or CuPy array, or a symbol standing for one."""

    def __add__(self, other: Any, /) -> Value: ...
    def __radd__(self, other: Any, /) -> Value: ...
    def __sub__(self, other: Any, /) -> Value: ...
    def __rsub__(self, other: Any, /) -> Value: ...
    def __mul__(self, other: Any, /) -> Value: ...
    def __rmul__(self, other: Any, /) -> Value: ...
    def __truediv__(self, other: Any, /) -> Value: ...
    def __rtruediv__(self, other: Any, /) -> Value: ...
    def __gt__(self, other: Any, /) -> Any: ...
    def __ge__(self, other: Any, /) -> Any: ...
    def __lt__(self, other: Any, /) -> Any: ...
    def __le__(self, other: Any, /) -> Any: ...
    def __neg__(self) -> Value: ...
    def __abs__(self) -> Value: ...


def divide(left: float, right: float) -> float:
    """The quotient as IEEE 754 has it."""
    if right == 0.0:  # Python would raise; what is in the log always applies
        return (
            math.nan
            if left == 0.0 or left != left
            else math.copysign(math.inf, left) * math.copysign(1.0, right)
        )
    return left / right


def _sqrt(x: float) -> float:
    return math.sqrt(x) if x >= 0.0 else math.nan  # of a NaN too; never an exception


def _ratio(numerator: Any, denominator: Any) -> Any:
    with np.errstate(all="ignore"):
        return np.where(denominator == 0, 0, numerator / denominator)


def _comparison(compare: Callable[[float, float], bool]) -> Callable[[float, float], float]:
    return lambda left, right: float(compare(left, right))


def _into(compute: Callable[..., Any]) -> Callable[..., Any]:
    """A composition of ufuncs, taking `out` as one: its operands may be the very array written to."""

    def computed(*operands: Any, out: Any = None) -> Any:
        result = compute(*operands)
        if out is None:
            return result
        out[...] = result
        return out

    return computed


@dataclass(frozen=True, slots=True)
class Operation:
    """`host` computes float64 scalars; `numpy`, `llvm` and `cuda` arrays, empty if they may not use it.

    An operation that is `shaped` is not elementwise: `host` makes an array of NumPy arrays in their shape.

    The templates name the operands `{0}`, `{1}`. LLVM's also name the type `{type}` and its suffix
    `{suffix}`; lines before the last define values of their own, named after `{result}`.
    """

    name: str
    host: Callable[..., Any]
    numpy: Callable[..., Any] | None = None
    llvm: str = ""
    cuda: str = ""
    latex: str = ""  # of a function `on_host`: its value as a template over the operands' texts,
    definition: str = ""  # and the equation that says what the value is
    shaped: bool = False


def _compare(name: str, host: Callable[..., bool], numpy: np.ufunc, llvm: str, cuda: str) -> Operation:
    told = f"{{result}}.is = fcmp {llvm} {{type}} {{0}}, {{1}}\nuitofp i1 {{result}}.is to {{type}}"
    return Operation(name, _comparison(host), numpy, told, f"{{0}} {cuda} {{1}}")


def _extreme(name: str, beats: Callable[..., Any], llvm: str, cuda: str) -> Operation:
    """The first operand where it beats the second or is NaN, else the second."""
    return Operation(
        name,
        lambda a, b: a if beats(a, b) or a != a else b,
        _into(lambda a, b: np.where(beats(a, b) | (a != a), a, b)),
        f"{{result}}.beats = fcmp {llvm} {{type}} {{0}}, {{1}}\n"
        "{result}.nan = fcmp uno {type} {0}, {0}\n"
        "{result}.first = or i1 {result}.beats, {result}.nan\n"
        "select i1 {result}.first, {type} {0}, {type} {1}",
        f"({{0}} {cuda} {{1}} || {{0}} != {{0}}) ? {{0}} : {{1}}",
    )


OPERATIONS = {
    row.name: row
    for row in (
        Operation("add", operator.add, np.add, "fadd {type} {0}, {1}", "{0} + {1}"),
        Operation("subtract", operator.sub, np.subtract, "fsub {type} {0}, {1}", "{0} - {1}"),
        Operation("multiply", operator.mul, np.multiply, "fmul {type} {0}, {1}", "{0} * {1}"),
        Operation("divide", divide, np.divide, "fdiv {type} {0}, {1}", "{0} / {1}"),
        Operation(
            "ratio",
            lambda a, b: 0.0 if b == 0.0 else a / b,
            _into(_ratio),
            "{result}.none = fcmp oeq {type} {1}, 0.0\n"
            "{result}.over = fdiv {type} {0}, {1}\n"
            "select i1 {result}.none, {type} 0.0, {type} {result}.over",
            "{1} == 0 ? 0 : {0} / {1}",
        ),
        Operation("sqrt", _sqrt, np.sqrt, "call {type} @llvm.sqrt.{suffix}({type} {0})", "sqrt({0})"),
        Operation("negate", operator.neg, np.negative, "fneg {type} {0}", "-{0}"),
        Operation("abs", abs, np.absolute, "call {type} @llvm.fabs.{suffix}({type} {0})", "fabs({0})"),
        Operation(
            "sign",
            lambda x: float((x > 0) - (x < 0)) if x == x else x,
            np.sign,
            "{result}.more = fcmp ogt {type} {0}, 0.0\n"
            "{result}.less = fcmp olt {type} {0}, 0.0\n"
            "{result}.nan = fcmp uno {type} {0}, {0}\n"
            "{result}.rest = select i1 {result}.nan, {type} {0}, {type} 0.0\n"
            "{result}.down = select i1 {result}.less, {type} -1.0, {type} {result}.rest\n"
            "select i1 {result}.more, {type} 1.0, {type} {result}.down",
            "{0} > 0 ? 1 : {0} < 0 ? -1 : {0} != {0} ? {0} : 0",
        ),
        _extreme("maximum", operator.gt, "ogt", ">"),
        _extreme("minimum", operator.lt, "olt", "<"),
        _compare("greater", operator.gt, np.greater, "ogt", ">"),
        _compare("at_least", operator.ge, np.greater_equal, "oge", ">="),
        _compare("less", operator.lt, np.less, "olt", "<"),
        _compare("at_most", operator.le, np.less_equal, "ole", "<="),
        Operation(
            "where",
            lambda condition, yes, no: yes if condition else no,
            _into(lambda condition, yes, no: np.where(condition != 0, yes, no)),
            "{result}.so = fcmp une {type} {0}, 0.0\nselect i1 {result}.so, {type} {1}, {type} {2}",
            "{0} != 0 ? {1} : {2}",
        ),
        Operation("copy", float, np.positive, "bitcast {type} {0} to {type}", "{0}"),
        Operation("power", powers.power),
    )
}


def on_host(latex: str, definition: str) -> Callable[[Callable[..., float]], Callable[..., Any]]:
    """Makes a function of scalars an operation, for rules to call.

    `latex` is how its value is written, with `{0}` for the first argument's text, and `definition` the
    equation that says what it is. The function must be pure and give the same float64 on every machine.
    """

    def registered(function: Callable[..., float]) -> Callable[..., Any]:
        row = Operation(function.__name__, function, latex=latex, definition=definition)
        if OPERATIONS.setdefault(row.name, row) is not row:
            raise ValueError(f"there is an operation {row.name!r} already")
        return wraps(function)(partial(call, row.name))

    return registered


class Symbol:
    """A value not known yet; every operation on it is recorded by its subclass (`trace.py`)."""

    __slots__ = ()
    __array_ufunc__ = None  # so that NumPy leaves `array * symbol` to us, which refuses it

    def record(self, operation: str, operands: tuple[Any, ...]) -> Any:  # noqa: ARG002
        """Notes the operation and stands for its result."""
        raise TypeError(f"{type(self).__name__} records nothing: it cannot take part in {operation!r}")

    def __add__(self, other: Any) -> Any:
        return call("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return call("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return call("subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return call("subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return call("multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return call("multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return call("divide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return call("divide", other, self)

    def __pow__(self, other: Any) -> Any:
        return call("power", self, other)

    def __rpow__(self, other: Any) -> Any:
        return call("power", other, self)

    def __gt__(self, other: Any) -> Any:
        return call("greater", self, other)

    def __ge__(self, other: Any) -> Any:
        return call("at_least", self, other)

    def __lt__(self, other: Any) -> Any:
        return call("less", self, other)

    def __le__(self, other: Any) -> Any:
        return call("at_most", self, other)

    def __neg__(self) -> Any:
        return call("negate", self)

    def __abs__(self) -> Any:
        return call("abs", self)

    def __bool__(self) -> bool:
        raise TypeError("a rule cannot branch on a value that changes: compute with (t > 1) instead")


def call(operation: str, *operands: Any) -> Any:
    """Record the operation if an operand is a symbol, else compute it: floats on the host."""
    for operand in operands:
        if isinstance(operand, Symbol):
            if not all(isinstance(other, Symbol | int | float) for other in operands):
                raise TypeError(
                    f"{operation!r} mixes a symbol with an array of numbers: a rule knows only scalars"
                )
            return operand.record(operation, operands)
    row = OPERATIONS[operation]
    if row.numpy is None or all(isinstance(operand, int | float) for operand in operands):
        return row.host(*operands)
    return row.numpy(*operands)


def sqrt(x: Value) -> Value:
    """The square root, correctly rounded on every backend."""
    return call("sqrt", x)  # type: ignore[no-any-return]


def power(base: float, exponent: float) -> float:
    """`base ** exponent` for base >= 0, the same float64 on every machine; of scalars alone.

    IEEE 754 leaves pow to the C library, whose last bit depends on its version and on whether the processor
    has FMA; a replica elsewhere must not differ by it. A result beyond float64 is inf or 0, never an
    exception. Python's `**` is all of that on symbols only: what is also called with numbers says `power`.
    """
    return call("power", base, exponent)  # type: ignore[no-any-return]


def sign(x: Value) -> Value:
    """1, 0 or -1."""
    return call("sign", x)  # type: ignore[no-any-return]


def ratio(numerator: Value, denominator: Value) -> Value:
    """A quotient for denominators that may be 0, and then the ratio is 0: nothing over nothing is nothing."""
    return call("ratio", numerator, denominator)  # type: ignore[no-any-return]


def maximum(x: Any, y: Any) -> Any:
    """The larger one, element by element; NaN if either is."""
    return call("maximum", x, y)


def minimum(x: Any, y: Any) -> Any:
    """The smaller one, element by element; NaN if either is."""
    return call("minimum", x, y)


def where(condition: Any, yes: Any, no: Any) -> Any:
    """`yes` where the condition holds, else `no`. A condition known beforehand leaves no trace."""
    if isinstance(condition, int | float):
        return yes if condition else no
    return call("where", condition, yes, no)
