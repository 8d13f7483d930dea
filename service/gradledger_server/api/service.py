"""/v1, health, metrics and the catalogue of problems: what the service says of itself."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.responses import Response

from gradledger_server import __version__
from gradledger_server.api import documents, problems, responses
from gradledger_server.api.context import Served
from gradledger_server.api.forms import MEDIA_TYPES
from gradledger_server.errors import GradledgerError, NotFound

router = APIRouter(tags=["service"])


@router.get("/v1", responses=documents.FACTS | problems.responses(503))
async def facts(served: Served) -> Response:
    """What this service is, where it computes, and what its log survives."""
    store = await served.replica.facts()
    return responses.json(
        {
            "name": "gradledger",
            "version": __version__,
            "device": served.replica.device.name,
            "durability": store.durability,
            "server": {"name": store.server, "version": store.version, "note": store.note},
            "media_types": list(MEDIA_TYPES),
            "limits": {
                "max_body_bytes": served.limits.max_body_bytes,
                "max_json_bytes": served.limits.max_json_bytes,
            },
            "links": {
                "models": "/v1/models",
                "optimizers": "/v1/optimizers",
                "schedules": "/v1/schedules",
                "transforms": "/v1/transforms",
                "docs": "/docs",
                "openapi": "/openapi.json",
                "ready": "/readyz",
                "live": "/livez",
                "metrics": "/metrics",
            },
        }
    )


@router.get("/livez", responses=documents.HEALTH)
async def alive() -> Response:
    """200 while the process answers."""
    return responses.json({"status": "alive"})


@router.get("/readyz", responses=documents.HEALTH | problems.responses(503))
async def ready(served: Served) -> Response:
    """200 when the log can be written; 503 says why not."""
    store = await served.replica.ready()
    return responses.json({"status": "ready", "durability": store.durability})


@router.get("/metrics", responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
async def metrics(served: Served) -> Response:
    """Prometheus metrics, summed over the processes behind the port."""
    served.metrics.note(served.replica)
    return Response(served.metrics.tell(), media_type=CONTENT_TYPE_LATEST)


@router.get("/problems/{slug}", responses=documents.PROBLEM_TYPE | problems.responses(404))
async def describe_problem(slug: str) -> Response:
    """What a problem type means and what to do about it."""
    for kind in problems.catalogue():
        if kind.problem == slug:
            return responses.json(_explained(kind))
    raise NotFound(f"there is no problem type {slug[:80]!r}")


def _explained(kind: type[GradledgerError]) -> dict[str, Any]:
    return {
        "type": f"/problems/{kind.problem}",
        "title": kind.title,
        "status": kind.status,
        "hint": kind.hint,
    }
