"""What a spec may say about `sync`: every refusal names its field, and expanding twice changes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from gradledger_server.errors import InvalidSpec
from gradledger_server.machine.sync.policy import MODES, Policy, expand

SMALLEST: dict[str, dict[str, Any]] = {
    "async": {},
    "ssp": {"slack": 3},
    "bsp": {},
    "backup": {"take": 3},
    "buffered": {"take": 8},
    "quorum": {"quorum": 2},
}


@pytest.mark.parametrize("mode", MODES)
def test_an_expanded_mode_is_a_valid_request(mode: str) -> None:
    expanded = expand({"mode": mode, **SMALLEST[mode]})
    assert expand(expanded) == expanded
    assert Policy.read(expanded).mode == mode


def test_a_quorums_grace_window_adapts_unless_it_is_given() -> None:
    for said in ({}, {"grace_ms": None}, {"grace_ms": "adaptive"}):
        assert expand({"mode": "quorum", "quorum": 2, **said})["grace_ms"] == "adaptive"
    assert expand({"mode": "quorum", "quorum": 2, "grace_ms": 0})["grace_ms"] == 0
    assert expand("bsp")["grace_ms"] is None


def test_without_a_word_every_gradient_counts_at_once() -> None:
    assert expand(None) == expand({}) == expand({"mode": "async"})
    assert Policy.read(expand(None)).immediate


@pytest.mark.parametrize("mode", [mode for mode in MODES if SMALLEST[mode]])
def test_what_a_mode_needs_must_be_said(mode: str) -> None:
    for name in SMALLEST[mode]:
        with pytest.raises(InvalidSpec) as refused:
            expand({"mode": mode, **{k: v for k, v in SMALLEST[mode].items() if k != name}})
        assert refused.value.facts["field"] == f"sync.{name}"


REFUSED = [
    ({"mode": "bulk"}, "sync.mode"),
    ({"mode": "bsp", "take": 3}, "sync.take"),
    ({"mode": "bsp", "slack": 1}, "sync.slack"),
    ({"mode": "async", "quorum": 2}, "sync.quorum"),
    ({"mode": "ssp", "slack": -1}, "sync.slack"),
    ({"mode": "ssp", "slack": True}, "sync.slack"),
    ({"mode": "buffered", "take": 0}, "sync.take"),
    ({"mode": "buffered", "take": "some"}, "sync.take"),
    ({"mode": "backup", "take": 5, "workers": 4}, "sync.take"),
    ({"mode": "quorum", "quorum": 5, "grace_ms": 1, "workers": 4}, "sync.quorum"),
    ({"mode": "quorum", "quorum": 2, "grace_ms": -1}, "sync.grace_ms"),
    ({"mode": "quorum", "quorum": 2, "grace_ms": "auto"}, "sync.grace_ms"),
    ({"mode": "quorum", "quorum": 2, "grace_ms": True}, "sync.grace_ms"),
    ({"workers": 1.0}, "sync.workers"),
    ({"lease_s": 0}, "sync.lease_s"),
    ({"lease_s": float("nan")}, "sync.lease_s"),
    ({"lease_s": 10**400}, "sync.lease_s"),
    ({"late": "maybe"}, "sync.late"),
    ({"colour": 1}, "sync.colour"),
    ({"aggregate": "mode"}, "sync.aggregate.name"),
    ({"aggregate": 3}, "sync.aggregate"),
    ({"aggregate": {"name": "krum"}}, "sync.aggregate.attackers"),
    ({"aggregate": {"name": "mean", "trim": 1}}, "sync.aggregate.trim"),
    ({"mode": "bsp", "workers": 4, "aggregate": {"name": "krum", "attackers": 1}}, "sync.aggregate"),
    ({"mode": "buffered", "take": 4, "aggregate": {"name": "trimmed_mean", "trim": 2}}, "sync.aggregate"),
    ({"staleness": {"max": -1}}, "sync.staleness.max"),
    ({"staleness": {"scale": 1.5}}, "sync.staleness.scale"),
    ({"staleness": {"compensate": 0.04}}, "sync.staleness.history"),
    ({"staleness": {"history": 1000}}, "sync.staleness.history"),
    ([], "sync"),
]


@pytest.mark.parametrize(
    ("given", "field"), REFUSED, ids=[f"{field} {n}" for n, (_, field) in enumerate(REFUSED)]
)
def test_nonsense_is_refused_by_name(given: Any, field: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        expand(given)
    assert refused.value.facts["field"] == field


def test_the_bound_of_an_aggregate_is_met_exactly() -> None:
    for sync in (
        {"mode": "bsp", "workers": 5, "aggregate": {"name": "krum", "attackers": 1}},
        {"mode": "buffered", "take": 5, "aggregate": {"name": "trimmed_mean", "trim": 2}},
        {
            "mode": "quorum",
            "quorum": 5,
            "grace_ms": 1,
            "aggregate": {"name": "multi_krum", "attackers": 1, "keep": 4},
        },
    ):
        expand(sync)


def test_backup_drops_the_late_unless_told_otherwise() -> None:
    assert expand({"mode": "backup", "take": 2})["late"] == "drop"
    assert expand({"mode": "backup", "take": 2, "late": "apply"})["late"] == "apply"
    assert expand({"mode": "bsp"})["late"] == "apply"
