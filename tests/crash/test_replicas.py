"""Two services on one Valkey take pushes for the same model at the same time and stay one model."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from safetensors.numpy import load, save

from tests.crash.load import SMALL, Target, Worker, check, fold, noise, same_receipt, sha256
from tests.service import SAFETENSORS, Answer, Service, normal

Pair = tuple[Service, Service]
MIB = Target("mib", {"w": (512, 512), "b": (3,)}, {"rule": "adam", "lr": 0.01})


def sgd(service: Service, model: str, count: int = 2) -> None:
    asked = {"optimizer": {"rule": "sgd", "lr": 1.0}, "parameters": {"w": [0.0] * count}}
    assert service.request("PUT", f"/v1/models/{model}", asked).status == 201


def step(service: Service, model: str) -> int:
    """As a reader sees it, in the ETag."""
    return int(
        service.request("GET", f"/v1/models/{model}/parameters").headers["etag"].strip('"').split(".")[1]
    )


@pytest.mark.parametrize("target", [SMALL, MIB], ids=lambda target: target.name)
def test_eight_workers_push_to_one_model_over_both(replicas: Pair, target: Target) -> None:
    target.create(replicas[0])
    # Odd workers begin at one service, even ones at the other, and a repeat may go to either.
    workers = [Worker(target, number, replicas[:: 1 if number % 2 else -1]).start() for number in range(8)]
    time.sleep(2.5)
    for worker in workers:
        worker.finish()
    for replica in replicas:
        assert check(replica, target, workers) > 30
    one, two = (replica.state(target.name) for replica in replicas)
    assert one == two


def test_a_push_sent_to_both_at_once_counts_once(replicas: Pair) -> None:
    target = Target("both", {"w": (4000,)}, {"rule": "momentum", "lr": 0.1})
    target.create(replicas[0])
    pushed = []
    with ThreadPoolExecutor(4) as threads:
        for sequence in range(1, 41):
            body = save(noise(target.shapes, sequence))
            path = f"/v1/models/both/gradients?worker=w&sequence={sequence}"

            def send(service: Service, path: str = path, body: bytes = body) -> Answer:
                return service.request("POST", path, body, Content_Type=SAFETENSORS, Prefer="return=minimal")

            answers = [sent.result() for sent in [threads.submit(send, r) for r in (*replicas, *replicas)]]
            receipts = [answer.receipt for answer in answers]
            assert [receipt["replayed"] for receipt in receipts].count(False) == 1
            assert all(same_receipt(receipts[0], receipt) for receipt in receipts)
            pushed.append(receipts[0])
    assert [receipt["step"] for receipt in pushed] == list(range(1, 41))
    assert [step(replica, "both") for replica in replicas] == [40, 40]
    assert replicas[0].state("both") == replicas[1].state("both")


def test_the_same_key_at_both_counts_once(replicas: Pair) -> None:
    sgd(replicas[0], "keyed")
    body = save({"w": normal((2,), 1)})
    with ThreadPoolExecutor(8) as threads:

        def send(turn: int) -> Answer:
            return replicas[turn % 2].request(
                "POST", "/v1/models/keyed/gradients", body, Content_Type=SAFETENSORS, Idempotency_Key="once"
            )

        answers = list(threads.map(send, range(16)))
    assert [answer.receipt["replayed"] for answer in answers].count(False) == 1
    assert {answer.receipt["step"] for answer in answers} == {1}


def test_a_read_sees_what_was_acknowledged_at_the_other(replicas: Pair) -> None:
    sgd(replicas[0], "seen")
    for sequence in range(1, 31):
        writer, reader = replicas[sequence % 2], replicas[(sequence + 1) % 2]
        answer = writer.push("seen", {"w": normal((2,), sequence)}, worker="w", sequence=sequence)
        assert answer.receipt["step"] == sequence
        # Nobody else pushes: the other one has to be at exactly this step, with these bytes.
        assert reader.pull("seen")["w"].tobytes() == load(answer.data)["w"].tobytes()
        assert reader.request("GET", "/v1/models/seen").json["step"] == sequence


def test_a_waiting_pull_hears_of_a_push_at_the_other(replicas: Pair) -> None:
    sgd(replicas[0], "awaited")
    first = replicas[1].request("GET", "/v1/models/awaited/parameters")
    timer = threading.Timer(0.5, lambda: replicas[0].push("awaited", {"w": normal((2,), 1)}))
    timer.start()
    started = time.monotonic()
    news = replicas[1].request(
        "GET", "/v1/models/awaited/parameters", If_None_Match=first.headers["etag"], Prefer="wait=10"
    )
    waited_s = time.monotonic() - started
    timer.join()
    assert news.status == 200
    assert news.json["step"] == 1
    assert 0.4 < waited_s < 5


def test_a_worker_may_change_the_replica_at_every_push(replicas: Pair) -> None:
    target = Target("roaming", {"w": (50,)}, {"rule": "adagrad", "lr": 0.1})
    target.create(replicas[1])
    for sequence in range(1, 41):
        answer = replicas[sequence % 2].push(
            "roaming", noise(target.shapes, sequence), worker="w", sequence=sequence
        )
        assert answer.receipt["step"] == sequence
        assert not answer.receipt["replayed"]
    gap = replicas[0].push("roaming", noise(target.shapes, 1), worker="w", sequence=50)
    assert (gap.status, gap.problem, gap.json["expected"]) == (409, "sequence-gap", 41)


def test_snapshots_by_both_while_both_push(replicas: Pair) -> None:
    """Bursts with pauses between them: both services save in every pause, and trim under the other's feet."""
    target = Target("bursts", {"w": (3000,)}, {"rule": "adam", "lr": 0.01})
    target.create(replicas[0])
    workers = [Worker(target, number, replicas[:: 1 if number % 2 else -1]) for number in range(4)]
    for _ in range(4):
        before = [len(worker.pushed) for worker in workers]
        for worker in workers:
            worker.start()
        time.sleep(0.3)
        for worker in workers:
            worker.finish()
        assert all(len(worker.pushed) > count for worker, count in zip(workers, before, strict=True))
        time.sleep(0.8)
    saved = [replica.request("GET", "/v1/models/bursts/entries").json["saved_offset"] for replica in replicas]
    assert min(saved) > 3
    for replica in replicas:
        check(replica, target, workers)


