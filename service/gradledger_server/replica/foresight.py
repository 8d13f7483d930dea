"""What a push will come to, worked out while the log is still writing it down.

Who has the server alone (`AsyncLog.tenure`) knows where the log ends, who pushed last, and so what the log
will say of the next entry; who shares it may guess (`solitude.py`). What is worked out is shown to nobody
before the log has said that very thing. If it says another, the state is given up and played from the log
once more (`Hot.anew`).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from gradledger_server.entries import Logged, chained
from gradledger_server.replica.answers import Answer
from gradledger_server.replica.draft import Draft
from gradledger_server.replica.laps import Laps
from gradledger_server.replica.playback import Playback
from gradledger_server.replica.published import Published, touched_rows
from gradledger_server.store.contract import Appended

Publish = Callable[[], Published]  # of the model, which holds us and is not held: it goes with its last user

_MEANWHILE = ThreadPoolExecutor(thread_name_prefix="meanwhile")


class Foresight:
    """Of one model. Whoever uses it holds the model's lock, until the log has spoken."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback

    def is_next(self, draft: Draft) -> bool:
        """Whether the push is new, so far as the model knows: its worker's next, or nameless."""
        push, identity = draft.push, draft.identity
        if identity is None:
            return True
        return push.worker is not None and push.sequence == self._playback.model.receipts.last(identity) + 1

    def foresee(self, draft: Draft, behind: Appended | None = None) -> Appended:
        """What the log will say of such a push, `behind` another that is not applied yet."""
        playback = self._playback
        offset, chain = (behind.offset, behind.chain) if behind else (playback.applied, playback.chain)
        return Appended(offset + 1, chained(chain, draft.record))

    def apply(self, draft: Draft, foreseen: Appended, publish: Publish) -> Answer:
        """Makes the step, and the answer that will be true then. Raises ModelQuarantined."""
        logged = Logged(foreseen.offset, foreseen.chain, draft.record)
        receipt = self._playback.play_ahead(logged, draft)
        return Answer(receipt, False, publish(), touched_rows(self._playback.model, draft.gradient))

    def begin(self, draft: Draft, foreseen: Appended, publish: Publish) -> Future[Answer]:
        """The same on another thread. What it takes there is not on the push's stopwatch."""
        return _MEANWHILE.submit(self.apply, draft._replace(laps=Laps()), foreseen, publish)
