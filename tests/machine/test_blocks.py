"""Memory comes back to the shelf when its last view is gone, and not one view earlier."""

from __future__ import annotations

import ctypes
import gc
import random
import threading
from functools import partial

import numpy as np
import pytest

from gradledger_server.blocks import Blocks, Unlock, lock_in_place

PAGE_BYTES = 4096


@pytest.mark.parametrize("nbytes", [0, 1, 4096, 4097, 3 << 20])
def test_a_block_has_the_bytes_asked_for_on_a_page_boundary(nbytes: int) -> None:
    block = Blocks().take(nbytes)
    assert (block.nbytes, block.dtype.name, block.flags.writeable) == (nbytes, "uint8", True)
    assert nbytes == 0 or block.__array_interface__["data"][0] % PAGE_BYTES == 0


def test_a_block_returns_when_its_last_view_dies() -> None:
    blocks = Blocks()
    block = blocks.take(PAGE_BYTES)
    address = block.__array_interface__["data"][0]
    views: list[object] = [
        block[10:20],
        block.view(np.float32)[3:5].reshape(2, 1),
        np.ndarray((4,), np.float32, block.data[100:], 4),
        np.frombuffer(block.data, np.uint8)[5:],
    ]
    del block
    while views:
        gc.collect()
        assert blocks.shelved_bytes == 0
        views.pop()
    assert blocks.shelved_bytes == PAGE_BYTES
    assert blocks.take(PAGE_BYTES - 5).__array_interface__["data"][0] == address


def test_sizes_do_not_mix() -> None:
    blocks = Blocks()
    blocks.take(PAGE_BYTES)  # and dropped at once
    big = blocks.take(2 * PAGE_BYTES)
    assert blocks.shelved_bytes == PAGE_BYTES
    big[:] = 1


def test_no_more_is_held_than_was_lately_in_use_at_once_and_all_is_given_back_when_told() -> None:
    blocks = Blocks(keep_bytes=2 * PAGE_BYTES)
    held = [blocks.take(PAGE_BYTES) for _ in range(5)]
    held.clear()
    assert blocks.shelved_bytes == 5 * PAGE_BYTES
    held = [blocks.take(PAGE_BYTES) for _ in range(3)]
    blocks.age()  # five were in use since the last time
    assert blocks.shelved_bytes == 2 * PAGE_BYTES
    blocks.age()  # only three
    assert blocks.shelved_bytes == 0
    held.clear()
    blocks.age()
    blocks.age()
    assert blocks.shelved_bytes == 2 * PAGE_BYTES, "what may be kept in any case"
    blocks.clear()
    assert blocks.shelved_bytes == 0
    assert blocks.take(PAGE_BYTES).nbytes == PAGE_BYTES


def test_a_size_that_is_not_there_pushes_out_what_was_used_longest_ago() -> None:
    blocks = Blocks(keep_bytes=6 * PAGE_BYTES)
    for pages in (1, 2, 3):
        blocks.take(pages * PAGE_BYTES)  # and dropped at once
    assert blocks.shelved_bytes == 6 * PAGE_BYTES
    blocks.take(PAGE_BYTES)
    assert blocks.shelved_bytes == 6 * PAGE_BYTES, "it was there"
    held = blocks.take(4 * PAGE_BYTES)
    assert (held.nbytes, blocks.shelved_bytes) == (4 * PAGE_BYTES, PAGE_BYTES)


def test_a_cycle_of_uses_needs_no_fresh_memory_however_large() -> None:
    """A push: the body comes, the next weights are made, the body goes, then the weights before."""
    blocks = Blocks(keep_bytes=0)
    weights, places = blocks.take(3 * PAGE_BYTES), set()
    for _ in range(10):
        body = blocks.take(4 * PAGE_BYTES)
        following = blocks.take(3 * PAGE_BYTES)
        places |= {block.__array_interface__["data"][0] for block in (body, following)}
        del body
        weights = following
        del following
    assert len(places) == 3
    assert weights.nbytes + blocks.shelved_bytes == 10 * PAGE_BYTES


def test_no_two_threads_ever_hold_the_same_memory() -> None:
    """Each thread signs its block, holds it a while through a view of a view, and finds its own signature."""
    blocks = Blocks(keep_bytes=0)
    wrong: list[str] = []

    def work(number: int) -> None:
        dice = random.Random(number)
        held: list[tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], int]] = []
        for turn in range(800):
            block = blocks.take(dice.choice([100, PAGE_BYTES, 2 * PAGE_BYTES]))
            sign = (number * 31 + turn) % 256
            block[:] = sign
            held.append((np.frombuffer(block[10:].data, np.uint8)[5:], sign))
            if len(held) > 4:
                view, signed = held.pop(dice.randrange(len(held)))
                if not (view == signed).all():
                    wrong.append(f"thread {number} turn {turn}")

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert 0 < blocks.shelved_bytes <= 6 * 5 * 2 * PAGE_BYTES


def test_pages_are_locked_once_and_let_go_before_the_system_gets_them() -> None:
    """Not at each use, and not before there is one. Memory that cannot be locked serves as well."""
    told: list[tuple[str, int]] = []

    def lock(address: int, nbytes: int) -> Unlock | None:
        told.append(("lock", nbytes))
        return None if nbytes == 5 * PAGE_BYTES else partial(unlock, address, nbytes)

    def unlock(address: int, nbytes: int) -> None:
        assert ctypes.string_at(address, 1) == b"\7", "it is still there, and ours"
        assert blocks._lock.acquire(blocking=False), "nobody waits for it"
        blocks._lock.release()
        told.append(("unlock", nbytes))

    blocks = Blocks(keep_bytes=8 * PAGE_BYTES)
    lock_in_place(np.zeros(3), lock)
    for _ in range(3):
        for pages in (1, 5):
            block = blocks.take(pages * PAGE_BYTES)
            block[:] = 7
            lock_in_place(np.frombuffer(block[8:].data[8:], np.float32)[2:], lock)
            lock_in_place(block, lock)
            del block
    assert told == [("lock", PAGE_BYTES), ("lock", 5 * PAGE_BYTES)]
    large = blocks.take(7 * PAGE_BYTES)  # pushes out both
    large[:] = 7
    assert told[2:] == [("unlock", PAGE_BYTES)]
    lock_in_place(large, lock)
    del large
    blocks.clear()
    assert told[3:] == [("lock", 7 * PAGE_BYTES), ("unlock", 7 * PAGE_BYTES)]
