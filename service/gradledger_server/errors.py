"""Every way to fail, drawn as a tree. Raised low, translated once (api/problems.py).

    GradledgerError
    ├── Refused                     the request is wrong; nothing happened
    │   ├── MalformedBody           400  not JSON, not safetensors, truncated, hostile
    │   ├── MalformedRequest        400  a header or query parameter that cannot be read
    │   ├── NotFound                404  no such path
    │   │   ├── ModelNotFound
    │   │   ├── TensorNotFound
    │   │   ├── ViewNotFound
    │   │   ├── ReceiptNotFound
    │   │   ├── RuleNotFound
    │   │   ├── ScheduleNotFound
    │   │   └── TransformNotFound
    │   ├── MethodNotAllowed        405
    │   ├── NotAcceptable           406
    │   ├── RequestTimeout          408  it was started but not finished in time
    │   ├── Conflict                409  right in itself, wrong now
    │   │   ├── ModelExists
    │   │   ├── ParametersMissing
    │   │   ├── NoPlateau           a metric, and no schedule that follows metrics
    │   │   ├── SequenceGap         an acknowledged push was lost, or one was skipped
    │   │   ├── StaleGradient       its base is further back than the model allows
    │   │   ├── NotAMember          the round waits for members only
    │   │   ├── WorkerQuarantined   its gradients were too large too often, or somebody said so
    │   │   └── WorkerAhead         the worker's last push still waits for the others
    │   ├── LengthRequired          411
    │   ├── PreconditionFailed      412  If-Match names another version
    │   ├── BodyTooLarge            413
    │   ├── UnsupportedMediaType    415
    │   └── Invalid                 422  understood, and impossible
    │       ├── InvalidSpec         a field or hyperparameter of the spec
    │       ├── InvalidName
    │       ├── UnknownTensor
    │       ├── WrongShape
    │       ├── WrongDtype
    │       ├── WrongRows           of a table: out of range, too many, or not named
    │       ├── WrongScale          of an I8 gradient: missing, alone, or negative
    │       ├── NonFinite
    │       └── SequenceReused      same (worker, sequence) or key, other body
    ├── Unavailable                 the request may be right; try again
    │   ├── TooManyStreams          503  of events, from one model
    │   ├── StoreUnavailable        503  the server holding the log does not answer
    │   ├── StoreFull               507  the server refuses writes for want of memory
    │   ├── DeviceFull              507  the GPU has no memory left
    │   └── ModelQuarantined        503  an entry could not be replayed; a person must look
    ├── MalformedRecord             a record of our own log cannot be read
    ├── WrongSetting                at start-up: an option or environment variable that cannot be
    ├── StoreUnsuitable             at start-up: wrong version, eviction on, weaker than asked
    └── DeviceUnavailable           at start-up: a GPU was asked for and cannot be used

A message says what, got, expected; `hint` says the next move. Keyword facts become members of the problem.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

TOLD = 5  # names of a model's tensors, at most, where another is refused


class GradledgerError(Exception):
    """The root. `problem` is the last part of the problem type's path, `status` its HTTP status."""

    problem: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something broke in the service"
    status: ClassVar[int] = 500
    hint: ClassVar[str] = ""

    def __init__(self, detail: str, *, hint: str | None = None, **facts: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.advice = self.hint if hint is None else hint
        self.facts = facts


class Refused(GradledgerError):
    problem, title, status = "refused", "The request was refused", 400


class MalformedBody(Refused):
    problem, title = "malformed-body", "The body cannot be read"


class MalformedRequest(Refused):
    problem, title = "malformed-request", "A header or parameter cannot be read"


class NotFound(Refused):
    problem, title, status = "not-found", "There is nothing here", 404
    hint = "GET /v1 lists what this service serves; /readyz and /livez tell of its health."


class ModelNotFound(NotFound):
    problem, title = "model-not-found", "There is no such model"
    hint = "Create it with PUT /v1/models/{model}; GET /v1/models lists the ones there are."


class TensorNotFound(NotFound):
    problem, title = "tensor-not-found", "The model has no such tensor"
    hint = "GET /v1/models/{model} lists its tensors."


class ViewNotFound(NotFound):
    problem, title = "view-not-found", "The model has no such view"
    hint = "GET /v1/models/{model} lists its views; ema, lookahead and polyak under transforms make some."


class ReceiptNotFound(NotFound):
    problem, title = "receipt-not-found", "No receipt is kept for this push"
    hint = "Each worker's latest 64 are; GET /v1/models/{model}/workers tells the last sequences."


class RuleNotFound(NotFound):
    problem, title = "rule-not-found", "There is no such optimizer rule"
    hint = "GET /v1/optimizers lists the rules."


class ScheduleNotFound(NotFound):
    problem, title = "schedule-not-found", "There is no such schedule"
    hint = "GET /v1/schedules lists the schedules."


class TransformNotFound(NotFound):
    problem, title = "transform-not-found", "There is no such transform"
    hint = "GET /v1/transforms lists the transforms."


class MethodNotAllowed(Refused):
    problem, title, status = "method-not-allowed", "This path does not take that method", 405


class NotAcceptable(Refused):
    problem, title, status = "not-acceptable", "No offered form of the answer is acceptable", 406
    hint = "Accept application/json or application/vnd.safetensors."


class RequestTimeout(Refused):
    problem, title, status = "request-timeout", "The request was started but not finished in time", 408


class Conflict(Refused):
    problem, title, status = "conflict", "The request does not fit the present state", 409


class ModelExists(Conflict):
    problem, title = "model-exists", "A model of this name exists with another spec"
    hint = "Choose another name, PATCH its optimizer, or DELETE it first."


class ParametersMissing(Conflict):
    problem, title = "parameters-missing", "The model has no parameter values yet"
    hint = "Upload them with PUT /v1/models/{model}/parameters."


class NoPlateau(Conflict):
    problem, title = "no-plateau", "The model does not follow metrics"
    hint = 'PATCH the model with {"schedule": {"name": "plateau"}}, or give a group such a schedule.'


class SequenceGap(Conflict):
    problem, title = "sequence-gap", "A push is missing before this one"
    hint = "Send the expected sequence next; if that push was acknowledged before, the server lost it."


class StaleGradient(Conflict):
    problem, title = "stale-gradient", "The gradient was computed from parameters too old"
    hint = "Pull the parameters, compute the gradient anew and push it with the same sequence."


class NotAMember(Conflict):
    problem, title = "not-a-member", "The worker is not a member, so its gradient cannot be waited for"
    hint = 'Join with POST /v1/models/{model}/workers {"worker": "…"}, then push.'


class WorkerQuarantined(Conflict):
    problem, title = "worker-quarantined", "The worker is in quarantine: none of its gradients count"
    hint = "Find out what is wrong with it; DELETE /v1/models/{model}/quarantine/{worker} lets it out."


class WorkerAhead(Conflict):
    problem, title = "worker-ahead", "The worker's last push still waits for the others"
    hint = "Ask for its receipt, or repeat it with Prefer: wait=20, and push again when it has counted."


class LengthRequired(Refused):
    problem, title, status = "length-required", "The body's length must be declared", 411
    hint = "Send Content-Length."


class PreconditionFailed(Refused):
    problem, title, status = "precondition-failed", "The model is at another version", 412
    hint = "Pull the parameters and try with their ETag, or leave If-Match out."


class BodyTooLarge(Refused):
    problem, title, status = "body-too-large", "The body is larger than this request may need", 413


class UnsupportedMediaType(Refused):
    problem, title, status = "unsupported-media-type", "The body's form is not known", 415
    hint = "Send application/json or application/vnd.safetensors."


class Invalid(Refused):
    problem, title, status = "invalid", "The request asks for something impossible", 422


class InvalidSpec(Invalid):
    problem, title = "invalid-spec", "A field of the spec is wrong"


class InvalidName(Invalid):
    problem, title = "invalid-name", "The name is not allowed"


class UnknownTensor(Invalid):
    problem, title = "unknown-tensor", "The model has no tensor of this name"
    hint = "GET /v1/models/{model} lists its tensors."

    @classmethod
    def among(cls, name: str, known: Iterable[str], *, hint: str | None = None) -> UnknownTensor:
        """The refusal of a name, with the first of those the model has; what goes beside them is left out."""
        own = [repr(tensor[:80]) for tensor in known if "#" not in tensor]
        listed = ", ".join(own[:TOLD]) + (f" and {len(own) - TOLD} more" if len(own) > TOLD else "")
        said = f"tensor {name[:80]!r} is not part of the model, which has {listed}"
        return cls(said, hint=hint, tensor=name)


class WrongShape(Invalid):
    problem, title = "wrong-shape", "A tensor's shape does not match"
    hint = "Shapes must match exactly; nothing is broadcast."


class WrongDtype(Invalid):
    problem, title = "wrong-dtype", "A tensor's dtype cannot be used here"
    hint = "Cast it to one that can."


class WrongRows(Invalid):
    problem, title = "wrong-rows", "The rows of a table are not named as they must be"
    hint = "Send the gradients [k, …] of some rows beside their numbers, I64 [k], under <table>#rows."


class WrongScale(Invalid):
    problem, title = "wrong-scale", "The scales of an I8 gradient do not fit"
    hint = "Send I8 beside <tensor>#scale, F32 [⌈n / 256⌉]: element i is tensor[i] · scale[⌊i / 256⌋]."


class NonFinite(Invalid):
    problem, title = "non-finite", "A tensor holds NaN or infinity"
    hint = "Skip this batch or lower the learning rate; the model is unchanged."


class SequenceReused(Invalid):
    problem, title = "sequence-reused", "This name was used for another push"
    hint = "A retry must repeat the same body; a new push needs the next sequence or a new key."


class Unavailable(GradledgerError):
    problem, title, status = "unavailable", "Not now", 503
    retry_after_s: ClassVar[int] = 1


class TooManyStreams(Unavailable):
    problem, title = "too-many-streams", "The model's events are watched by as many as this replica serves"
    hint = "Close a stream, or ask another replica."
    retry_after_s = 5


class StoreUnavailable(Unavailable):
    problem, title = "store-unavailable", "The server that holds the log does not answer"
    hint = "Repeat the same request; a push with a sequence or a key counts once however often it is sent."


class StoreFull(Unavailable):
    problem, title, status = "store-full", "The server that holds the log is out of memory", 507
    hint = "Raise its maxmemory or delete models."


class DeviceFull(Unavailable):
    problem, title, status = "device-full", "The GPU has no memory left", 507
    hint = "Delete models, serve this one elsewhere, or start with --device cpu."


class ModelQuarantined(Unavailable):
    problem, title = "model-quarantined", "The model's log cannot be replayed"
    hint = "Read the service's log: it names the entry. The other models are not affected."


class MalformedRecord(GradledgerError):
    problem, title = "malformed-record", "A record of the log cannot be read"


class WrongSetting(GradledgerError):
    problem, title = "wrong-setting", "A setting of the service cannot be used"


class StoreUnsuitable(GradledgerError):
    problem, title = "store-unsuitable", "The Redis server cannot keep the promises asked of it"


class DeviceUnavailable(GradledgerError):
    problem, title = "device-unavailable", "The GPU asked for cannot be used"
    hint = "Install CuPy for your CUDA version and check the driver, or start with --device cpu."
