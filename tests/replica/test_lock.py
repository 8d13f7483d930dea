"""The model's lock: whoever holds it sees that somebody waits, and nobody waits for ever."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from gradledger_server.replica.lock import Lock


def until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 5
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_it_is_taken_once() -> None:
    lock = Lock()
    assert lock.take()
    assert not lock.take()
    assert not lock.wanted, "who does not wait is not waiting"
    lock.give()
    with lock:
        assert not lock.take()
        assert not lock.wanted
    assert lock.take()


def test_its_holder_sees_who_waits() -> None:
    lock, entered, leave = Lock(), threading.Semaphore(0), threading.Semaphore(0)

    def work() -> None:
        with lock:
            entered.release()
            leave.acquire(timeout=5)

    assert lock.take()
    threads = [threading.Thread(target=work, daemon=True) for _ in range(2)]
    for thread in threads:
        thread.start()
    until(lambda: len(lock._waiting) == 2)
    assert lock.wanted
    assert not entered.acquire(blocking=False)
    lock.give()
    assert entered.acquire(timeout=5)
    assert lock.wanted, "the other one still waits"
    leave.release()
    assert entered.acquire(timeout=5)
    until(lambda: not lock.wanted)
    leave.release()
    for thread in threads:
        thread.join(5)
    assert lock.take()


def test_what_is_raised_inside_lets_go_of_it() -> None:
    lock = Lock()
    with pytest.raises(ZeroDivisionError), lock:
        raise ZeroDivisionError
    assert lock.take()


def test_it_counts_right_between_many_threads() -> None:
    lock, inside, count = Lock(), 0, 0

    def work() -> None:
        nonlocal inside, count
        for _ in range(200):
            with lock:
                inside += 1
                time.sleep(0)
                assert inside == 1
                count += 1
                inside -= 1

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert count == 800
    assert not lock.wanted
    assert lock.take()
