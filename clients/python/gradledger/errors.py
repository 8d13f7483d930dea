"""Every way a call can fail, drawn as a tree.

    GradledgerError
    ├── ConnectionFailed            no answer came; a push may or may not have counted
    │   └── HandshakeFailed ─ CertificateRefused    not retried: waiting does not mend it
    ├── ClientClosed                asked after its end; nothing was sent
    ├── MalformedAnswer             what answered does not speak Gradledger
    └── Problem                     the service said no (application/problem+json)
        ├── Refused                      the request is wrong; nothing happened
        │   ├── MalformedBody, MalformedRequest
        │   ├── NotFound ─ ModelNotFound, TensorNotFound, ViewNotFound, RuleNotFound
        │   ├── MethodNotAllowed, NotAcceptable
        │   ├── Conflict ─ ModelExists, ParametersMissing, NoPlateau, SequenceGap, StaleGradient,
        │   │              NotAMember, WorkerAhead, WorkerQuarantined
        │   ├── LengthRequired, PreconditionFailed, BodyTooLarge, UnsupportedMediaType
        │   ├── Invalid ─ InvalidSpec, InvalidName, UnknownTensor, WrongShape, WrongDtype, WrongRows,
        │   │             WrongScale, NonFinite, SequenceReused
        │   └── RequestTimeout, TooManyRequests     retried
        ├── ServiceUnavailable           retried
        │   ├── StoreUnavailable, TooManyStreams    retried
        │   └── StoreFull, DeviceFull, ModelQuarantined   not retried: waiting does not mend them
        └── Internal                     something broke in the service

A problem's class is chosen by the slug that ends its `type`, which is the class's name in kebab case; a slug
this client does not know falls back to its HTTP status.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar


class GradledgerError(Exception):
    """The root. `tries` is how often the request was sent, `request_id` what the service's log calls it."""

    transient: ClassVar[bool] = False  # may the same request succeed a little later?
    hint: ClassVar[str] = ""  # the next move, where the service has not said one

    def __init__(
        self,
        detail: str,
        *,
        problem: Mapping[str, Any] | None = None,
        status: int | None = None,
        request_id: str | None = None,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.problem = dict(problem or {})
        self.status = status
        self.request_id = request_id
        self.retry_after_s = retry_after_s
        self.tries = 1

    def __str__(self) -> str:
        """What went wrong, how often it was tried, and what to do about it."""
        tried = "" if self.tries == 1 else f" ({self.tries} tries)"
        hint = self.problem.get("hint") or self.hint
        return f"{self.detail.rstrip('.')}{tried}. {hint}" if hint else f"{self.detail}{tried}"


class ConnectionFailed(GradledgerError):
    """No answer came in the time allowed for retries. The next push first asks what the service knows."""

    transient = True
    hint = "Is the service running, and is this its address?"


class HandshakeFailed(ConnectionFailed):
    """TLS did not come about, which waiting does not mend."""

    transient = False
    hint = "If the service speaks no TLS there, its address begins with http://."


class CertificateRefused(HandshakeFailed):
    """What answered did not prove that it is the service."""

    hint = (
        "Its certificate must bear the host's name as in the address, and an authority known here must have "
        "signed it: SSL_CERT_FILE names a file of them."
    )


class ClientClosed(GradledgerError):
    """The client was closed, and its models with it."""

    hint = "Go on within its `with` block, or make a new Client."


class MalformedAnswer(GradledgerError):
    """The answer is not what the API promises: is there a Gradledger service behind this URL?"""


class Problem(GradledgerError):
    """An RFC 9457 problem; `problem` holds all its members, such as `expected` of a sequence gap."""

    slug: ClassVar[str] = "about:blank"

    def __init_subclass__(cls) -> None:
        if "slug" not in cls.__dict__:
            cls.slug = re.sub(r"(?<!^)(?=[A-Z])", "-", cls.__name__).lower()


class Refused(Problem):
    pass


class MalformedBody(Refused):
    pass


class MalformedRequest(Refused):
    pass


class NotFound(Refused):
    pass


class ModelNotFound(NotFound):
    pass


class TensorNotFound(NotFound):
    pass


class ViewNotFound(NotFound):
    pass


class RuleNotFound(NotFound):
    pass


class ReceiptNotFound(NotFound):
    pass


class ScheduleNotFound(NotFound):
    pass


class TransformNotFound(NotFound):
    pass


class MethodNotAllowed(Refused):
    pass


class NotAcceptable(Refused):
    pass


class Conflict(Refused):
    pass


class ModelExists(Conflict):
    pass


class ParametersMissing(Conflict):
    pass


class NoPlateau(Conflict):
    pass


class StaleGradient(Conflict):
    """The gradient's base is further back than the model allows: pull, compute it anew, push it."""


class NotAMember(Conflict):
    """The model's rounds wait for members only: join first."""

    slug = "not-a-member"


class WorkerQuarantined(Conflict):
    """None of the worker's gradients count until it is let out: `Model.release`."""


class WorkerAhead(Conflict):
    """The worker's last push still waits for the others."""


class SequenceGap(Conflict):
    """A push is missing before this one: the service lost one it had acknowledged, or another process
    pushes under this worker's name. The next push continues at the sequence the service expects."""


class LengthRequired(Refused):
    pass


class PreconditionFailed(Refused):
    pass


class BodyTooLarge(Refused):
    pass


class UnsupportedMediaType(Refused):
    pass


class Invalid(Refused):
    pass


class InvalidSpec(Invalid):
    pass


class InvalidName(Invalid):
    pass


class UnknownTensor(Invalid):
    pass


class WrongShape(Invalid):
    pass


class WrongDtype(Invalid):
    pass


class WrongRows(Invalid):
    slug = "wrong-rows"


class WrongScale(Invalid):
    pass


class NonFinite(Invalid):
    pass


class SequenceReused(Invalid):
    """The sequence stands for another body: does another process push under this worker's name?"""


class RequestTimeout(Refused):
    slug = "request-timeout"
    transient = True


class TooManyRequests(Refused):
    transient = True


class ServiceUnavailable(Problem):
    slug = "unavailable"
    transient = True


class TooManyStreams(ServiceUnavailable):
    pass


class StoreUnavailable(ServiceUnavailable):
    pass


class StoreFull(ServiceUnavailable):
    transient = False


class DeviceFull(ServiceUnavailable):
    transient = False


class ModelQuarantined(ServiceUnavailable):
    transient = False


class Internal(Problem):
    pass


def _family(root: type[Problem]) -> Iterator[type[Problem]]:
    yield root
    for child in root.__subclasses__():
        yield from _family(child)


_BY_SLUG = {kind.slug: kind for child in Problem.__subclasses__() for kind in _family(child)}
_BY_STATUS: dict[int, type[Problem]] = {
    404: NotFound,
    408: RequestTimeout,
    409: Conflict,
    412: PreconditionFailed,
    413: BodyTooLarge,
    422: Invalid,
    429: TooManyRequests,
    # A proxy in front of the service says 502 or 504 where the service itself would say 503.
    502: ServiceUnavailable,
    503: ServiceUnavailable,
    504: ServiceUnavailable,
}


def problem_from(status: int, body: bytes, request_id: str | None, retry_after_s: float) -> Problem:
    """The typed error for a non-2xx answer, whoever wrote it: the service, or a proxy before it."""
    try:
        members = json.loads(body)
    except ValueError:
        members = None
    if not isinstance(members, dict):
        members = {
            "status": status,
            "detail": f"HTTP {status}: {body[:200].decode(errors='replace').strip()}",
        }
    kind = _BY_SLUG.get(str(members.get("type", "")).rpartition("/")[2])
    if kind is None:
        kind = _BY_STATUS.get(status, Refused if 400 <= status < 500 else Internal)
    return kind(
        str(members.get("detail") or members.get("title") or f"HTTP {status}"),
        problem=members,
        status=status,
        request_id=str(members["request_id"]) if "request_id" in members else request_id,
        retry_after_s=retry_after_s,
    )
