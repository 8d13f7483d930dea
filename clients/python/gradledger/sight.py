"""The parameters as they were last seen here: those that gradients are computed at, and the other views."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from gradledger import tensors
from gradledger.answer import Answer
from gradledger.asking import PARAMETERS, TRAIN, patient, viewed
from gradledger.landing import Landing
from gradledger.rows import joined
from gradledger.seen import Seen
from gradledger.tensors import Params
from gradledger.transport import Transport


class Sight:
    """Of the model at `path`. Threads may share it."""

    def __init__(self, transport: Transport, path: str) -> None:
        self._transport = transport
        self._path = path
        self._seeing = threading.Lock()
        self._seen: Seen | None = None
        self._views: dict[str, Seen] = {}

    @property
    def step(self) -> int | None:
        """Of the newest parameters, None before the first."""
        return None if self._seen is None else self._seen.step

    @property
    def order(self) -> tuple[str, ...]:
        """Of the dense tensors in the service's bodies, as far as it is known."""
        return () if self._seen is None else self._seen.order

    def pull(self, view: str = TRAIN, wait_s: float = 0.0, landing: Landing | None = None) -> Params:
        """The current parameters, after at most `wait_s` newer ones; asked for only if they have changed."""
        seen = self._seen if view == TRAIN else self._views.get(view)
        if seen is not None and (seen.params is not None or wait_s):
            answer = self._pull({"If-None-Match": seen.etag}, view, wait_s, landing)
            if answer.status != 304:
                return self.see(answer, view, landing)
            if seen.params is not None:
                return _handed_out(seen.params, landing)
        return self.see(self._pull({}, view, 0.0, landing), view, landing)

    def newest(self, landing: Landing | None = None) -> Params:
        """Those seen last, pulled if there are none."""
        seen = self._seen
        if seen is None or seen.params is None:
            return self.see(self._pull({}, TRAIN, 0.0, landing), landing=landing)
        return _handed_out(seen.params, landing)

    def see(self, answer: Answer, view: str = TRAIN, landing: Landing | None = None) -> Params:
        """An answer's parameters, remembered if no newer ones were seen."""
        if landing is None:
            answer.body.flags.writeable = False
            params = joined(tensors.decode(answer.body))
        else:
            params = landing.params()
        seen = Seen.of(answer.headers.get("ETag", ""), params, ours=landing is None)
        with self._seeing:
            if view != TRAIN:
                self._views[view] = seen
            elif seen.replaces(self._seen):
                self._seen = seen
        return params

    def forget(self) -> None:
        """All that was seen."""
        with self._seeing:
            self._seen = None
            self._views.clear()

    def _pull(self, headers: Mapping[str, str], view: str, wait_s: float, landing: Landing | None) -> Answer:
        return self._transport.send(
            "GET",
            f"{self._path}/parameters",
            query=viewed(view),
            headers=patient({**PARAMETERS, **headers}, wait_s),
            wait_s=wait_s,
            landing=landing,
        )


def _handed_out(params: Params, landing: Landing | None) -> Params:
    return dict(params) if landing is None else landing.copy(params)
