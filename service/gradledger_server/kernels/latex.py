r"""A traced rule as LaTeX, one line per slot and one for the weight: `m_t = \beta_1 m_{t-1} + …`.

What a slot or weight becomes is written once and then called by its name; so is a longer value used twice
(`x_t`). Functions of scalars that a rule calls come first, by their own equations.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gradledger_server.kernels.operations import OPERATIONS
from gradledger_server.kernels.trace import Norm, Program, Scalar, Step

SYMBOLS = {
    "lr": r"\eta_t",
    "momentum": r"\mu",
    "dampening": r"\tau",
    "rho": r"\rho",
    "beta1": r"\beta_1",
    "beta2": r"\beta_2",
    "eps": r"\epsilon",
    "eps_root": r"\epsilon_r",
    "weight_decay": r"\lambda",
    "lr_decay": r"\kappa",
    "trust_eps": r"\epsilon",
    "trust": r"\zeta",
    "t": "t",
    "base_lr": r"\eta",
    "beta3": r"\beta_3",
    "momentum_decay": r"\psi",
    "threshold": r"\bar\rho",
    "shrink": r"\eta^-",
    "grow": r"\eta^+",
    "min_step": r"s_{\min}",
    "max_step": r"s_{\max}",
    "l1": r"\lambda_1",
    "l2": r"\lambda_2",
    "l2_shrinkage": r"\lambda_s",
    "beta": r"\beta",
    "initial_accumulator": "v_0",
    "change_factor": "B",
    "warmup_steps": "W",
}
_COMPARISONS = {"greater": ">", "at_least": r"\ge", "less": "<", "at_most": r"\le"}
_SUM, _PRODUCT, _ATOM = range(3)  # how tightly a text holds together
_EXTRA_NAMES = "xyzqbjno"  # for shared values: those that are no slot of the rule


@dataclass(frozen=True, slots=True)
class Text:
    latex: str
    tightness: int

    def within(self, tightness: int) -> str:
        """The text as an operand of something that needs at least this tightness."""
        return self.latex if self.tightness >= tightness else rf"\left({self.latex}\right)"


Names = Mapping[str, str]


def spell(program: Program, names: Names | None = None, new_names: Names | None = None) -> str:
    """The whole rule, its lines joined by a LaTeX line break.

    `names` and `new_names` say how to write inputs and results, where not as `m_{t-1}` and `m_t`.
    """
    return _Speller(program, names or {}, new_names or {}).lines()


class _Speller:
    def __init__(self, program: Program, names: Names, new_names: Names) -> None:
        self.program = program
        self.steps = {step.result: step for step in program.steps}
        self.names = {"w": "w_{t-1}", "g": "g_t"} | {slot: f"{slot}_{{t-1}}" for slot in program.slots}
        self.names |= names
        self.defined: dict[str, str] = {}
        for target, value in zip(("w", *program.slots), program.results, strict=True):
            if value != target:  # what stays as it is has no line of its own
                self.defined.setdefault(value, new_names.get(target, f"{target}_t"))
        uses = Counter(operand for step in program.steps for operand in step.operands)
        uses.update(norm.of for norm in program.norms)
        shared = [ref for ref in self.steps if uses[ref] > 1 and ref not in self.defined]
        free = [name for name in _EXTRA_NAMES if name not in program.slots]
        self.defined |= {ref: f"{name}_t" for ref, name in zip(shared, free, strict=False)}

    def lines(self) -> str:
        ordered = [ref for ref in self.steps if ref in self.defined]
        equations = [f"{self.defined[ref]} = {self.expression(self.steps[ref]).latex}" for ref in ordered]
        told = [line for scalar in self.program.scalars.values() for line in definitions(scalar)]
        return r" \\ ".join([*dict.fromkeys(told), *equations])

    def value(self, ref: str) -> Text:
        if ref in self.defined:
            return Text(self.defined[ref], _ATOM)
        if ref in self.steps:
            return self.expression(self.steps[ref])
        if ref in self.names:
            return Text(self.names[ref], _ATOM)
        return scalar_text(self.program.scalars[ref], self.norm)

    def norm(self, norm: Norm) -> Text:
        return Text(rf"\lVert {self.value(norm.of).latex} \rVert", _ATOM)

    def factors(self, ref: str) -> list[str]:
        """The operands of a chain of multiplications, from left to right."""
        step = self.steps.get(ref)
        if step is None or step.operation != "multiply" or ref in self.defined:
            return [ref]
        return [factor for operand in step.operands for factor in self.factors(operand)]

    def expression(self, step: Step) -> Text:
        if step.operation != "multiply":
            return combine(step.operation, [self.value(operand) for operand in step.operands])
        counted = Counter(factor for operand in step.operands for factor in self.factors(operand))
        texts = [_power(self.value(factor), count) for factor, count in counted.items()]
        return Text(" ".join(texts), _PRODUCT)


def _power(base: Text, count: int) -> str:
    return base.within(_PRODUCT) if count == 1 else f"{base.within(_ATOM)}^{count}"


def scalar_text(scalar: Scalar | float, norm: Callable[[Norm], Text] | None = None) -> Text:
    """`norm` spells the norms; a scalar without any needs none."""
    if not isinstance(scalar, Scalar):
        return Text(f"{scalar:g}", _ATOM)
    if isinstance(scalar, Norm) and norm is not None:
        return norm(scalar)
    if not scalar.operands:
        return Text(SYMBOLS.get(scalar.name, rf"\mathrm{{{scalar.name}}}"), _ATOM)
    operands = [scalar_text(operand, norm) for operand in scalar.operands]
    if told := OPERATIONS[scalar.name].latex:
        return Text(told.format(*(operand.latex for operand in operands)), _ATOM)
    return combine(scalar.name, operands)


def definitions(scalar: Scalar | float) -> list[str]:
    """The equations of the functions the scalar calls."""
    if not isinstance(scalar, Scalar) or not scalar.operands:
        return []
    inner = [told for operand in scalar.operands for told in definitions(operand)]
    own = OPERATIONS[scalar.name].definition
    return [*inner, own] if own else inner


def combine(operation: str, operands: list[Text]) -> Text:
    """One operation on texts. A new array operation is a case here."""
    match operation, operands:
        case "add", [left, right]:
            return Text(f"{left.latex} + {right.latex}", _SUM)
        case "subtract", [left, right]:
            return Text(f"{left.latex} - {right.within(_PRODUCT)}", _SUM)
        case "multiply", [left, right]:
            return Text(f"{left.within(_PRODUCT)} {right.within(_PRODUCT)}", _PRODUCT)
        case (("divide" | "ratio"), [left, right]):
            return Text(rf"\frac{{{left.latex}}}{{{right.latex}}}", _PRODUCT)
        case "sqrt", [inner]:
            return Text(rf"\sqrt{{{inner.latex}}}", _ATOM)
        case "power", [base, exponent]:
            return Text(f"{base.within(_ATOM)}^{{{exponent.latex}}}", _PRODUCT)
        case "trust_ratio", [w_norm, g_norm, times, plus]:
            above = w_norm if times.latex == "1" else combine("multiply", [times, w_norm])
            below = g_norm if plus.latex == "0" else combine("add", [g_norm, plus])
            return combine("divide", [above, below])
        case "clip_factor", [length, limit, eps]:
            below = length if eps.latex == "0" else combine("add", [length, eps])
            return Text(rf"\min\left(1, {combine('divide', [limit, below]).latex}\right)", _ATOM)
        case "centralized", [whole]:
            return Text(rf"\left({whole.latex} - \mathrm{{mean}}~{whole.within(_ATOM)}\right)", _ATOM)
        case "clipped_columns" | "clipped_rows", [_, clipped, clipping, _]:
            return Text(rf"\mathrm{{agc}}_{{{clipping.latex}}}\left({clipped.latex}\right)", _ATOM)
        case "negate", [inner]:
            return Text(f"-{inner.within(_PRODUCT)}", _SUM)
        case "abs", [inner]:
            return Text(rf"\left|{inner.latex}\right|", _ATOM)
        case "sign", [inner]:
            return Text(rf"\operatorname{{sgn}}\left({inner.latex}\right)", _ATOM)
        case (("maximum" | "minimum"), [left, right]):
            return Text(rf"\{operation[:3]}\left({left.latex}, {right.latex}\right)", _ATOM)
        case (("greater" | "at_least" | "less" | "at_most"), [left, right]):
            return Text(f"[{left.latex} {_COMPARISONS[operation]} {right.latex}]", _ATOM)
        case "where", [condition, yes, no]:
            told = condition.latex
            held = told[1:-1] if told.startswith("[") else rf"{told} \ne 0"
            cases = rf"{yes.latex} & {held} \\ {no.latex} & \text{{otherwise}}"
            return Text(rf"\begin{{cases}} {cases} \end{{cases}}", _ATOM)
        case "copy", [same]:
            return same
    raise ValueError(f"no LaTeX for operation {operation!r}")
