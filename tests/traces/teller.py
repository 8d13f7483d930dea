"""Tells a golden story: reads its commands, lets a world live them, and writes down what happened.

    # a remark                                        is kept as it stands
    push worker=a sequence=1 base=0 w=[1 0]           commands, one a line
    ----
    offset 2  step 1  w=[0.5 1]                       what happened, a line for each

A story has one model, `m`, and by default one replica, `one`; `on=two` speaks to the other. Lists are
tensors; what a push does not say, its worker did not say. The clock stands still until somebody waits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gradledger_server.errors import GradledgerError, ModelNotFound
from gradledger_server.machine.receipts import Receipt
from gradledger_server.replica import Answer, listed, roster
from gradledger_server.store.contract import Append, Store
from gradledger_server.store.memory import MemoryStore
from gradledger_server.wire import records
from tests.replica.world import World, state_digest

EPOCH = re.compile(r"\b[0-9a-f]{16}\b")
WORD = re.compile(r"([\w.]+)=(\[[^\]]*\]|\S+)")


def retell(path: Path) -> str:
    """The story as it goes today."""
    teller, told = Teller(), []
    for paragraph in path.read_text().strip().split("\n\n"):
        commands = paragraph.partition("\n----")[0].splitlines()
        lines = [teller.obey(line) for line in commands if not line.startswith("#")]
        told.append("\n".join([*commands, *(["----", *lines] if lines else [])]))
    return "\n\n".join(told) + "\n"


@dataclass
class Said:
    """A command's words: the replica spoken to, tensors, and everything else as text."""

    replica: str
    tensors: dict[str, NDArray[Any]]
    facts: dict[str, str]


class Server:
    """A store that can lose its last entries, as a server does that promised durability and has none."""

    def __init__(self) -> None:
        self.store: Store = MemoryStore()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)

    def lose(self, count: int) -> None:
        """Rebuilds the store without its last entries."""
        epoch = self.store.find("m")
        assert epoch is not None
        first, *others = self.store.read(epoch, 0)
        self.store = MemoryStore()
        self.store.create("m", epoch, first.record)
        for logged in others[: len(others) - count]:
            facts = records.from_json(logged.record.meta)
            worker, key = facts.get("worker"), facts.get("key")
            named = f"w:{worker}" if worker else f"k:{key}" if key else None
            sequence = facts["sequence"] if worker else 1 if key else None
            self.store.append(epoch, [Append(logged.record, named, sequence)])


