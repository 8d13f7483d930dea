"""docs/optimizers.md, from the catalogue: `python -m tools.optimizers_page` writes it.

What it tells of a rule or transform is what `GET /v1/optimizers` and `/v1/transforms` answer.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gradledger_server.optim import guide
from gradledger_server.optim.catalog import RULES, rule_facts
from gradledger_server.optim.meanings import SLOT_MEANINGS
from gradledger_server.optim.presets import DEFAULT_PRESET
from gradledger_server.optim.transforms import TRANSFORMS
from tools.libraries import LIBRARIES, Library
from tools.markdown import anchor, display, number, sentence, table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "optimizers.md"
PROSE = Path(__file__).with_name("optimizers_page.md")
Told = dict[str, Any]

GRADIENTS = (1e-2, 1e-3, 1e-4, 1e-6, 1e-8)


def page() -> str:
    """The whole page: the prose of `optimizers_page.md`, each mark filled from the catalogue."""
    rules = [guide.describe(name) for name in RULES]
    filled = {
        "glance": _glance(rules),
        "letters": table(("slot", "what it holds"), _letters(rules)),
        "rules": "\n\n".join(_rule(told) for told in rules),
        "equal": _names(rules, True),
        "differ": _names(rules, False),
        "whole": _names(rules, None),
        "transforms": "\n\n".join(_transform(guide.describe_transform(name)) for name in TRANSFORMS),
        "floors": _floors(),
        "libraries": "\n\n".join(_libraries(rules)),
    }
    text = PROSE.read_text()
    for mark, part in filled.items():
        text = text.replace(f"<!-- {mark} -->", part)
    return text


def _glance(rules: list[Told]) -> str:
    rows = [
        (
            f"[`{told['name']}`](#{anchor(told['name'])})",
            told["summary"],
            ", ".join(f"`{slot['name']}`" for slot in told["slots"] if slot["when"] is None) or "none",
            str(told["bytes_per_parameter"]),
            {True: "yes", False: "no", None: "–"}[told["sparse"]["lazy_equals_dense"]],
        )
        for told in rules
    ]
    return table(("rule", "what it is", "slots", "bytes per parameter", "lazy rows = dense"), rows)


def _letters(rules: list[Told]) -> Iterator[tuple[str, str]]:
    used = {slot["name"] for told in rules for slot in told["slots"]}
    return ((f"`{slot}`", meaning) for slot, meaning in SLOT_MEANINGS.items() if slot in used)


def _names(rules: list[Told], verdict: bool | None) -> str:
    chosen = [told["name"] for told in rules if told["sparse"]["lazy_equals_dense"] is verdict]
    return ", ".join(f"`{name}`" for name in chosen) or "none"


def _rule(told: Told) -> str:
    parts = [
        f"### {told['name']}",
        f"{sentence(told['summary'])} *{sentence(told['paper'])}*",
        display(told["equation"]),
        f"**When to use it.** {sentence(told['use'])}",
        *map(sentence, told["notes"]),
        f"**State.** {_state(told)}",
        f"**Sparse rows.** {sentence(told['sparse']['note'])}",
        _settings(told),
    ]
    return "\n\n".join(parts)


def _state(told: Told) -> str:
    held = [f"`{slot['name']}`" for slot in told["slots"] if slot["when"] is None]
    total = told["bytes_per_parameter"]
    text = f"{', '.join(held) or 'None'}; with the weight {total} bytes per float32 parameter."
    for slot in told["slots"]:
        begins = f" `{slot['name']}` starts at {number(slot['starts_at'])}." if slot["starts_at"] else ""
        added = f" {slot['when']}: `{slot['name']}` as well." if slot["when"] else ""
        text += added + begins
    return text


def _settings(told: Told) -> str:
    """Every hyperparameter's value in each preset; presets that agree in all share a column."""
    columns: list[tuple[list[str], Told]] = []
    for preset, values in told["presets"].items():
        same = [names for names, known in columns if _plain(known) == _plain(values)]
        if same:
            same[0].append(preset)
        else:
            columns.append(([preset], values))
    rows = [
        (
            f"`{name}`",
            parameter.meaning,
            f"`{parameter.allowed}`",
            *(number(values[name]) for _, values in columns),
        )
        for name, parameter in rule_facts(told["name"]).hyperparameters.items()
    ]
    return table(("setting", "meaning", "allowed", *(", ".join(names) for names, _ in columns)), rows)


def _plain(settings: Told) -> Told:
    return {name: value for name, value in settings.items() if name != "preset"}


def _transform(told: Told) -> str:
    schema = told["hyperparameters"]["properties"]
    settings = [
        (f"`{name}`", field["description"], number(field.get("default", "must be given")))
        for name, field in schema.items()
    ]
    parts = [
        f"### {told['position']}. {told['name']}",
        f"{sentence(told['summary'])} *{sentence(told['source'])}*",
        display(told["equation"]) if told["equation"] else "",
        f"**When to use it.** {sentence(told['use'])}",
        *map(sentence, told["notes"]),
        table(("setting", "meaning", "default"), settings) if settings else "",
    ]
    return "\n\n".join(part for part in parts if part)


def _floors() -> str:
    """How far the first Adam step goes, as a share of lr, by preset and size of the gradient."""
    presets = guide.describe("adam")["presets"]
    passed = inspect.signature(RULES["adam"]).parameters
    slots = len(rule_facts("adam").slots)
    rows = []
    for gradient in GRADIENTS:
        steps = []
        for settings in presets.values():
            known = {name: value for name, value in settings.items() if name in passed} | {"lr": 1.0}
            moved: Any = RULES["adam"](0.0, gradient, *[0.0] * slots, t=1, **known)[0]
            steps.append(f"{-moved:.4f}")
        rows.append((number(gradient), *steps))
    return table(("size of the gradient", *presets), rows)


def _libraries(rules: list[Told]) -> Iterator[str]:
    for preset, library in LIBRARIES.items():
        having = [told for told in rules if preset in told["presets"]]
        if having:
            yield _library(preset, library, having)


def _library(preset: str, library: Library, rules: list[Told]) -> str:
    rows = []
    for told in rules:
        if told["name"] not in library.calls:
            continue
        settings, usual = told["presets"][preset], told["presets"].get(DEFAULT_PRESET, {})
        other = [f"`{k}` {number(v)}" for k, v in _plain(settings).items() if usual and usual.get(k) != v]
        spec = f'`{{"rule": "{told["name"]}", "preset": "{preset}"}}`'
        rows.append((f"`{library.calls[told['name']]}`", spec, ", ".join(other) or "–"))
    beside = f"differs from `{DEFAULT_PRESET}` in"
    return f"### {library.title}\n\n{library.beware}\n\n" + table(("there", "here", beside), rows)


if __name__ == "__main__":
    PAGE.write_text(page())
