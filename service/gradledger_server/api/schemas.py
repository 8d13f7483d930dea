"""What JSON requests may say. Unknown fields are refused; hyperparameters are checked by the catalogue."""

from __future__ import annotations

import reprlib
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from gradledger_server.errors import Invalid, InvalidSpec
from gradledger_server.optim.schedules.guide import MOST_POINTS

WORKER = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"

FLOAT32_MAX = (2 - 2**-23) * 2.0**127

_UNKNOWN = "unknown_field"

GUARD = "What becomes of gradients that are not finite, and of workers whose gradients are too large."
TRANSFORMS = "Settings by transform; null does without one. The order they are applied in is fixed."


class Strict(BaseModel):
    """No field that is not known, and no value that is not what it should be: "1" and true are not 1."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown(cls, members: Any) -> Any:
        # Only the first: pydantic would write an error for each, and a body may hold a million of them.
        if not isinstance(members, dict):
            return members
        unknown = next((name for name in members if name not in cls.model_fields), None)
        if unknown is not None:
            facts = {"name": unknown[:80], "known": ", ".join(cls.model_fields)}
            raise PydanticCustomError(_UNKNOWN, "field {name} is not known; known are {known}", facts)
        return members


class GroupRequest(Strict):
    """Tensors whose names match the glob `match` are optimized differently; the first match wins."""

    match: str = Field(min_length=1, max_length=512)
    optimizer: dict[str, Any] = Field(default_factory=dict)
    schedule: dict[str, Any] | None = None
    transforms: dict[str, Any] = Field(default_factory=dict, description=TRANSFORMS)


class ModelRequest(Strict):
    """A model to create. `parameters`: nested lists, or {"shape": […], "dtype": "F32"} to upload later."""

    optimizer: dict[str, Any]
    schedule: dict[str, Any] | None = None
    transforms: dict[str, Any] = Field(default_factory=dict, description=TRANSFORMS)
    groups: list[GroupRequest] = Field(default_factory=list, max_length=64)
    sync: dict[str, Any] | str = Field(default_factory=dict)
    guard: dict[str, Any] = Field(default_factory=dict, description=GUARD)
    parameters: dict[str, Any] = Field(min_length=1)


class ModelChange(Strict):
    """What a PATCH may change: hyperparameters, schedule, transforms, groups; no rules, slots or shapes."""

    optimizer: dict[str, Any] = Field(default_factory=dict)
    schedule: dict[str, Any] | None = None
    transforms: dict[str, Any] = Field(default_factory=dict, description=TRANSFORMS)
    sync: dict[str, Any] | str | None = None
    guard: dict[str, Any] | None = Field(default=None, description=GUARD)
    groups: list[GroupRequest] | None = Field(default=None, max_length=64)


class Declaration(Strict):
    """A tensor without its values, or with them and their dtype; `rows` makes it a table."""

    shape: list[int] | None = Field(default=None, max_length=16)
    dtype: Literal["F32", "F64"] = "F32"
    values: Any = None
    rows: Literal["lazy", "lazy_global_t", "dense"] | None = None
    init: dict[str, Any] | None = None


class PushFacts(Strict):
    """Who sends a push: `sequence` counts a worker's pushes from 1; `base` is the step it was computed at."""

    worker: str | None = Field(default=None, pattern=WORKER, description="Names the pusher; needs sequence.")
    sequence: int | None = Field(
        default=None, ge=1, lt=2**53, description="The worker's count of pushes, from 1."
    )
    base: int | None = Field(
        default=None, ge=0, lt=2**53, description="The step of the parameters it came from."
    )
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="Examples or tokens behind it.")


class PushRequest(PushFacts):
    """A push as JSON: nested lists by tensor name."""

    gradients: dict[str, Any] = Field(min_length=1)


class MetricRequest(Strict):
    """What a client measured; `worker` and `sequence` name it, apart from the worker's pushes."""

    value: float = Field(allow_inf_nan=False, description="Such as a validation loss. Finite.")
    worker: str | None = Field(default=None, pattern=WORKER, description="Names the sender; needs sequence.")
    sequence: int | None = Field(
        default=None, ge=1, lt=2**53, description="The worker's count of metrics, from 1."
    )


class PreviewRequest(Strict):
    """The stretch of a schedule to look at: its learning rates at up to `points` steps from first to last."""

    schedule: dict[str, Any]
    lr: float = Field(default=1.0, ge=0, le=FLOAT32_MAX, description="The optimizer's learning rate.")
    first: int = Field(default=0, ge=0, le=2**53, description="Updates applied at the first point.")
    last: int | None = Field(default=None, ge=0, le=2**53, description="At the last; else first + 999.")
    points: int = Field(default=1000, ge=1, le=MOST_POINTS, description="At most so many, evenly spread.")


class WorkerRequest(Strict):
    """A worker that joins, or renews its lease."""

    worker: str = Field(pattern=WORKER)


class UploadRequest(Strict):
    """Parameter values as JSON: nested lists by tensor name."""

    parameters: dict[str, Any] = Field(min_length=1)


class RowsRequest(Strict):
    """Rows of a table, by number."""

    rows: list[Any] = Field(max_length=1 << 20)


Shape = TypeVar("Shape", bound=BaseModel)


def read(schema: type[Shape], members: Any, *, error: type[Invalid] = InvalidSpec, where: str = "") -> Shape:
    """The members as `schema`; raises `error` naming the field, what was got and what is expected.

    `where` is the path to the members if they are a part of the body.
    """
    try:
        return schema.model_validate(members)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        path = [where] * bool(where) + [str(part)[:80] for part in first["loc"]]
        said = f"{'.'.join(path) or 'body'}: {first['msg'][:1].lower()}{first['msg'][1:]}"
        if first["type"] == _UNKNOWN:
            raise error(said, field=".".join([*path, first["ctx"]["name"]]), hint="Remove it.") from None
        raise error(f"{said}; got {reprlib.repr(first['input'])}", field=".".join(path)) from None
