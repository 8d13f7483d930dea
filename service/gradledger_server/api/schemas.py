"""What JSON requests may say. Unknown fields are refused; hyperparameters are checked by the catalogue."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from gradledger_server.api.wording import detail_of, hint_of, path_of
from gradledger_server.errors import Invalid, InvalidSpec
from gradledger_server.optim.expansion import meant
from gradledger_server.optim.schedules.guide import MOST_POINTS

WORKER = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"

FLOAT32_MAX = (2 - 2**-23) * 2.0**127

_UNKNOWN = "unknown_field"

GUARD = "What becomes of gradients that are not finite, and of workers whose gradients are too large."
RULE, SCHEDULE, MODE = {"rule": "adam"}, {"name": "cosine_decay", "decay_steps": 1000}, {"mode": "async"}
GROUPS = [{"match": "*.bias", "optimizer": {"weight_decay": 0.0}}]
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


def _or_name(key: str) -> BeforeValidator:
    """A bare name stands for the object that has nothing but this name, under `key`."""

    def read(given: Any) -> Any:
        return {key: given} if isinstance(given, str) else given

    return BeforeValidator(read, json_schema_input_type=dict[str, Any] | str)


Optimizer = Annotated[dict[str, Any], _or_name("rule")]
Schedule = Annotated[dict[str, Any], _or_name("name")]
Sync = Annotated[dict[str, Any], _or_name("mode")]


class GroupRequest(Strict):
    """Tensors whose names match the glob `match` are optimized differently; the first match wins."""

    match: str = Field(min_length=1, max_length=512)
    optimizer: Optimizer = Field(default_factory=dict, examples=[RULE])
    schedule: Schedule | None = Field(default=None, examples=[SCHEDULE])
    transforms: dict[str, Any] = Field(default_factory=dict, description=TRANSFORMS)


class ModelRequest(Strict):
    """A model to create. `parameters`: nested lists, or {"shape": […], "dtype": "F32"} to upload later."""

    optimizer: Optimizer = Field(examples=[RULE])
    schedule: Schedule | None = Field(default=None, examples=[SCHEDULE])
    transforms: dict[str, Any] = Field(default_factory=dict, description=TRANSFORMS)
    groups: list[GroupRequest] = Field(default_factory=list, max_length=64, examples=[GROUPS])
    sync: Sync = Field(default_factory=dict, examples=[MODE])
    guard: dict[str, Any] = Field(default_factory=dict, description=GUARD)
    parameters: dict[str, Any] = Field(min_length=1, examples=[{"w": {"shape": [10]}}])


class ModelChange(Strict):
    """What a PATCH may change: hyperparameters, schedule, transforms, groups; no rules, slots or shapes."""

    optimizer: Optimizer = Field(default_factory=dict, examples=[RULE])
    schedule: Schedule | None = Field(default=None, examples=[SCHEDULE])
    transforms: dict[str, Any] = Field(default_factory=dict, description=TRANSFORMS)
    sync: Sync | None = Field(default=None, examples=[MODE])
    guard: dict[str, Any] | None = Field(default=None, description=GUARD)
    groups: list[GroupRequest] | None = Field(default=None, max_length=64, examples=[GROUPS])


class Declaration(Strict):
    """A tensor without its values, or with them and their dtype; `rows` makes it a table."""

    shape: list[int] | None = Field(default=None, max_length=16, examples=[[10]])
    dtype: Literal["F32", "F64"] = Field(default="F32", examples=["F32"])
    values: Any = None
    rows: Literal["lazy", "lazy_global_t", "dense"] | None = None
    init: dict[str, Any] | None = None


class PushFacts(Strict):
    """Who sends a push: `sequence` counts a worker's pushes from 1; `base` is the step it was computed at."""

    worker: str | None = Field(
        default=None, pattern=WORKER, examples=["w0"], description="Names the pusher; needs sequence."
    )
    sequence: int | None = Field(
        default=None, ge=1, lt=2**53, description="The worker's count of pushes, from 1."
    )
    base: int | None = Field(
        default=None, ge=0, lt=2**53, description="The step of the parameters it came from."
    )
    weight: float = Field(default=1.0, gt=0, allow_inf_nan=False, description="Examples or tokens behind it.")


class PushRequest(PushFacts):
    """A push as JSON: nested lists by tensor name."""

    gradients: dict[str, Any] = Field(min_length=1, examples=[{"w": [0.1, -0.2]}])


class MetricRequest(Strict):
    """What a client measured; `worker` and `sequence` name it, apart from the worker's pushes."""

    value: float = Field(allow_inf_nan=False, description="Such as a validation loss. Finite.")
    worker: str | None = Field(
        default=None, pattern=WORKER, examples=["w0"], description="Names the sender; needs sequence."
    )
    sequence: int | None = Field(
        default=None, ge=1, lt=2**53, description="The worker's count of metrics, from 1."
    )


class PreviewRequest(Strict):
    """The stretch of a schedule to look at: its learning rates at up to `points` steps from first to last."""

    schedule: Schedule = Field(examples=[SCHEDULE])
    lr: float = Field(default=1.0, ge=0, le=FLOAT32_MAX, description="The optimizer's learning rate.")
    first: int = Field(default=0, ge=0, le=2**53, description="Updates applied at the first point.")
    last: int | None = Field(default=None, ge=0, le=2**53, description="At the last; else first + 999.")
    points: int = Field(default=1000, ge=1, le=MOST_POINTS, description="At most so many, evenly spread.")


class WorkerRequest(Strict):
    """A worker that joins, or renews its lease."""

    worker: str = Field(pattern=WORKER, examples=["w0"])


class UploadRequest(Strict):
    """Parameter values as JSON: nested lists by tensor name."""

    parameters: dict[str, Any] = Field(min_length=1, examples=[{"w": [0.0, 1.0]}])


class RowsRequest(Strict):
    """Rows of a table, by number."""

    rows: list[Any] = Field(max_length=1 << 20, examples=[[1, 5, 7]])


Shape = TypeVar("Shape", bound=BaseModel)


def read(schema: type[Shape], members: Any, *, error: type[Invalid] = InvalidSpec, where: str = "") -> Shape:
    """The members as `schema`; raises `error` naming the field, what was got and what is expected.

    `where` is the path to the members if they are a part of the body.
    """
    try:
        return schema.model_validate(members)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        path = path_of(first, where)
        if first["type"] == _UNKNOWN:
            name, known = first["ctx"]["name"], first["ctx"]["known"]
            detail, field = f"{path or 'body'}: {first['msg']}", f"{path}.{name}".removeprefix(".")
            raise error(detail, field=field, hint=meant(name, known.split(", ")) or "Remove it.") from None
        raise error(detail_of(first, path), field=path, hint=hint_of(first, path, schema)) from None
