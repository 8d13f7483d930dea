"""What the log still holds, for whoever reads it."""

from __future__ import annotations

from typing import Any, NamedTuple

from gradledger_server.entries import Logged
from gradledger_server.machine.model import Model
from gradledger_server.replica.hot import Hot
from gradledger_server.wire import records


class Listing(NamedTuple):
    """Entries, oldest first, as JSON; where the log ended when they were read, and what a snapshot holds."""

    entries: list[dict[str, Any]]
    applied: int
    saved: int


def listed(hot: Hot, after: int, limit: int) -> Listing:
    """What the log still holds behind `after`: each entry's facts, and a push's fate if known."""

    def read(hot: Hot) -> Listing:
        played = hot.playback
        entries = [_facts(hot.model, logged) for logged in played.read_again(after)[:limit]]
        return Listing(entries, played.applied, played.saved)

    return hot.seen(read)


def _facts(model: Model, logged: Logged) -> dict[str, Any]:
    facts = {"offset": logged.offset, **records.from_json(logged.record.meta), "chain": logged.chain}
    if facts["kind"] == "push" and facts["worker"] is not None:
        known = model.receipts.find(f"w:{facts['worker']}", facts["sequence"], facts["digest"])
        if known is not None and known.fate != "repeated":
            facts |= {"fate": known.fate, "step": known.step, "lr": known.lr}
    return facts
