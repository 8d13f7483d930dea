"""The transforms' equations, and how a spec that names them is read."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import numpy as np
import pytest

from gradledger_server.errors import InvalidSpec
from gradledger_server.kernels.device import open_device
from gradledger_server.kernels.operations import OPERATIONS
from gradledger_server.kernels.tensor import Tensor
from gradledger_server.optim import catalog, chain, guide, transform_spec, transforms
from gradledger_server.optim.hyperparameters import Bounds
from gradledger_server.optim.signatures import facts_of

GIVEN: dict[str, Any] = {
    "ema": {"decay": 0.9},
    "noise": {"eta": 0.01},
    "clip_value": {"limit": 0.5},
    "clip_global_norm": {"max_norm": 1},
    "polyak": {},
    "lookahead": {"rate": 0.25},
    "accumulate": {"every": 4.0},
}


def expand(given: dict[str, Any]) -> dict[str, Any]:
    return transform_spec.expand(given, where="transforms")


def updated(
    g: Any,
    spec: dict[str, Any],
    *,
    rule: str = "sgd",
    t: int = 1,
    norm: float = 0.0,
    w: Any = 0.0,
    **given: Any,
) -> list[Any]:
    """The weight and slots after one update with lr 1, float64, from a weight `w` and slots of 2.0."""
    optimizer = catalog.expand_optimizer({"rule": rule, "lr": 1.0, **given}, where="optimizer")
    chosen = expand(spec)
    program = chain.program(optimizer, chosen)
    g = np.atleast_1d(np.asarray(g, np.float64))
    arrays = [np.full_like(g, w), g, *(np.full_like(g, 2.0) for _ in program.slots)]
    kernel = open_device("cpu", compiled=False).kernel(program, np.float64)
    kernel(arrays[0], arrays[0], g, arrays[2:], chain.scalars(optimizer, chosen, t=t, lr=1.0, norm=norm))
    return [arrays[0], *arrays[2:]]


def test_everything_is_explicit_and_in_the_order_it_is_applied() -> None:
    assert json.dumps(expand(GIVEN)) == json.dumps(
        {
            "accumulate": {"every": 4, "weighted": True},
            "clip_global_norm": {"max_norm": 1.0, "clip_eps": 1e-6},
            "clip_value": {"limit": 0.5},
            "noise": {"eta": 0.01, "gamma": 0.55, "seed": 0},
            "lookahead": {"every": 5, "rate": 0.25},
            "ema": {"decay": 0.9, "start": "first"},
            "polyak": {"after": 0, "every": 1},
        }
    )
    assert expand(expand(GIVEN)) == expand(GIVEN)


@pytest.mark.parametrize("name", [name for name in GIVEN if name != "accumulate"])
def test_around_a_rule_on_matrices_a_power_is_the_portable_one(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Untraced, a transform computes with numbers: with another power both ways change alike."""
    monkeypatch.setitem(
        OPERATIONS, "power", replace(OPERATIONS["power"], host=lambda base, exponent: base / (2 + exponent))
    )
    chosen = expand({name: GIVEN[name] | ({"start": "debiased"} if name == "ema" else {})})
    optimizer = catalog.expand_optimizer({"rule": "sgd", "lr": 1.0}, where="optimizer")
    g, device = np.array([0.3, -0.7]), open_device("cpu", compiled=False).host
    traced = updated(g, {name: chosen[name]}, t=3, norm=2.0)
    now = chain.moment(chain.numbers(optimizer, chosen), t=3, lr=1.0, norm=2.0)
    tensors = [Tensor(values, device) for values in (np.zeros(2), g, *[np.full(2, 2.0)] * (len(traced) - 1))]
    untraced = chain.untraced(optimizer, chosen)(*tensors, **now)
    for mine, its in zip(traced, untraced, strict=True):
        assert mine.tobytes() == its.values.tobytes()


def test_noise_that_fades_at_once_is_gone_around_a_rule_on_matrices() -> None:
    optimizer = catalog.expand_optimizer({"rule": "muon"}, where="optimizer")
    chosen = expand({"noise": {"eta": 1.0, "gamma": 3e38}})
    device = open_device("cpu", compiled=False).host
    w, g, u, draw = (Tensor(np.ones((2, 2), np.float32), device) for _ in range(4))
    now = chain.moment(chain.numbers(optimizer, chosen), t=2, s=1, lr=0.1)
    assert np.isfinite(chain.untraced(optimizer, chosen)(w, g, u, draw, **now)[0].values).all()


