"""Models drawn at random from the registries, and what happens to them: a log of entries that all apply.

    wanted(rule, draw)           the spec of a model with this rule
    entries(spec, draw, count)   its Create, values for what needs some, and what happens to it then
    drawn(declared, draw)        a setting within its bounds; with `extreme` at their edges

New rules, transforms and schedules are drawn as soon as they are registered.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Configure, Create, Entry, Json, Metric, Push, Tensors, Upload
from gradledger_server.errors import Invalid
from gradledger_server.machine import spec as specs
from gradledger_server.machine.apply import apply, begin
from gradledger_server.machine.gradient import check, gather, norm
from gradledger_server.machine.initial import INITIALS
from gradledger_server.machine.model import Model
from gradledger_server.machine.reconfiguration import reconfigure
from gradledger_server.machine.tables import MODES, TRANSFORMS_BY_ROW, DeclaredTable
from gradledger_server.optim.catalog import RULES, presets_of, rule_facts
from gradledger_server.optim.hyperparameters import Bounds
from gradledger_server.optim.schedules.catalog import SCHEDULES, settings_of
from gradledger_server.optim.signatures import Hyperparameter, facts_of
from gradledger_server.optim.transforms import MODEL_WIDE, TRANSFORMS
from gradledger_server.wire import safetensors
from gradledger_server.wire.digest import digest
from tests.machine.bodies import NUMPY

DENSE = {"a": (3, 4), "b.bias": (5,), "c": (2, 3, 2), "d": (), "e": (0, 2), "f.bias": (1,)}
TABLES = {"emb": (6, 2), "rows.bias": (4,)}

Draw = random.Random
Arrays = dict[str, NDArray[Any]]


def drawn(declared: Hyperparameter, draw: Draw, *, extreme: bool = False) -> Any:
    """A value for the setting that is allowed by itself."""
    if declared.kind == "choice":
        return draw.choice(declared.choices)
    if declared.kind == "switch":
        return draw.random() < 0.5
    if declared.name == "schedules":
        return [schedule(draw, extreme=extreme) for _ in range(draw.randint(1, 3))]
    if (items := declared.items) is not None:
        assert items.each is not None
        count = draw.randint(items.least, min(items.least + 2, items.most))
        found = {_number(items.each, draw, whole=items.whole, extreme=extreme) for _ in range(count)}
        return sorted(found) if items.rising else list(found)
    if declared.default is not None and draw.random() < 0.3:
        return declared.default
    assert declared.bounds is not None
    return _number(declared.bounds, draw, whole=declared.kind == "integer", extreme=extreme)


def _number(bounds: Bounds, draw: Draw, *, whole: bool, extreme: bool) -> float:
    low, high = bounds.low, bounds.high
    if extreme:
        tiny = [low, math.nextafter(low, math.inf), low + 1e-38, low + 1e-7, 1.0 - 2**-53, 0.9999999]
        large = [high, math.nextafter(high, -math.inf), high / 2, 1e-38, 1e-30, 1.0, 2.0, 2.0**53]
        chosen = draw.choice([*tiny, *large])
    else:
        chosen = draw.choice([low, low + draw.random(), low + 3 * draw.random() + 1, low + 1e-3])
    if whole:
        chosen = math.floor(chosen)
    return chosen if bounds.allow(chosen) else _number(bounds, draw, whole=whole, extreme=extreme)


def settings(declared: Mapping[str, Hyperparameter], draw: Draw, *, extreme: bool = False) -> dict[str, Any]:
    """All that must be given, and some of the others."""
    return {
        name: drawn(its, draw, extreme=extreme)
        for name, its in declared.items()
        if its.default is None or draw.random() < (0.5 if extreme else 0.3)
    }


def optimizer(rule: str, draw: Draw, *, extreme: bool = False) -> dict[str, Any]:
    """An optimizer of that rule that is allowed."""

    def made() -> dict[str, Any]:
        declared = rule_facts(rule).hyperparameters
        preset = draw.choice(presets_of(rule))
        return {"rule": rule, "preset": preset, **settings(declared, draw, extreme=extreme)}

    return _allowed(made, lambda given: {"optimizer": given})


def schedule(draw: Draw, *, extreme: bool = False, name: str | None = None) -> dict[str, Any]:
    """A schedule that is allowed."""
    names = [other for other in SCHEDULES if other not in ("plateau", "sequence")]

    def made() -> dict[str, Any]:
        chosen = name or draw.choice(names)
        given = {"name": chosen, **settings(settings_of(chosen), draw, extreme=extreme)}
        if chosen == "sequence":
            given["boundaries"] = sorted(draw.sample(range(1, 9), max(len(given["schedules"]) - 1, 1)))
        return given

    return _allowed(made, lambda given: {"optimizer": {"rule": "sgd"}, "schedule": given})


def transforms(draw: Draw, *, among: list[str], extreme: bool = False) -> dict[str, Any]:
    """Some of the transforms."""
    return {
        name: settings(facts_of(TRANSFORMS[name]).hyperparameters, draw, extreme=extreme)
        for name in among
        if draw.random() < 0.3
    }


def _allowed(make: Callable[[], dict[str, Any]], spec: Callable[[Json], Json]) -> dict[str, Any]:
    for _ in range(10_000):
        made = make()
        try:
            specs.expand(spec(made), {"w": ((2, 2), "F32")})
        except Invalid:
            continue
        return made
    raise AssertionError("nothing that was drawn is allowed")


def wanted(rule: str, draw: Draw, *, extreme: bool = False) -> specs.Spec:
    """A model of this rule: some tensors in groups of their own rules, some tables, any transforms."""
    for _ in range(10_000):
        dense = {name: shape for name, shape in DENSE.items() if draw.random() < 0.6}
        tables = {name: shape for name, shape in TABLES.items() if draw.random() < 0.4}
        shapes = {name: (s, draw.choice(("F32", "F64"))) for name, s in (dense | tables).items()}
        given = {
            "optimizer": optimizer(rule, draw, extreme=extreme),
            "transforms": transforms(
                draw, among=[*(TRANSFORMS_BY_ROW if tables else TRANSFORMS)], extreme=extreme
            ),
            "groups": [_group(draw, extreme=extreme)] if draw.random() < 0.5 else [],
        }
        if draw.random() < 0.7:
            name = draw.choice([*SCHEDULES, "plateau"])
            given["schedule"] = schedule(draw, extreme=extreme, name=name)
        declared = {name: _table(draw) for name in tables}
        try:
            return specs.expand(given, shapes, declared)
        except Invalid:
            continue
    raise AssertionError(f"no model of rule {rule} is allowed")


def _group(draw: Draw, *, extreme: bool) -> dict[str, Any]:
    own = [name for name in TRANSFORMS if name not in MODEL_WIDE]
    return {
        "match": "*.bias",
        "optimizer": optimizer(draw.choice([*RULES]), draw, extreme=extreme),
        "schedule": schedule(draw, extreme=extreme, name=draw.choice((None, "plateau", "constant"))),
        "transforms": transforms(draw, among=own, extreme=extreme),
    }


def _table(draw: Draw) -> dict[str, Any]:
    initial = draw.choice([None, *INITIALS])
    return {"rows": draw.choice(MODES), "init": initial and {"name": initial}}


def entries(spec: specs.Spec, draw: Draw, count: int, *, extreme: bool = False) -> Iterator[Entry]:
    """A Create and what follows: values for everything, then pushes, uploads, changes and metrics."""
    create = Create(spec.json, None, None, 0)
    yield create
    model = begin(create, NUMPY, Blocks())
    for offset in range(2, count + 2):
        entry = _upload(model, draw, missing=True) if model.missing else _next(model, draw, extreme=extreme)
        yield entry
        apply(model, offset, entry)


def _next(model: Model, draw: Draw, *, extreme: bool) -> Entry:
    """Most often a push; a change or a metric only where there is one that would be taken."""
    chosen = draw.choice(("push", "push", "push", "push", "upload", "configure", "metric"))
    if chosen == "upload":
        return _upload(model, draw)
    if chosen == "metric" and model.watches:
        return Metric(draw.uniform(-1, 1), None, None, None, "memory", 0)
    changed = _change(model, draw, extreme=extreme) if chosen == "configure" else None
    return changed or _push(model, draw, extreme=extreme)


def _upload(model: Model, draw: Draw, *, missing: bool = False) -> Upload:
    """Values for all that has none yet, or for some tensors and rows."""
    arrays: Arrays = {}
    while not arrays:
        for place in model.layout.places:
            if missing or draw.random() < 0.4:
                arrays[place.tensor.name] = _numbers(place.tensor.shape, place.tensor.dtype, draw)
        for name, table in model.layout.tables.items():
            if table.initial is None and (missing or draw.random() < 0.4):
                arrays[name] = _numbers(table.shape, table.dtype, draw)
            elif table.initial is not None and not missing:
                arrays |= _some_rows(table, draw, twice=False)
    tensors = _body(arrays)
    check(model.layout, tensors, upload=True)
    return Upload(tensors, digest(tensors.payload), 0)


def _push(model: Model, draw: Draw, *, extreme: bool) -> Push:
    arrays: Arrays = {}
    while not arrays:
        for place in model.layout.places:
            if draw.random() < 0.6:
                dtype = draw.choice(("F32", "F64", "F16"))
                arrays[place.tensor.name] = _numbers(place.tensor.shape, dtype, draw, extreme=extreme)
        for table in model.layout.tables.values():
            if draw.random() < 0.7:
                arrays |= _some_rows(table, draw, twice=True, extreme=extreme)
    tensors = _body(arrays)
    check(model.layout, tensors)
    weight = draw.choice((1.0, 2.5, 1e308, 5e-324) if extreme else (1.0, 2.5))
    length = norm(model.layout, gather(model.layout, tensors, model.blocks), NUMPY)
    named, sequence = digest(tensors.payload), model.receipts.last("w:w0") + 1
    return Push(tensors, named, "w0", sequence, None, model.step, weight, length, "memory", 0)


def _some_rows(table: DeclaredTable, draw: Draw, *, twice: bool, extreme: bool = False) -> Arrays:
    among = [*range(table.rows)] * (2 if twice else 1)
    rows = np.array(draw.sample(among, draw.randint(0, table.rows)), np.int64)
    values = _numbers((rows.size, *table.shape[1:]), table.dtype, draw, extreme=extreme)
    return {table.name: values, table.ids_name: rows}


def _numbers(shape: tuple[int, ...], dtype: str, draw: Draw, *, extreme: bool = False) -> NDArray[Any]:
    numpy_dtype = {"F16": np.float16, "F32": np.float32, "F64": np.float64}[dtype]
    made = np.random.default_rng(draw.getrandbits(32)).standard_normal(shape)
    if extreme and dtype != "F16":
        made = made * draw.choice((0.0, 1e-45, 1e-30, 1.0, 1e30, 1e37))
    return made.astype(numpy_dtype)


def _change(model: Model, draw: Draw, *, extreme: bool) -> Configure | None:
    """A PATCH that is allowed, if one of a few is."""
    rule = model.spec.json["optimizer"]["rule"]
    for _ in range(10):
        change: dict[str, Any] = {
            "optimizer": settings(rule_facts(rule).hyperparameters, draw, extreme=extreme)
        }
        if draw.random() < 0.5:
            change["schedule"] = schedule(draw, extreme=extreme, name=draw.choice((None, "plateau")))
        if draw.random() < 0.5:
            change["transforms"] = transforms(draw, among=[*TRANSFORMS], extreme=extreme)
        try:
            return Configure(reconfigure(model.spec, change).json, 0)
        except Invalid:
            continue
    return None


def _body(arrays: Mapping[str, np.ndarray[Any, Any]]) -> Tensors:
    """As a request brings them."""
    names = {"float16": "F16", "float32": "F32", "float64": "F64", "int64": "I64"}
    shaped = [(name, names[array.dtype.name], array.shape) for name, array in arrays.items()]
    header = safetensors.header(shaped)
    whole = bytes(header) + b"".join(array.tobytes() for array in arrays.values())
    return safetensors.decode(memoryview(bytearray(whole)), safetensors.OWN)
