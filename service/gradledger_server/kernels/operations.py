"""The arithmetic a rule may use: one row per operation, spelt for every backend.

Rows with a NumPy, LLVM and CUDA spelling work on arrays, and are only what IEEE 754 rounds correctly, so
every backend gives the same bits. Rows without are for scalars, which the host computes in float64 before a
kernel runs. A new operation is a row here, and a function or operator below if a rule is to write it.

Called with symbolic values an operation records itself (`trace.py`); called with arrays or floats it
computes, so a rule is also an ordinary function.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from gradledger_server.kernels import reductions, units


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


# 40 digits round to the right float64 but for one case in about 10^20; nothing traps, so a tiny result is 0.
_WIDE = Context(prec=40, Emin=-9999, Emax=9999, traps=[])


@lru_cache(maxsize=4096)  # the tensors of a model mostly share their t
def power(base: float, exponent: float) -> float:
    """`base ** exponent` for base >= 0, the same float64 on every machine.

    IEEE 754 leaves pow to the C library, whose last bit depends on its version and on whether the processor
    has FMA; a replica elsewhere must not differ by it. A result beyond float64 is inf or 0, never an
    exception.
    """
    if base == 0.0:
        return 1.0 if exponent == 0.0 else 0.0
    return float(_WIDE.power(Decimal(base), Decimal(exponent)))


def _divide(left: float, right: float) -> float:
    if right == 0.0:  # Python would raise; what is in the log always applies
        return math.nan if left == 0.0 or left != left else math.copysign(math.inf, left)
    return left / right


def _norm(x: Any) -> float:
    return reductions.norm(np.asarray(x).reshape(-1))


def _trust_ratio(w_norm: float, g_norm: float, times: float, plus: float) -> float:
    return _divide(times * w_norm, g_norm + plus) if w_norm > 0.0 and g_norm > 0.0 else 1.0


def _clip_factor(length: float, limit: float, eps: float) -> float:
    return limit / (length + eps) if length + eps > limit else 1.0


def _greater(left: float, right: float) -> float:
    return float(left > right)


def _modulo(left: float, right: float) -> float:
    return math.nan if right == 0.0 else left % right


def _lesser_of(left: Any, right: Any, out: Any = None) -> Any:
    return _chosen(left < right, left, right, out)


def _greater_of(left: Any, right: Any, out: Any = None) -> Any:
    return _chosen(left > right, left, right, out)


def _selected(condition: Any, yes: Any, no: Any, out: Any = None) -> Any:
    return _chosen(condition != 0.0, yes, no, out)


def _chosen(condition: Any, yes: Any, no: Any, out: Any) -> Any:
    """NumPy's own minimum picks either zero of -0.0 and 0.0; a comparison picks the same one everywhere."""
    if isinstance(yes, int | float) and isinstance(no, int | float):
        return yes if condition else no
    chosen = np.where(condition, yes, no)
    if out is None:
        return chosen
    np.copyto(out, chosen)  # only now, for `out` may be one of the operands
    return out


@dataclass(frozen=True, slots=True)
class Operation:
    """`host` computes float64 scalars; `numpy`, `llvm` and `cuda` arrays, empty if they may not use it.

    An operation that is `shaped` is not elementwise: `host` makes an array of NumPy arrays in their shape.

    The templates name the operands `{0}`, `{1}`; LLVM's also the type `{type}` and its suffix `{suffix}`. An
    LLVM template that takes two instructions says itself what becomes of `{result}`.
    """

    name: str
    host: Callable[..., Any]
    numpy: Callable[..., Any] | None = None
    llvm: str = ""
    cuda: str = ""
    shaped: bool = False


def _either(comparison: str, yes: int = 0, no: int = 1) -> str:
    """LLVM for one operand or another: a comparison and what follows from it."""
    choice = f"select i1 %{{result}}.if, {{type}} {{{yes}}}, {{type}} {{{no}}}"
    return f"%{{result}}.if = fcmp {comparison}\n  %{{result}} = {choice}"


