"""The objects that answers hold, as the OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

Document = dict[str, Any]

FATES = ["applied", "accumulated", "merged", "waiting", "late", "rejected", "repeated"]
FATES += ["skipped", "outlier", "quarantined"]  # left out by a guard rail


def described(description: str, **properties: Document) -> Document:
    """An object that always has these members."""
    return {
        "type": "object",
        "description": description,
        "properties": properties,
        "required": list(properties),
    }


def maybe(kind: str) -> Document:
    """A value of that kind, or null."""
    return {"type": [kind, "null"]}


INTEGER, NUMBER, STRING = {"type": "integer"}, {"type": "number"}, {"type": "string"}
ANY_OBJECT: Document = {"type": "object"}
NAMES: Document = {"type": "array", "items": STRING}
NESTED = {"type": "object", "description": "Nested lists, row-major, by tensor name."}

_TOLD = {
    "name": STRING,
    "summary": STRING,
    "use": {"type": "string", "description": "When to use it."},
    "notes": NAMES,
    "equation": {"type": "string", "description": "LaTeX, from the same trace as the kernels."},
    "hyperparameters": {"type": "object", "description": "JSON Schema 2020-12."},
}
_ROWS = described(
    "Gradients for some rows of a tensor, with weight_decay 0. Null: the rule works on whole tensors.",
    lazy_equals_dense=maybe("boolean"),
    note=STRING,
)
_SLOT = described(
    "What the rule remembers of each parameter; `when` names the setting that adds it, null: always.",
    name=STRING,
    meaning=STRING,
    starts_at=NUMBER,
    when=maybe("string"),
)

ANSWERS: dict[str, Document] = {
    "Optimizer": described(
        "A rule of the catalogue. `bytes_per_parameter`: weight and default slots of an F32 parameter.",
        **_TOLD,
        paper=STRING,
        slots={"type": "array", "items": _SLOT},
        bytes_per_parameter=INTEGER,
        sparse=_ROWS,
        presets={"type": "object", "description": "Every hyperparameter's value, by preset."},
    ),
    "Transform": described(
        "What happens to a gradient before the rule. `position` 1 is applied first.",
        **_TOLD,
        source=STRING,
        position=INTEGER,
    ),
    "Problem": described(
        "RFC 9457; further members belong to the type.",
        type=STRING,
        title=STRING,
        status=INTEGER,
        detail=STRING,
        hint=STRING,
        request_id=STRING,
    ),
    "Receipt": described(
        "The fate of one push. `step` is the update it made, or the last one if it was accumulated; "
        "`staleness` = the step before it − base.",
        fate={"type": "string", "enum": FATES},
        step=INTEGER,
        offset=INTEGER,
        base=maybe("integer"),
        staleness=maybe("integer"),
        lr=maybe("number"),
        clip_factor=maybe("number"),
        grad_norm=maybe("number"),
        durability=maybe("string"),
        epoch=STRING,
        worker=maybe("string"),
        sequence=maybe("integer"),
        round=maybe("integer"),
        zeroed=INTEGER,
        replayed={"type": "boolean"},
    ),
    "Model": described(
        "A model with every default written out.",
        name=STRING,
        epoch=STRING,
        etag=STRING,
        step=INTEGER,
        offset=INTEGER,
        saved_offset=INTEGER,
        lr=NUMBER,
        optimizer=ANY_OBJECT,
        schedule=ANY_OBJECT,
        transforms=ANY_OBJECT,
        groups={"type": "array", "items": ANY_OBJECT},
        sync=ANY_OBJECT,
        guard=ANY_OBJECT,
        parameters=ANY_OBJECT,
        views=NAMES,
        missing=NAMES,
        parameter_bytes=INTEGER,
        state_bytes=INTEGER,
        rows_seen={"type": "object", "description": "Of each table: the rows that are held."},
    ),
    "Parameters": described("One step's parameters.", step=INTEGER, parameters=NESTED),
    "Uploaded": described("The version after an upload.", step=INTEGER, etag=STRING, missing=NAMES),
}
