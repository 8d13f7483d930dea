"""The client's tables, on a real service."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from gradledger import Client, Rows, Table, errors
from tests.service import Service

_numbers = itertools.count(1)


@pytest.fixture
def running(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"client-rows.{next(_numbers)}"


def test_rows_go_out_and_the_touched_ones_come_back(running: Client, name: str) -> None:
    model = running.create(
        name, {"emb": Table((100, 2)), "w": np.zeros(3, np.float32)}, {"rule": "sgd", "lr": 1}
    )
    values = np.array([[1, 1], [2, 2], [4, 4]], np.float32)
    params, receipt = model.push({"emb": Rows([9, 3, 9], values), "w": np.ones(3, np.float32)})
    assert isinstance(params["emb"], Rows)
    assert (params["emb"].ids.tolist(), params["emb"].values.tolist()) == ([3, 9], [[-2, -2], [-5, -5]])
    assert len(params["emb"]) == 2
    assert params["w"].tolist() == [-1, -1, -1]
    assert (receipt.step, model.step) == (1, 1)
    assert list(model.pull()) == ["w"]
    assert model.push_only({"emb": Rows([3], values[:1])}).step == 2
    assert list(model.pull()) == ["w"]


def test_rows_and_whole_tables_are_read(running: Client, name: str) -> None:
    init = {"name": "normal", "std": 0.1, "seed": 3}
    model = running.create(
        name, {"a/b": Table((20, 4), dtype="F64", rows="lazy_global_t", init=init)}, "adam"
    )
    whole = model.table("a/b")
    assert whole.shape == (20, 4)
    assert whole.std() == pytest.approx(0.1, rel=0.3)
    found = model.rows("a/b", [5, 0, 5])
    assert found.ids.tolist() == [5, 0, 5]
    assert found.values.tobytes() == whole[[5, 0, 5]].tobytes()
    assert model.describe()["rows_seen"] == {"a/b": 0}
    again = running.create(
        name, {"a/b": Table((20, 4), dtype="F64", rows="lazy_global_t", init=init)}, "adam", exist_ok=True
    )
    assert again.table("a/b").tobytes() == whole.tobytes()


def test_what_cannot_be_a_row_is_refused(running: Client, name: str) -> None:
    model = running.create(name, {"emb": Table((10, 2))}, "sgd")
    with pytest.raises(TypeError, match="whole numbers"):
        Rows([0.5], np.ones((1, 2)))
    with pytest.raises(errors.WrongRows, match="rows 0 to 9"):
        model.push({"emb": Rows([10], np.ones((1, 2), np.float32))})
    with pytest.raises(errors.WrongRows):
        model.rows("emb", [10])
    assert len(model.rows("emb", [])) == 0


def test_rows_and_tables_are_read_in_another_view(running: Client, name: str) -> None:
    model = running.create(name, {"emb": Table((4, 2))}, {"rule": "schedule_free_sgd", "lr": 1.0})
    for _ in range(2):
        model.push({"emb": Rows([3], np.ones((1, 2), np.float32))})
    seen = model.rows("emb", [3], view="eval").values
    assert (model.table("emb", view="eval")[3] == seen[0]).all()
    assert (seen != model.rows("emb", [3]).values).all()
