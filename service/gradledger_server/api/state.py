"""/v1/models/{model}/state: everything the service holds of a model, readable by any safetensors tool."""

from __future__ import annotations

from fastapi import APIRouter, Request
from starlette.responses import Response

from gradledger_server.api import documents
from gradledger_server.api.context import ModelName, Served
from gradledger_server.api.forms import form_but_json
from gradledger_server.api.problems import responses as problems
from gradledger_server.api.query import NO_QUERY
from gradledger_server.api.responses import Parts, version
from gradledger_server.replica import Mailbox
from gradledger_server.wire import safetensors

router = APIRouter(tags=["state"], dependencies=[NO_QUERY])


@router.get("/v1/models/{model}/state", responses=documents.TENSORS | problems(404, 406, 503))
async def state(request: Request, model: ModelName, served: Served) -> Response:
    """Parameters (`param/<name>`), slots (`<slot>/<name>`) and update counts (`t/<name>`) of one step."""
    _, media_type = form_but_json(request, "the state is bytes")

    async def work(mailbox: Mailbox) -> Response:
        published, image = await served.replica.copy(mailbox)
        # Of 20,000 tensors with their slots the header alone takes a second.
        header = await served.replica.thread(lambda: safetensors.header(image.tensors))
        return Parts([header, *image.parts], media_type, version(published))

    answer: Response = await served.replica.on(model, work)
    return answer
