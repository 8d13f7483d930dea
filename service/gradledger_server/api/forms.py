"""Which form a body has and which form the answer takes: JSON or safetensors."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Literal

from fastapi import Request

from gradledger_server.api.whole import once
from gradledger_server.errors import MalformedRequest, NotAcceptable, UnsupportedMediaType

Form = Literal["json", "safetensors"]
Chosen = tuple[Form, str]  # a form and the media type it goes by

JSON = "application/json"
SAFETENSORS = "application/vnd.safetensors"  # not registered with IANA; so are all its other names
MEDIA_TYPES: dict[str, Form] = {
    JSON: "json",
    SAFETENSORS: "safetensors",
    "application/x-safetensors": "safetensors",
    "application/octet-stream": "safetensors",
}
MAX_WAIT_S = 60

_QUALITY = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")


@once
def form_of_body(request: Request) -> Form:
    """The form the Content-Type names; raises UnsupportedMediaType."""
    coding = request.headers.get("content-encoding", "identity")
    if coding.strip().lower() != "identity":
        raise UnsupportedMediaType(
            f"Content-Encoding is {coding[:80]!r}; bodies are read as they are",
            hint="Send the body uncompressed; BF16 takes half the bytes of F32, I8 with scales a quarter.",
        )
    given = request.headers.get("content-type", "")
    media_type = given.partition(";")[0].strip().lower()
    form = MEDIA_TYPES.get(media_type)
    if form is None:
        raise UnsupportedMediaType(
            f"Content-Type is {given[:80]!r}; expected one of {', '.join(MEDIA_TYPES)}",
            expected=list(MEDIA_TYPES),
        )
    return form


@once
def form_of_answer(request: Request, default: Form) -> Chosen:
    """The form and media type the Accept header likes best (RFC 9110, 12.5.1).

    Between equals the one it names itself wins, then `default`. Raises NotAcceptable.
    """
    return _form_of_answer(_listed(request, "accept") or "*/*", default, None)


def form_but_json(request: Request, why: str) -> Chosen:
    """The same where JSON is not offered, and why. Raises NotAcceptable."""
    return _form_of_answer(_listed(request, "accept") or "*/*", "safetensors", why)


@lru_cache(maxsize=256)
def _form_of_answer(accept: str, default: Form, no_json: str | None) -> Chosen:
    ranges = [_range(item) for item in accept.split(",") if item.strip()]
    offered = [name for name, form in MEDIA_TYPES.items() if not (no_json and form == "json")]
    offered.sort(key=lambda name: MEDIA_TYPES[name] != default)
    liked = {name: _liking(name, ranges) for name in offered}
    best = max(offered, key=lambda name: liked[name])
    if liked[best][0] <= 0:
        raise NotAcceptable(
            f"Accept is {accept[:200]!r}; offered are {', '.join(offered)}"
            + (f": {no_json}" if no_json else ""),
            hint=f"Accept {SAFETENSORS}." if no_json else None,
            offered=offered,
        )
    return MEDIA_TYPES[best], best


@once
def preferences(request: Request) -> Mapping[str, str]:
    """The Prefer header's preferences (RFC 7240), such as {"return": "minimal", "wait": "20"}."""
    return _preferences(_listed(request, "prefer"))


@lru_cache(maxsize=256)
def _preferences(prefer: str) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for item in prefer.split(","):
        name, _, value = item.partition(";")[0].strip().partition("=")
        if name:
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


@once
def wait_s(request: Request) -> int:
    """Seconds the client would wait for news; 0 if it did not say, at most MAX_WAIT_S."""
    value = preferences(request).get("wait", "0")
    if not (value.isascii() and value.isdigit()):
        raise MalformedRequest(f"Prefer: wait is {value[:80]!r}; expected whole seconds")
    return min(int(value[:9]), MAX_WAIT_S)


def matches(etag: str, if_none_match: str | None) -> bool:
    """Whether If-None-Match names the present version."""
    if if_none_match is None:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in tags or etag in tags


def _listed(request: Request, name: str) -> str:
    """A list header's value, however many lines it came in."""
    return ", ".join(request.headers.getlist(name))


def _range(item: str) -> tuple[str, float]:
    """A media range of the Accept header and its quality; an unreadable quality is none."""
    media_range, *parameters = (part.strip() for part in item.lower().split(";"))
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name == "q":
            return media_range, float(value) if _QUALITY.fullmatch(value) else 0.0
    return media_range, 1.0


def _liking(name: str, ranges: Sequence[tuple[str, float]]) -> tuple[float, int]:
    """How much the Accept header likes a media type, by the narrowest range that holds it, and how narrow."""
    widths = ("*/*", name.partition("/")[0] + "/*", name)
    found = [(widths.index(wide), q) for wide, q in ranges if wide in widths]
    narrowness, q = max(found, default=(0, 0.0))
    return q, narrowness
