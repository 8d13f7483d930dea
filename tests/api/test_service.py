"""What the service says of itself: facts, health, metrics, problems, the catalogue, its documentation."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gradledger_server import __version__
from gradledger_server.api.problems import catalogue
from gradledger_server.errors import GradledgerError
from gradledger_server.optim.catalog import RULES
from gradledger_server.optim.transforms import TRANSFORMS
from tests.api.talk import Model, refused
from tests.service import Service


def test_the_root_says_what_this_is(service: Service) -> None:
    facts = service.request("GET", "/v1").json
    assert (facts["name"], facts["version"]) == ("gradledger", __version__)
    assert facts["durability"] == "memory"
    assert facts["server"]["name"] in ("valkey", "redis")
    assert facts["limits"]["max_body_bytes"] == 4 << 30
    for path in facts["links"].values():
        assert service.request("GET", path).status == 200


def test_health(service: Service) -> None:
    assert service.request("GET", "/livez").json == {"status": "alive"}
    assert service.request("GET", "/readyz").json == {"status": "ready", "durability": "memory"}


def metrics(service: Service) -> dict[tuple[str, ...], float]:
    """Every sample by its name and its labels' values."""
    answer = service.request("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(answer.data.decode())
    return {(s.name, *s.labels.values()): s.value for family in families for s in family.samples}


def test_metrics_count_pushes_by_fate(service: Service, model: Model) -> None:
    before = metrics(service)
    for sequence in (1, 2, 2):
        model.push({"b": [1.0, 1.0, 1.0]}, worker="w0", sequence=sequence, base=0)
    model.push({"nope": [1.0]})
    after = metrics(service)

    def grown(*sample: str) -> float:
        return after.get(sample, 0.0) - before.get(sample, 0.0)

    assert grown("gradledger_pushes_total", "applied") == 2
    assert grown("gradledger_pushes_total", "replayed") == 1
    route = "/v1/models/{model}/gradients"
    assert grown("gradledger_request_seconds_count", "POST", route, "200") == 3
    assert grown("gradledger_request_seconds_count", "POST", route, "422") == 1
    assert grown("gradledger_push_staleness_steps_count") == 2
    assert grown("gradledger_received_bytes_total") > 0
    assert after[("gradledger_models_in_memory",)] >= 1


def test_metrics_have_no_label_for_paths_nobody_serves(service: Service) -> None:
    for number in range(3):
        service.request("GET", f"/nothing/{number}")
    routes = {sample[2] for sample in metrics(service) if sample[0] == "gradledger_request_seconds_count"}
    assert "unknown" in routes
    assert not any(route.startswith("/nothing") for route in routes)


@pytest.mark.parametrize("kind", list(catalogue()), ids=lambda kind: kind.problem)
def test_every_problem_explains_itself(service: Service, kind: type[GradledgerError]) -> None:
    explained = service.request("GET", f"/problems/{kind.problem}")
    assert explained.status == 200
    assert explained.json["type"] == f"/problems/{kind.problem}"
    assert explained.json["title"]
    assert explained.json["status"] == kind.status


def test_problem_types_are_named_once(service: Service) -> None:
    slugs = [kind.problem for kind in catalogue()]
    assert len(slugs) == len(set(slugs))
    refused(service.request("GET", "/problems/no-such"), 404, "not-found")


def test_the_catalogue_of_optimizers(service: Service) -> None:
    listed = service.request("GET", "/v1/optimizers").json["optimizers"]
    assert [rule["name"] for rule in listed] == list(RULES)
    for rule in listed:
        assert service.request("GET", f"/v1/optimizers/{rule['name']}").json == rule
        assert rule["summary"]
        assert rule["paper"]
        assert rule["equation"]
        assert rule["hyperparameters"]["properties"]["lr"]
        assert rule["use"] and rule["sparse"]["note"]
        assert all(settings["rule"] == rule["name"] for settings in rule["presets"].values())
    refused(service.request("GET", "/v1/optimizers/sdg"), 404, "rule-not-found")


@pytest.mark.parametrize(
    ("path", "meant"),
    [
        ("optimizers/Adam", "adam"),
        ("optimizers/adm", "adam"),
        ("schedules/cosin", "cosine_decay"),
        ("schedules/noamm/preview", "noam"),
        ("transforms/clip-norm", "clip_norm"),
    ],
)
def test_a_name_beside_the_catalogue_is_told_the_next_one(service: Service, path: str, meant: str) -> None:
    answer = service.request("GET", f"/v1/{path}")
    assert answer.status == 404
    assert answer.json["hint"].startswith(f"Did you mean '{meant}'? GET /v1/{path.partition('/')[0]} lists")


def test_the_catalogue_of_transforms(service: Service) -> None:
    listed = service.request("GET", "/v1/transforms").json["transforms"]
    assert [transform["name"] for transform in listed] == list(TRANSFORMS)
    assert [transform["position"] for transform in listed] == list(range(1, 1 + len(listed)))
    for transform in listed:
        assert service.request("GET", f"/v1/transforms/{transform['name']}").json == transform
    refused(service.request("GET", "/v1/transforms/weight-decay"), 404, "transform-not-found")


class Links(HTMLParser):
    """What a page would fetch, and the scripts it carries."""

    def __init__(self) -> None:
        super().__init__()
        self.fetched: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        link = given.get("src") if tag in ("script", "img") else given.get("href") if tag == "link" else None
        if link:
            self.fetched.append(link)


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_documentation_needs_no_other_server(service: Service, page: str) -> None:
    html = service.request("GET", page)
    assert html.status == 200
    text = html.data.decode()
    links = Links()
    links.feed(text)

    assert any(link.endswith(".js") for link in links.fetched)
    assert not re.search(r"""(src|href|url)\s*[=:(]\s*["']?(https?:)?//""", text)
    for link in links.fetched:
        assert not re.match(r"([a-z]+:)?//", link), link
        asset = service.request("GET", link)
        assert asset.status == 200, link
        assert asset.data, link
    assert service.request("GET", "/openapi.json").json["openapi"].startswith("3.1")


def test_a_request_keeps_the_name_it_brings(service: Service) -> None:
    assert service.request("GET", "/livez", X_Request_ID="my-name.1").headers["x-request-id"] == "my-name.1"
    problem = refused(
        service.request("GET", "/v1/models/nope", X_Request_ID="my-name.2"), 404, "model-not-found"
    )
    assert problem["request_id"] == "my-name.2"


@pytest.mark.parametrize("given", ["", "x" * 65, "with space", "a/b", "ü"])
def test_a_name_that_cannot_be_echoed_is_replaced(service: Service, given: str) -> None:
    told = service.request("GET", "/livez", X_Request_ID=given).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{16}", told)


def test_every_request_has_a_name_of_its_own(service: Service) -> None:
    names = {service.request("GET", "/livez").headers["x-request-id"] for _ in range(10)}
    assert len(names) == 10