def test_entries_can_be_read_while_the_other_saves(replicas: Pair) -> None:
    target = Target("listed", {"w": (2,)}, {"rule": "sgd", "lr": 0.1})
    target.create(replicas[0])
    worker = Worker(target, 1, replicas[:1]).start()
    for _ in range(40):
        listed = replicas[1].request("GET", "/v1/models/listed/entries?limit=1000")
        assert listed.status == 200
        offsets = [entry["offset"] for entry in listed.json["entries"]]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets))) if offsets else True
        time.sleep(0.02)
    worker.finish()
    # Replica one has been reading only: it must not think itself ahead of what the other one has saved.
    time.sleep(1.5)
    replicas[0].push("listed", noise(target.shapes, 5))
    time.sleep(1.0)
    listed = replicas[1].request("GET", "/v1/models/listed/entries")
    assert listed.status == 200


def test_deleted_at_one_is_deleted_at_the_other(replicas: Pair) -> None:
    one, two = replicas
    sgd(one, "gone")
    assert two.push("gone", {"w": normal((2,), 1)}, worker="w", sequence=1).status == 200
    first = two.request("GET", "/v1/models/gone").json["epoch"]
    assert one.request("DELETE", "/v1/models/gone").status == 204
    missing = two.request("GET", "/v1/models/gone/parameters")
    assert (missing.status, missing.problem) == (404, "model-not-found")
    missing = two.push("gone", {"w": normal((2,), 1)}, worker="w", sequence=2)
    assert (missing.status, missing.problem) == (404, "model-not-found")

    # Made again, with another size, on the side that did not delete it.
    sgd(two, "gone", 3)
    assert one.pull("gone")["w"].shape == (3,)
    assert one.request("GET", "/v1/models/gone").json["epoch"] != first
    assert one.push("gone", {"w": normal((3,), 1)}, worker="w", sequence=1).receipt["step"] == 1

    # Deleted and made again while the other still holds the old one: a pull and a push find the new one.
    assert one.request("DELETE", "/v1/models/gone").status == 204
    sgd(one, "gone", 4)
    assert two.push("gone", {"w": normal((4,), 1)}, worker="w", sequence=1).receipt["step"] == 1
    assert one.request("DELETE", "/v1/models/gone").status == 204
    sgd(one, "gone", 5)
    assert two.pull("gone")["w"].shape == (5,)


def test_a_new_learning_rate_at_one_counts_at_the_other(replicas: Pair) -> None:
    sgd(replicas[0], "tuned")
    changed = replicas[1].request("PATCH", "/v1/models/tuned", {"optimizer": {"lr": 0.25}})
    assert changed.status == 200
    assert replicas[0].push("tuned", {"w": normal((2,), 1)}).receipt["lr"] == 0.25


def test_the_other_replica_goes_on_when_one_is_killed(replicas: Pair) -> None:
    target = Target("survivor", {"w": (5000,)}, {"rule": "momentum", "lr": 0.1})
    one, two = replicas
    target.create(one)
    workers = [Worker(target, number, replicas[:: 1 if number % 2 else -1]).start() for number in range(4)]
    time.sleep(0.7)
    one.kill()
    time.sleep(0.7)
    one.start()
    time.sleep(0.5)
    for worker in workers:
        worker.finish()
    pushed = [pushed for worker in workers for pushed in worker.pushed]
    for replica in replicas:
        check(replica, target, workers)
    assert sha256(two.state("survivor")) == sha256(fold(target, pushed))