OPERATIONS = {
    row.name: row
    for row in (
        Operation("add", operator.add, np.add, "fadd {type} {0}, {1}", "{0} + {1}"),
        Operation("subtract", operator.sub, np.subtract, "fsub {type} {0}, {1}", "{0} - {1}"),
        Operation("multiply", operator.mul, np.multiply, "fmul {type} {0}, {1}", "{0} * {1}"),
        Operation("divide", _divide, np.divide, "fdiv {type} {0}, {1}", "{0} / {1}"),
        Operation("sqrt", math.sqrt, np.sqrt, "call {type} @llvm.sqrt.{suffix}({type} {0})", "sqrt({0})"),
        Operation("copy", float, np.positive, "bitcast {type} {0} to {type}", "{0}"),
        Operation(
            "minimum", _lesser_of, _lesser_of, _either("olt {type} {0}, {1}"), "({0} < {1} ? {0} : {1})"
        ),
        Operation(
            "maximum", _greater_of, _greater_of, _either("ogt {type} {0}, {1}"), "({0} > {1} ? {0} : {1})"
        ),
        Operation(
            "select", _selected, _selected, _either("une {type} {0}, 0.0", 1, 2), "({0} != 0 ? {1} : {2})"
        ),
        Operation("power", power),
        Operation("greater", _greater),
        Operation("norm", _norm),
        Operation("trust_ratio", _trust_ratio),
        Operation("clip_factor", _clip_factor),
        Operation("centralized", units.centralized, shaped=True),
        Operation("clipped_columns", units.clipped_columns, shaped=True),
        Operation("clipped_rows", units.clipped_rows, shaped=True),
        Operation("modulo", _modulo),
    )
}


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

    def __mod__(self, other: Any) -> Any:
        return call("modulo", self, other)

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


def minimum(x: Value, y: Value) -> Value:
    """The lesser one; the second if neither is."""
    return call("minimum", x, y)  # type: ignore[no-any-return]


def maximum(x: Value, y: Value) -> Value:
    """The greater one; the second if neither is."""
    return call("maximum", x, y)  # type: ignore[no-any-return]


def select(condition: Value, yes: Value, no: Value) -> Value:
    """`yes` where the condition is not zero, else `no`; what is not chosen leaves no trace, be it NaN."""
    return call("select", condition, yes, no)  # type: ignore[no-any-return]


def norm(x: Value) -> float:
    """The Euclidean norm over a whole tensor: float64, by the canonical sum of squares.

    A scalar for the expressions after it; traced, it parts a rule into stages (`stages.py`).
    """
    return call("norm", x)  # type: ignore[no-any-return]


def trust_ratio(w_norm: float, g_norm: float, *, times: float = 1.0, plus: float = 0.0) -> float:
    """`times * w_norm / (g_norm + plus)`, or 1 if either norm is 0: how far a layer may trust its update."""
    return call("trust_ratio", w_norm, g_norm, times, plus)  # type: ignore[no-any-return]


def clip_factor(length: float, limit: float, eps: float = 0.0) -> float:
    """What shortens a vector of this length to the limit: `limit / (length + eps)`, but never above 1."""
    return call("clip_factor", length, limit, eps)  # type: ignore[no-any-return]


def centralized(g: Value) -> Value:
    """Less its mean over all axes but the first (`units.py`)."""
    return call("centralized", g)  # type: ignore[no-any-return]


def clipped_columns(w: Value, g: Value, clipping: float, eps: float) -> Value:
    """Units, `[in, out]`, no longer than `clipping` times their weights' (`units.py`)."""
    return call("clipped_columns", w, g, clipping, eps)  # type: ignore[no-any-return]


def clipped_rows(w: Value, g: Value, clipping: float, eps: float) -> Value:
    """Units, `[out, in]`, no longer than `clipping` times their weights' (`units.py`)."""
    return call("clipped_rows", w, g, clipping, eps)  # type: ignore[no-any-return]
