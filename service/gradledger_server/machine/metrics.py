"""Metrics that clients post: every plateau schedule of the model judges each of them once.

A metric is named like a push, by (worker, sequence) or a key, in a table of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

from gradledger_server.entries import Metric
from gradledger_server.errors import NoPlateau, SequenceGap
from gradledger_server.machine.receipts import Table, identity_of
from gradledger_server.machine.spec import Spec
from gradledger_server.optim.schedules.plateau import Watch, judged

if TYPE_CHECKING:
    from gradledger_server.machine.model import Model

Watches = Mapping[int, Watch]  # what each group's plateau schedule has seen


class MetricReceipt(NamedTuple):
    """The fate of one metric. `lr` is the model's own after it; `reduced`: some group's is lower now."""

    fate: str
    step: int
    offset: int
    value: float | None
    lr: float | None
    reduced: bool | None
    durability: str | None
    worker: str | None
    sequence: int | None

    @classmethod
    def repeated(cls, worker: str | None, sequence: int) -> MetricReceipt:
        """What is left to say of a metric whose receipt is not kept any more."""
        return cls("repeated", 0, 0, None, None, None, None, worker, sequence)


class MetricReceipts(Table[MetricReceipt]):
    """What became of each metric."""

    kind = MetricReceipt


def carried(watches: Watches, before: Spec, after: Spec) -> Watches:
    """The watches under another spec: a plateau schedule whose settings changed begins anew."""
    return {
        index: watches.get(index, Watch())
        if index < len(before.groups) and before.groups[index].schedule == group.schedule
        else Watch()
        for index, group in enumerate(after.groups)
        if group.schedule["name"] == "plateau"
    }


def known(model: Model, metric: Metric) -> MetricReceipt | None:
    """The receipt of a metric the model has already.

    Raises SequenceReused if it had another value, SequenceGap if one before it is missing.
    """
    identity, sequence = identity_of(metric), metric.sequence or 1
    if identity is None:
        return None
    found = model.metrics.find(identity, sequence, repr(metric.value))
    if found is None and metric.worker is not None:
        expected = model.metrics.last(identity) + 1
        if sequence != expected:
            raise SequenceGap(
                f"worker {metric.worker!r} sent metric {sequence}; expected sequence {expected}",
                got=sequence,
                expected=expected,
            )
    return found


def require_plateau(model: Model) -> None:
    """Raises NoPlateau if no schedule of the model listens to metrics."""
    if not model.watches:
        present = sorted({group.schedule["name"] for group in model.spec.groups})
        raise NoPlateau(f"the model's schedule is {', '.join(present)}: no metric changes it")


def foreseen(model: Model, offset: int, metric: Metric) -> tuple[Watches, MetricReceipt]:
    """The watches and the receipt this metric leads to, if it is the entry at `offset`. Changes nothing."""
    after = {
        index: judged(watch, metric.value, group.schedule, group.optimizer["lr"])
        for index, watch in model.watches.items()
        for group in [model.spec.groups[index]]
    }
    reduced = any(watch.reductions > model.watches[index].reductions for index, watch in after.items())
    receipt = MetricReceipt(
        fate="applied",
        step=model.step,
        offset=offset,
        value=metric.value,
        lr=model.rate(len(model.spec.groups) - 1, after),
        reduced=reduced,
        durability=metric.durability,
        worker=metric.worker,
        sequence=metric.sequence,
    )
    return after, receipt


def heed(model: Model, offset: int, metric: Metric) -> None:
    """Applies a metric."""
    model.watches, receipt = foreseen(model, offset, metric)
    if (identity := identity_of(metric)) is not None:
        model.metrics.record(identity, repr(metric.value), receipt)


def standing(model: Model) -> list[dict[str, Any]]:
    """What every plateau schedule has seen, as JSON, by the pattern of its group."""
    return [
        {"match": model.spec.groups[index].match, "lr": model.rate(index), **asdict(watch)}
        for index, watch in model.watches.items()
    ]
