"""The outer loop of one worker: it counts inner steps, and says when which fragment makes a round.

    turn      F times within `every` inner steps, at equal distances
    whose     the fragment that is furthest behind; of several, the first. Among workers in step this is
              0, 1, …, F-1, 0, …, and one that comes later, or was away, is in step with its first turn
    merge     after a round     local <- global + (local - local as it was pushed)
              after an overlap  local <- (1 - mixing) global + mixing local

Between a push and its answer a worker may go on: by plan, for `overlap` inner steps, or because the answer
was lost or the round lasts. What it learns meanwhile on top of a push is kept, and part of its next one.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, Unpack

from numpy.typing import NDArray

from gradledger.diloco.division import divide, groups_within, model_name, refuse_idle_groups
from gradledger.diloco.fragment import Fragment, Sent, Settled
from gradledger.diloco.local import Arrays, Local
from gradledger.diloco.options import NESTEROV, Options, require_known, require_sense
from gradledger.errors import ModelExists
from gradledger.receipt import Receipt
from gradledger.tensors import Params

LEASES_OF_PATIENCE = 2


class OuterLoop:
    """A context manager: it creates the model or takes it as it is, joins, pulls; at the end it leaves.

    `local` are the parameters to train, as arrays or wherever they live; the rest is in `Options`. Raises
    TypeError for options that there are none of or that are missing, ValueError for what does not fit,
    ModelExists if the model is there with another spec or division.
    """

    def __init__(self, local: Local | Mapping[str, NDArray[Any]], **options: Unpack[Options]) -> None:
        require_known(options)
        require_sense(options)
        self.local: Local = Arrays(local) if isinstance(local, Mapping) else local
        self.worker = options.get("worker") or f"w-{secrets.token_hex(8)}"
        self.inner_step = 0
        self.fragments: list[Fragment] = []
        self._every = options["every"]
        self._overlap = options.get("overlap", 0)
        self._mixing = options.get("mixing", 0.0)
        self._patience_s = options.get("patience_s")
        self._options = options
        self._leaving = ExitStack()
        self._takes_part = False

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            self.fragments = self._create()
            # All of them first: no round of any fragment may begin without this worker while it waits.
            memberships = [undo.enter_context(fragment.join()) for fragment in self.fragments]
            if self._patience_s is None and len(self.fragments) > 1:
                self._patience_s = LEASES_OF_PATIENCE * memberships[0].lease_s
            for fragment, membership in zip(self.fragments, memberships, strict=True):
                pulled = fragment.begin(membership)
                self._write(fragment, pulled, pulled)
            self._leaving = undo.pop_all()
        self._takes_part = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._takes_part = False
        if error is not None:
            self._leaving.__exit__(kind, error, trace)
            return
        with self._leaving:
            for fragment in self.fragments:
                self._take_in(fragment)

    def step(self, weight: float = 1.0) -> list[Receipt]:
        """Says that an inner step was made, on `weight` tokens or examples; answers the receipts of rounds.

        A push is weighted by what was said since the last one of its fragment. Raises the service's refusals,
        ValueError for numbers that cannot be compressed, and ConnectionFailed when the service did not answer
        in the time allowed for retries. In each case the local parameters are what they were and nothing is
        lost: go on with the next inner step if you like. Raises RuntimeError outside the `with` block.
        """
        self._require_part()
        if not 0 <= weight < math.inf:
            raise ValueError(f"weight is {weight}; expected how many tokens or examples, 0 or more")
        self.inner_step += 1
        for fragment in self.fragments:
            fragment.weight += weight
        receipts = []
        for fragment in self.fragments:
            if fragment.sent is not None and fragment.sent.due == self.inner_step:
                receipts += self._take_in(fragment)
        return receipts + self._turn() if self._is_turn() else receipts

    def synchronize(self) -> list[Receipt]:
        """A round of every fragment now, whoever's turn it is: for the end of a training.

        All workers should call it; whoever does not is waited for until its next turn, or until it leaves.
        Raises RuntimeError outside the `with` block.
        """
        self._require_part()
        receipts = []
        for fragment in sorted(self.fragments, key=lambda each: each.reach):
            receipts += self._take_in(fragment)
            if fragment.sent is None and fragment.weight:
                fragment.push(self.local.read(fragment.names), due=self.inner_step)
                receipts += self._take_in(fragment)
        return receipts

    def _require_part(self) -> None:
        if not self._takes_part:
            raise RuntimeError(
                "this worker takes no part: train within `with` the loop, which joins and leaves"
            )

    def _is_turn(self) -> bool:
        parts = len(self.fragments)
        return self.inner_step * parts // self._every > (self.inner_step - 1) * parts // self._every

    def _turn(self) -> list[Receipt]:
        fragment = self._furthest_behind()
        receipts: list[Receipt] = []
        if fragment.sent is not None:  # from its last turn: the answer was lost, or the round still lasts
            settled = self._settle(fragment)
            receipts = _receipts(settled)
            if settled is None or settled.late or self._furthest_behind() is not fragment:
                return receipts
        fragment.push(self.local.read(fragment.names), due=self.inner_step + self._overlap)
        return receipts if self._overlap else receipts + self._take_in(fragment)

    def _furthest_behind(self) -> Fragment:
        return min(self.fragments, key=lambda fragment: fragment.reach)

    def _take_in(self, fragment: Fragment) -> list[Receipt]:
        return [] if fragment.sent is None else _receipts(self._settle(fragment))

    def _settle(self, fragment: Fragment) -> Settled | None:
        """Waits for what becomes of a push, and merges that into the local parameters."""
        sent = fragment.sent
        assert sent is not None
        settled = fragment.settle(self._patience_s)
        if settled is not None:
            self._write(fragment, self._merged(fragment, sent, settled), settled.params)
        return settled

    def _merged(self, fragment: Fragment, sent: Sent, settled: Settled) -> Params:
        local, pulled = self.local.read(fragment.names), settled.params
        if settled.receipt is None:  # it did not count, so all that was learned since the anchor is kept
            return {name: pulled[name] + (local[name] - fragment.anchor[name]) for name in fragment.names}
        if self._overlap and sent.due == self.inner_step:
            mixing = self._mixing
            return {name: pulled[name] + mixing * (local[name] - pulled[name]) for name in fragment.names}
        return {name: pulled[name] + (local[name] - sent.local[name]) for name in fragment.names}

    def _write(self, fragment: Fragment, wanted: Params, pulled: Params) -> None:
        """Sets the local parameters, and the anchor to what was pulled.

        Parameters of fewer bits round what is written. Nobody learned that, so the anchor moves with it.
        """
        self.local.write(wanted)
        written = self.local.read(fragment.names)
        fragment.anchor = {name: pulled[name] + (written[name] - wanted[name]) for name in fragment.names}

    def _create(self) -> list[Fragment]:
        params = self.local.read(self.local.names)
        refuse_idle_groups(self._options.get("groups", ()), params)
        nbytes = {name: each.nbytes for name, each in params.items()}
        parts = divide(nbytes, self._options.get("fragments", 1))
        return [
            self._create_part(index, {name: params[name] for name in part})
            for index, part in enumerate(parts)
        ]

    def _create_part(self, index: int, params: Params) -> Fragment:
        options = self._options
        spec: dict[str, Any] = {"sync": options.get("sync", "bsp"), **options.get("spec", {})}
        if groups := groups_within(options.get("groups", ()), params):
            spec["groups"] = groups
        name, outer = model_name(options["name"], index), options.get("outer", NESTEROV)
        try:
            model = options["client"].create(name, params, outer, exist_ok=True, worker=self.worker, **spec)
        except ModelExists as error:
            error.add_note("All workers must name the same parameters, fragments, outer, groups and sync.")
            raise
        return Fragment(model, tuple(params), options.get("wire"))


def _receipts(settled: Settled | None) -> list[Receipt]:
    return [] if settled is None or settled.receipt is None else [settled.receipt]