def test_the_order_is_the_documented_one() -> None:
    lines = (transforms.__doc__ or "").splitlines()
    words = [word.strip(",") for line in lines if line.startswith("    ") for word in line.split()[:2]]
    named = [word for word in words if word in transforms.TRANSFORMS]
    assert list(dict.fromkeys(named)) == list(transforms.TRANSFORMS)


@pytest.mark.parametrize(
    ("given", "field", "words"),
    [
        ({"clip": {}}, "clip", "'clip_"),
        ({"clip_value": {}}, "clip_value.limit", "needs"),
        ({"clip_value": 0.5}, "clip_value", "an object of its settings"),
        ({"clip_value": {"limit": 0}}, "clip_value.limit", "0 < limit"),
        ({"clip_value": {"limit": 1, "max": 2}}, "clip_value.max", "takes limit"),
        ({"clip_global_norm": {"max_norm": -1}}, "clip_global_norm.max_norm", "0 < max_norm"),
        ({"clip_global_norm": {"max_norm": 1, "clip_eps": -1}}, "clip_global_norm.clip_eps", "0 <= clip_eps"),
        ({"noise": {"eta": 1, "seed": 0.5}}, "noise.seed", "a whole number"),
        ({"ema": {"decay": 1}}, "ema.decay", "0 <= decay < 1"),
        ({"ema": {"start": "late"}}, "ema.start", "one of first, initial"),
        ({"lookahead": {"every": 0}}, "lookahead.every", "1 <= every"),
        ({"accumulate": {}}, "accumulate.every", "needs"),
        ({"accumulate": {"every": 2, "weighted": 1}}, "accumulate.weighted", "true or false"),
    ],
)
def test_what_cannot_be_is_refused_by_name(given: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(InvalidSpec) as refused:
        expand(given)
    assert refused.value.facts["field"] == f"transforms.{field}"
    assert words in refused.value.detail + refused.value.advice


def test_a_group_has_the_models_transforms_with_its_own_settings_over_them() -> None:
    def of_group(given: dict[str, Any]) -> dict[str, Any]:
        return transform_spec.expand_group(given, GIVEN, where="groups[0].transforms")

    own = of_group({"ema": {"start": "initial"}, "clip_value": None, "noise": {"eta": 2}})
    assert own["ema"] == {"decay": 0.9, "start": "initial"}
    assert own["noise"]["eta"] == 2.0
    assert own["clip_value"] is None
    assert of_group(own) == own
    assert "accumulate" not in own, "it is the model's"
    effective = transform_spec.effective(own, expand(GIVEN))
    assert "clip_value" not in effective and effective["clip_global_norm"]["max_norm"] == 1.0
    for name in transforms.MODEL_WIDE:
        with pytest.raises(InvalidSpec, match="cannot differ between groups") as refused:
            of_group({name: {}})
        assert refused.value.facts["field"] == f"groups[0].transforms.{name}"


def test_a_group_follows_the_model_where_it_had_nothing_of_its_own() -> None:
    before, after = expand(GIVEN), expand({**GIVEN, "ema": {"decay": 0.5}, "noise": {"eta": 1}})
    group = transform_spec.expand_group({"ema": {"start": "initial"}, "polyak": None}, GIVEN, where="g")
    moved = transform_spec.following(group, before, after)
    assert moved == {"polyak": None, "ema": {"start": "initial"}}
    again = transform_spec.expand_group(moved, after, where="g")
    assert again["ema"] == {"decay": 0.5, "start": "initial"} and again["noise"]["eta"] == 1.0  # type: ignore[index]
    gone = transform_spec.following(group, before, {})
    assert gone == {"ema": {"decay": 0.9, "start": "initial"}, "polyak": None}, "what differed is its own"


@pytest.mark.parametrize("name", transforms.TRANSFORMS)
def test_a_transform_describes_itself(name: str) -> None:
    facts = facts_of(transforms.TRANSFORMS[name])
    assert facts.summary and facts.source
    schema = guide.json_schema(facts.hyperparameters)
    jsonschema.Draft202012Validator.check_schema(schema)
    assert all(its["description"] for its in schema["properties"].values())
    settings = expand({name: GIVEN.get(name, {"max_norm": 1.0} if name == "clip_norm" else {})})[name]
    jsonschema.validate(settings, schema)
    assert settings.keys() == schema["properties"].keys()


def test_no_slot_of_an_average_is_a_slot_of_a_rule() -> None:
    taken = {slot for rule in catalog.RULES for slot in catalog.rule_facts(rule).slots}
    assert not taken & {*transforms.AVERAGES.values(), chain.DRAWN}
    assert list(transforms.AVERAGES) == list(transforms.WEIGHTS)
    for name, function in transforms.WEIGHTS.items():
        assert list(facts_of(function).slots) == [transforms.AVERAGES[name]]


# -- clipping ------------------------------------------------------------------------------------------------

NORMS = [0.0, 1e-300, math.nextafter(0.7, 0), 0.7, math.nextafter(0.7, 1), 3.7, 1e10, 1e300]


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_clipping_has_the_bits_of_torchs_and_optaxs_order_of_operations(norm: float, dtype: Any) -> None:
    g = np.random.default_rng(3).standard_normal(1000).astype(dtype)
    with np.errstate(all="ignore"):
        coefficient = dtype(min(1.0, 0.7 / (norm + 1e-6)))
        torchs = g * coefficient
        optaxs = g if norm < 0.7 else g / dtype(norm) * dtype(0.7)
    for clip_eps, expected in ((1e-6, torchs), (0.0, optaxs)):
        chosen = expand({"clip_global_norm": {"max_norm": 0.7, "clip_eps": clip_eps}})
        optimizer = catalog.expand_optimizer({"rule": "sgd", "lr": 1}, where="optimizer")
        kernel = open_device("cpu", compiled=False).kernel(chain.program(optimizer, chosen), dtype)
        w = np.zeros_like(g)
        kernel(w, w, g, [], chain.scalars(optimizer, chosen, t=1, lr=1.0, norm=norm))
        assert (0.0 - w).tobytes() == (0.0 + expected).tobytes()


def test_the_clip_factor_tells_what_was_done() -> None:
    torchs = expand({"clip_global_norm": {"max_norm": 2.0, "clip_eps": 0.5}})
    optaxs = expand({"clip_global_norm": {"max_norm": 2.0, "clip_eps": 0}})
    assert chain.clip_factor({}, 9.0) == 1.0
    assert chain.clip_factor(torchs, 1.5) == 1.0
    assert chain.clip_factor(torchs, 3.5) == 0.5
    assert chain.clip_factor(torchs, 1.75) == 2.0 / 2.25, "an epsilon clips a little before the limit"
    assert chain.clip_factor(optaxs, 1.75) == 1.0
    assert chain.clip_factor(optaxs, 8.0) == 0.25
    assert chain.clip_factor(optaxs, 2.0) == 1.0


def test_elements_are_clipped_after_the_norm_and_before_the_decay() -> None:
    spec = {"clip_value": {"limit": 0.5}}
    assert updated([2, -2, 0.25, -0.0], spec)[0].tolist() == [-0.5, 0.5, -0.25, 0.0]
    both = {"clip_global_norm": {"max_norm": 1.0, "clip_eps": 0}, **spec}
    assert updated([2, 1], both, norm=4.0)[0].tolist() == [-0.5, -0.25]
    assert updated([2], spec, w=4.0, weight_decay=1.0)[0].tolist() == [4.0 - (0.5 + 4.0)]


# -- weight decay --------------------------------------------------------------------------------------------


def test_decoupled_decay_uses_the_weight_before_the_update_and_no_moment() -> None:
    (w, u) = updated(
        [1], {}, rule="momentum", momentum=0.5, w=4.0, weight_decay=0.25, weight_decay_mode="decoupled"
    )
    assert (w.item(), u.item()) == (4.0 * 0.75 - 2.0, 2.0)


def test_absolute_decay_heeds_the_schedule_and_not_the_base_rate() -> None:
    given = {"rule": "sgd", "lr": 0.5, "weight_decay": 0.25, "weight_decay_mode": "decoupled_abs"}
    optimizer = catalog.expand_optimizer(given, where="optimizer")
    kernel = open_device("cpu", compiled=False).kernel(chain.program(optimizer), np.float64)
    w = np.array([4.0])
    kernel(w, w, np.array([1.0]), [], chain.scalars(optimizer, t=1, lr=0.125))
    assert w.tolist() == [4.0 * (1 - 0.25 * 0.25) - 0.125]
    with pytest.raises(InvalidSpec, match="0 < lr where weight_decay_mode is decoupled_abs"):
        catalog.expand_optimizer({**given, "lr": 0}, where="optimizer")


def test_a_rule_with_a_decay_of_its_own_has_its_own_modes() -> None:
    with pytest.raises(InvalidSpec, match="one of decoupled, decoupled_abs"):
        catalog.expand_optimizer({"rule": "adamw", "weight_decay_mode": "l2"}, where="optimizer")


# -- averages ------------------------------------------------------------------------------------------------


def test_what_an_average_begins_with() -> None:
    """The slot holds 2.0, which must not be seen at t = 1; the weight goes from 4 to 3."""
    for start, expected in (("first", 3.0), ("debiased", 3.0), ("initial", 4 - 0.25), ("warmup", 4 - 9 / 11)):
        _, ema = updated([1], {"ema": {"decay": 0.75, "start": start}}, w=4.0)
        assert ema.item() == pytest.approx(expected, rel=1e-15), start


def test_later_the_average_goes_on_from_its_slot() -> None:
    rates = {"first": 0.25, "initial": 0.25, "debiased": 0.25 / (1 - 0.75**3), "warmup": 9 / 13}
    for start, rate in rates.items():
        _, ema = updated([1], {"ema": {"decay": 0.75, "start": start}}, w=4.0, t=3)
        assert ema.item() == pytest.approx(2 + rate, rel=1e-15), start


def test_lookahead_waits_and_then_both_weights_are_the_same() -> None:
    spec = {"lookahead": {"every": 3, "rate": 0.5}}
    assert [x.item() for x in updated([1], spec, w=4.0, t=1)] == [3.0, 4.0]
    assert [x.item() for x in updated([1], spec, w=4.0, t=2)] == [3.0, 2.0]
    assert [x.item() for x in updated([1], spec, w=4.0, t=3)] == [2.5, 2.5]


def test_the_mean_is_the_weight_until_it_begins() -> None:
    spec = {"polyak": {"after": 2, "every": 2}}
    means = [updated([1], spec, w=4.0, t=t)[1].item() for t in range(1, 8)]
    assert means == [3.0, 3.0, 3.0, 2.0, 2.5, 2.0, 2 + 1 / 3]


# -- noise ---------------------------------------------------------------------------------------------------


def test_noise_fades_as_the_paper_says() -> None:
    for s, eta, gamma in ((0, 0.3, 0.55), (9, 1.0, 0.55), (99, 0.01, 0.0)):
        optimizer = catalog.expand_optimizer({"rule": "sgd"}, where="optimizer")
        chosen = expand({"noise": {"eta": eta, "gamma": gamma}})
        deviation, _ = chain.scalars(optimizer, chosen, t=1, s=s, lr=1.0)
        assert deviation == pytest.approx(math.sqrt(eta / (1 + s) ** gamma), rel=1e-15)
    assert updated([1], {"noise": {"eta": 4.0, "gamma": 0}})[0].tolist() == [-(1 + 2.0 * 2.0)], (
        "the draw is 2"
    )


# -- programs ------------------------------------------------------------------------------------------------


def test_programs_are_shared_between_equal_choices() -> None:
    optimizer = catalog.expand_optimizer({"rule": "adam"}, where="optimizer")

    def program(spec: dict[str, Any]) -> object:
        return chain.program(optimizer, expand(spec))

    assert program({"clip_value": {"limit": 1}}) is program({"clip_value": {"limit": 2}})
    assert program({"accumulate": {"every": 2}}) is program({}), "that is another program's work"
    norm: dict[str, Any] = {"max_norm": 1}
    assert program({"clip_global_norm": norm}) is not program({"clip_global_norm": {**norm, "clip_eps": 0}})
    assert program({"ema": {}}) is not program({"ema": {"start": "initial"}})


def test_a_setting_of_the_same_name_keeps_to_its_transform() -> None:
    optimizer = catalog.expand_optimizer({"rule": "sgd"}, where="optimizer")
    both = expand({"lookahead": {"every": 7}, "polyak": {"every": 3}})
    values = chain.numbers(optimizer, both)
    assert (values["lookahead.every"], values["polyak.every"]) == (7, 3)
    assert all(isinstance(its.bounds, Bounds) for its in facts_of(transforms.noise).hyperparameters.values())
