"""One model in memory, and how it changes.

    commit:  3/6 log: pushes become durable        store.append
             4/6 apply: they become updates        playback → machine.apply
    save:    5/6 snapshot: the state becomes durable, and the log is trimmed to it

Everything here is synchronous and runs on worker threads, one at a time. `quick.py` does the same on the
event loop, for small models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import wait

from gradledger_server.blocks import Blocks
from gradledger_server.entries import Entry
from gradledger_server.errors import Conflict, GradledgerError, PreconditionFailed
from gradledger_server.kernels.device import Device
from gradledger_server.machine import arrivals, image
from gradledger_server.machine.model import Model
from gradledger_server.replica.answers import Answer, answer_of, or_raise, own_entries, refusal
from gradledger_server.replica.draft import Draft
from gradledger_server.replica.foresight import Foresight
from gradledger_server.replica.laps import end_all
from gradledger_server.replica.lock import Lock
from gradledger_server.replica.playback import Own
from gradledger_server.replica.published import touched_rows
from gradledger_server.replica.sight import Sight
from gradledger_server.store.contract import Append, Appended, Moved, Outcome, Seen, Snapshot, Store
from gradledger_server.wire import records, safetensors

AHEAD_BYTES = 1 << 20  # of a push that is worth a thread of its own
ATTEMPTS = 100  # of a compare-and-set against other replicas before giving up


class Hot(Sight):
    """A model kept in memory, and pushed to."""

    def __init__(self, name: str, epoch: str, store: Store, device: Device, blocks: Blocks) -> None:
        super().__init__(name, epoch, store, device, blocks)
        self._saving = Lock()
        self.foresight = Foresight(self.playback)

    def commit(self, drafts: Sequence[Draft], *, alone: bool = False) -> list[Answer | GradledgerError]:
        """Appends the drafts in one round trip, applies them in log order, and answers each.

        `alone`: the state is where the log ends, and nobody else writes to it. A refusal is an item of the
        answer. A failure of the store is raised, and nobody knows then what was appended: the next call
        finds out, because it plays the log from where this state ends.
        """
        with self.lock:
            if any(draft.objection(self.model) for draft in drafts):
                self._catch_up()  # another replica may have made it right
            objections = [draft.objection(self.model) for draft in drafts]
            admitted = [d for d, objection in zip(drafts, objections, strict=True) if objection is None]
            answers = iter(self._append(admitted, alone=alone))
            return [objection or next(answers) for objection in objections]

    def decide(self, choose: Callable[[Model], Entry | Draft | Answer | None]) -> Answer | None:
        """Appends what `choose` makes of the present state, only if nothing comes in between.

        `choose` may raise a refusal, or give an Answer or None when nothing is left to append.
        """
        with self.lock:
            for _ in range(ATTEMPTS):
                self._catch_up()
                chosen = choose(self.model)
                if chosen is None or isinstance(chosen, Answer):
                    return chosen
                draft = chosen if isinstance(chosen, Draft) else None
                record = chosen.record if isinstance(chosen, Draft) else records.to_record(chosen)
                chain = self.playback.chain
                wish = draft.wish(chain) if draft else Append(record, expected=chain)
                laps = [draft.laps] if draft else []
                end_all(laps, "queue")
                (result,) = self._store.append(self.epoch, [wish])
                end_all(laps, "append")
                if isinstance(result, Appended):
                    self._play(result.offset, own_entries([draft] if draft else [], [result]))
                    end_all(laps, "apply")
                    return (
                        or_raise(answer_of(self.playback, self.published, draft, result)) if draft else None
                    )
                if not isinstance(result, Moved | Seen):
                    raise refusal(self.name, result, draft)
        raise Conflict("other replicas kept changing the model", hint="Repeat the request.")

    def push_if(self, draft: Draft, if_match: str) -> Answer:
        """A push on the condition that the model is still at the version `if_match` names."""

        def choose(model: Model) -> Draft | Answer:
            if (known := draft.known(model)) is not None:
                return Answer(known, True, self.published, touched_rows(model, draft.gradient))
            self.require_version(if_match)
            if (objection := draft.objection(model)) is not None:
                raise objection
            return draft

        answer = self.decide(choose)
        assert answer is not None
        return answer

    def answer_again(self, draft: Draft, before: Answer) -> Answer:
        """What became of a push answered before, by now."""
        with self.lock:
            receipt = draft.known(self.model) or before.receipt
            return Answer(receipt, before.replayed, self.published, touched_rows(self.model, draft.gradient))

    def require_version(self, if_match: str | None) -> None:
        """Raises PreconditionFailed unless the ETag is the present one. For use inside `decide`."""
        asked = [tag.strip() for tag in (if_match or "*").split(",")]
        if "*" not in asked and self.published.etag not in asked:
            raise PreconditionFailed(
                f"the model is at {self.published.etag}; If-Match asks for {if_match}",
                got=if_match,
                current=self.published.etag,
            )

    @property
    def deadline_ms(self) -> int | None:
        """When `time_out` will have something to do, if nothing happens before."""
        return arrivals.next_deadline_ms(self.model)

    def time_out(self, now_ms: int) -> None:
        """Appends what the clock owes the log: leases that ran out, rounds that wait no longer.

        Whichever replica comes first does it; the others find it done.
        """
        while arrivals.overdue(self.model, now_ms) is not None:
            self.decide(lambda model: arrivals.overdue(model, now_ms))

    def save(self) -> bool:
        """5/6 snapshot: the state becomes durable and the log is trimmed to it; False if nothing was new."""
        with self._saving:
            snapshot = self._unsaved()
            if snapshot is None:
                return False
            saved = self._store.save(self.epoch, snapshot)
            with self.lock:
                self._catch_up()
            return saved

    def _unsaved(self) -> Snapshot | None:
        """The state as it is now, if it is not saved yet. Nothing but the snapshot itself holds its parts."""
        with self.lock:
            self._catch_up()  # another replica may have saved this very state
            played = self.playback
            if played.saved == played.applied:
                return None
            offset, chain, taken = played.applied, played.chain, image.copy(self.model)
        parts = [memoryview(safetensors.header(taken.tensors)), *(part.data for part in taken.parts)]
        return Snapshot(offset, chain, records.to_json(taken.facts), parts)

    def _append(self, drafts: Sequence[Draft], *, alone: bool) -> list[Answer | GradledgerError]:
        if not drafts:
            self._catch_up()
            return []
        large = len(drafts) == 1 and drafts[0].record.payload.nbytes >= AHEAD_BYTES
        if alone and large and self.foresight.is_next(drafts[0]):
            return [self._append_and_apply(drafts[0])]
        wishes, laps = [draft.wish() for draft in drafts], [draft.laps for draft in drafts]
        end_all(laps, "queue")
        results = self._store.append(self.epoch, wishes)
        end_all(laps, "append")
        return self.conclude(drafts, results)

    def _append_and_apply(self, draft: Draft) -> Answer | GradledgerError:
        """Side by side, on two threads: by the time a large push is written down, its step has been made."""
        foreseen = self.foresight.foresee(draft)
        draft.laps.end("queue")
        applied = self.foresight.begin(draft, foreseen, self._publish)
        try:
            (result,) = self._store.append(self.epoch, [draft.wish()])
        except BaseException:
            wait([applied])
            self.playback.give_up()
            raise
        draft.laps.end("append")
        wait([applied])
        draft.laps.end("apply")
        if result != foreseen or applied.exception() is not None:
            (answer,) = self.anew([draft], [result])
            return answer
        self.published = applied.result().published
        return applied.result()

    def ahead(self, draft: Draft, foreseen: Appended) -> Answer:
        """What a push on its way to the log will come to; what is published does not change yet."""
        return self.foresight.apply(draft, foreseen, self._publish)

    def anew(self, drafts: Sequence[Draft], results: Sequence[Outcome]) -> list[Answer | GradledgerError]:
        """Forgets a state that foresaw something else, and answers each draft by what the log says.

        The caller holds the lock.
        """
        self.playback.give_up()
        return self.conclude(drafts, results) if drafts else []

    def conclude(self, drafts: Sequence[Draft], results: Sequence[Outcome]) -> list[Answer | GradledgerError]:
        """Plays what was appended of the drafts, and answers each. The caller holds the lock."""
        self.playback.receipts.clear()
        if own := own_entries(drafts, results):
            self.playback.play(max(own), own)
        if len(own) < len(drafts) and (not own or any(isinstance(result, Seen) for result in results)):
            self.playback.catch_up()  # what was seen may lie behind what we appended
        laps = [draft.laps for draft in drafts]
        end_all(laps, "queue")
        self.published = self._publish()
        end_all(laps, "apply")
        return [
            answer_of(self.playback, self.published, draft, result)
            for draft, result in zip(drafts, results, strict=True)
        ]

    def _play(self, upto: int, own: Own) -> None:
        self.playback.receipts.clear()
        self.playback.play(upto, own)
        self.published = self._publish()