class Teller:
    """One world; `obey` answers what a command brought about."""

    def __init__(self) -> None:
        self._server = Server()
        self._world = World(self._server)
        self._last: tuple[dict[str, NDArray[Any]], dict[str, Any]] = {}, {}

    def obey(self, line: str) -> str:
        """The line that follows from the command."""
        verb, _, rest = line.partition(" ")
        words = dict(WORD.findall(rest))
        tensors = {name: _array(text) for name, text in words.items() if text.startswith("[")}
        facts = {name: text for name, text in words.items() if name not in tensors}
        command: Callable[[Said], str] = getattr(self, f"_{verb.rstrip(';')}")
        try:
            return command(Said(facts.pop("on", "one"), tensors, facts))
        except GradledgerError as refusal:
            return f"{refusal.problem}: {EPOCH.sub('epoch', refusal.detail)}"

    def _create(self, said: Said) -> str:
        """rule=… and its hyperparameters; w=[1 1] gives values, w=2 declares two numbers to be uploaded;
        clip_value.limit=1 sets a transform, sync.mode=bsp how pushes wait for each other."""
        shapes = {name: array.shape for name, array in said.tensors.items()}
        shapes |= {name: (int(said.facts.pop(name)),) for name in list(said.facts) if len(name) == 1}
        if not self._world.create("m", shapes, said.tensors or None, **_spec(said.facts)):
            return "the name is taken"
        self._world.forget("m", said.replica)
        return self._shown(said.replica)

    def _push(self, said: Said) -> str:
        self._last = said.tensors, said.facts
        return self._send(said.replica, said.tensors, said.facts)

    def _repeat(self, said: Said) -> str:
        """The last push once more; with tensors, another body under the same name."""
        gradient, facts = self._last
        return self._send(said.replica, said.tensors or gradient, facts)

    def _send(self, replica: str, gradient: dict[str, NDArray[Any]], facts: dict[str, str]) -> str:
        named: dict[str, Any] = {
            name: int(text) if name in ("sequence", "base") else text for name, text in facts.items()
        }
        if "weight" in named:
            named["weight"] = float(named["weight"])
        if "if_match" in named:
            named["if_match"] = f'"{self._world.hot("m", replica).epoch}.{named["if_match"]}"'
        return self._receipt(replica, self._world.push("m", gradient, replica, **named))

    def _upload(self, said: Said) -> str:
        self._world.upload("m", said.tensors, said.replica)
        return self._shown(said.replica)

    def _configure(self, said: Said) -> str:
        self._world.configure("m", _spec(said.facts), said.replica)
        return self._shown(said.replica)

    def _join(self, said: Said) -> str:
        self._world.join("m", said.facts["worker"], said.replica)
        return self._round(said)

    def _leave(self, said: Said) -> str:
        self._world.leave("m", said.facts["worker"], said.replica)
        return self._round(said)

    def _quarantine(self, said: Said) -> str:
        """`quarantine worker=a`, and `release worker=a`."""
        self._world.quarantine("m", said.facts["worker"], said.replica, begins=True)
        return self._round(said)

    def _release(self, said: Said) -> str:
        self._world.quarantine("m", said.facts["worker"], said.replica, begins=False)
        return self._round(said)

    def _round(self, said: Said) -> str:
        """Who takes part and who waits."""
        hot = self._world.hot("m", said.replica)
        hot.look()
        told = roster.told(hot.model)
        standing = {each["worker"]: each["membership"] for each in told["workers"]}
        members = " ".join(
            name if membership == "member" else f"({name})"
            for name, membership in standing.items()
            if membership is not None
        )
        waiting = " ".join(told["round"]["waiting"])
        quarantined = " ".join(told["guard"]["quarantined"])
        return (
            f"step {hot.model.step}  mode {told['round']['mode']}  round {told['round']['number']}"
            f"  members {members or 'none'}  waiting {waiting or 'none'}"
            + (f"  quarantined {quarantined}" if quarantined else "")
        )

    def _wait(self, said: Said) -> str:
        """`wait ms=500`: time goes by, and the replica's alarm rings if it is due."""
        self._world.now_ms += int(said.facts["ms"])
        hot = self._world.hot("m", said.replica)
        known = hot.playback.applied
        due_ms = hot.deadline_ms
        if due_ms is None or due_ms > self._world.now_ms:
            return f"{self._world.now_ms} ms  nothing is due"
        self._world.time_out("m", said.replica)
        logged = [
            f"{facts['offset']}: {facts['kind']} {facts.get('worker', facts.get('round'))}"
            f" ({facts['reason']})"
            for facts in listed(hot, known, 100).entries
            if "reason" in facts
        ]
        return "  ".join([f"{self._world.now_ms} ms", *logged, self._shown(said.replica).partition("  ")[2]])

    def _fate(self, said: Said) -> str:
        """What became of a push, as its worker would ask."""
        hot = self._world.hot("m", said.replica)
        hot.look()
        return _told(hot.receipt(said.facts["worker"], int(said.facts["sequence"])))

    def _look(self, said: Said) -> str:
        return self._shown(said.replica)

    def _snapshot(self, said: Said) -> str:
        if not self._world.hot("m", said.replica).save():
            return "nothing new to save"
        head = self._head()
        return f"saved {head.saved}  entries left {head.offset - head.saved}"

    def _crash(self, said: Said) -> str:
        """`crash; replay`: the replica's memory goes, and comes back from the store."""
        before = self._world.hot("m", said.replica)
        digest = state_digest(before.model)
        self._world.forget("m", said.replica)
        played = self._world.hot("m", said.replica).playback
        came_back = "same" if state_digest(played.model) == digest else "another state"
        snapshot = f"snapshot {played.saved or 'none'}  entries {played.applied - played.saved}"
        return f"{snapshot}  {self._shown(said.replica).partition('  ')[2]}  {came_back}"

    def _delete(self, said: Said) -> str:
        return "deleted" if self._world.delete("m", said.replica) else "there was nothing to delete"

    def _reopen(self, said: Said) -> str:
        """The replica asks for the name again, as it does when its model is gone."""
        self._world.forget("m", said.replica)
        return self._shown(said.replica)

    def _lose(self, said: Said) -> str:
        self._server.lose(int(said.facts["entries"]))
        head = self._head()
        return f"the log ends at offset {head.offset}"

    def _head(self) -> Any:
        epoch = self._server.find("m")
        if epoch is None:
            raise ModelNotFound("there is no model 'm'")
        return self._server.head(epoch)

    def _shown(self, replica: str) -> str:
        hot = self._world.hot("m", replica)
        published = hot.look()
        return f"offset {hot.playback.applied}  step {published.step}  {self._values(replica)}"

    def _values(self, replica: str) -> str:
        published = self._world.hot("m", replica).published
        return "  ".join(
            f"{name}=?" if name in published.missing else f"{name}={_text(array)}"
            for name, array in published.arrays().items()
        )

    def _receipt(self, replica: str, answer: Answer) -> str:
        told = _told(answer.receipt, replayed=answer.replayed)
        return f"{told}  now step {answer.published.step}  {self._values(replica)}"


def _told(receipt: Receipt, *, replayed: bool = False) -> str:
    fate = f"{receipt.fate}, replayed" if replayed else receipt.fate
    where = f"offset {receipt.offset}  step {receipt.step}"
    together = "" if receipt.round is None else f"  round {receipt.round}"
    stale = "" if receipt.staleness is None else f"  staleness {receipt.staleness}"
    clipped = "" if receipt.clip_factor in (None, 1.0) else f"  clipped {receipt.clip_factor:g}"
    return f"{fate}  {where}{together}{stale}{clipped}"


def _spec(facts: dict[str, str]) -> dict[str, Any]:
    """The optimizer's fields as they are; `clip_value.limit` is a transform's setting, `sync.mode` sync's,
    and `guard.outliers.factor` the guard's."""
    spec: dict[str, Any] = {"optimizer": {}, "transforms": {}}
    for name, text in facts.items():
        transform, _, setting = name.rpartition(".")
        if transform == "sync":
            spec.setdefault("sync", {})[setting] = _whole_or_text(text)
            continue
        if transform == "guard.outliers":
            spec.setdefault("guard", {}).setdefault("outliers", {})[setting] = int(text)
            continue
        target = spec["transforms"].setdefault(transform, {}) if transform else spec["optimizer"]
        target[setting] = text if name == "rule" else float(text)
    return spec


def _whole_or_text(text: str) -> int | str:
    return int(text) if text.isdigit() else text


def _array(text: str) -> NDArray[np.float32]:
    return np.array([float(number) for number in text.strip("[]").split()], np.float32)


def _text(array: NDArray[Any]) -> str:
    return f"[{' '.join(f'{number:g}' for number in array)}]"
