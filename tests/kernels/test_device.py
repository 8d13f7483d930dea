"""The CPU as a device, and the choice of devices."""

from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from gradledger_server.errors import DeviceUnavailable
from gradledger_server.kernels.cpu import CpuDevice
from gradledger_server.kernels.crew import Crew
from gradledger_server.kernels.device import open_device
from gradledger_server.kernels.kept import KERNELS, Kept
from gradledger_server.kernels.llvm import parts
from tests.kernels.programs import drawn, run, same_bits, traced


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("count", [0, 1, 1000])
def test_arrays_start_on_a_cache_line(compiled: bool, count: int) -> None:
    device = open_device("cpu", compiled=compiled)
    for dtype in (np.float32, np.float64):
        for array in (device.zeros(count, dtype), device.full(count, dtype, 0.1), device.empty(count, dtype)):
            assert array.shape == (count,) and array.dtype == dtype
            assert count == 0 or array.ctypes.data % 64 == 0
        assert (device.zeros(count, dtype) == 0).all()
        assert (device.full(count, dtype, 0.1) == np.dtype(dtype).type(0.1)).all()


def test_compiled_and_plain_devices_give_the_same_bits() -> None:
    program, scalars = traced("adamw")
    arrays = drawn(program, 100_000, np.float32)
    plain, compiled = open_device("cpu", compiled=False), open_device("cpu", threads=2)
    assert "numpy" in plain.name and "llvm" in compiled.name
    left, right = (run(device.kernel(program, np.float32), arrays, scalars) for device in (plain, compiled))
    assert all(same_bits(left[name], right[name]) for name in arrays)
    assert plain.sum_of_squares(arrays["g"]) == compiled.sum_of_squares(arrays["g"])


def test_a_kernel_is_made_once() -> None:
    device = CpuDevice()
    program, _ = traced("adam")
    assert device.kernel(program, np.float32) is device.kernel(program, "f4")
    assert device.kernel(program, np.float32) is not device.kernel(program, np.float64)


def test_kernels_asked_for_long_ago_are_dropped_and_go_on_running() -> None:
    device = CpuDevice(compiled=False)
    programs = [replace(traced("adam")[0], name=f"adam{number}") for number in range(KERNELS + 1)]
    kernels = [device.kernel(program, "f4") for program in programs[:-1]]
    assert device.kernel(programs[0], "f4") is kernels[0]
    device.kernel(programs[-1], "f4")
    assert device.kernel(programs[0], "f4") is kernels[0], "asked for a moment ago"
    assert device.kernel(programs[1], "f4") is not kernels[1]
    program, scalars = traced("adam")
    arrays = drawn(program, 10, np.float32)
    dropped, present = (run(kernel, arrays, scalars) for kernel in (kernels[1], device.kernel(program, "f4")))
    assert all(same_bits(dropped[name], present[name]) for name in arrays)


def test_what_many_threads_ask_for_at_once_is_made_once() -> None:
    made: list[int] = []

    def make(number: int) -> list[int]:
        time.sleep(0.001)
        made.append(number)
        return [number]

    kept = Kept(make, 8)
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(kept, [1, 2, 3, 4] * 20))
    assert sorted(made) == [1, 2, 3, 4] and len({id(value) for value in values}) == len(kept) == 4


def test_what_is_made_does_not_wait_for_what_is_being_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """A push is measured on the event loop; a model created meanwhile compiles for some 20 ms."""
    device, begun, finish = CpuDevice(threads=1), threading.Event(), threading.Event()
    ready = device.kernel(traced("adam")[0], np.float32)
    numbers = np.ones(10, np.float32)
    assert device.sum_of_squares(numbers) == 10

    def slow(*_: object) -> object:
        begun.set()
        assert finish.wait(10)
        return ready

    monkeypatch.setattr("gradledger_server.kernels.cpu.LlvmKernel", slow)
    with ThreadPoolExecutor(3) as pool:
        made = pool.submit(device.kernel, traced("sgd")[0], np.float32)
        try:
            assert begun.wait(10)
            assert pool.submit(device.kernel, traced("adam")[0], np.float32).result(5) is ready
            assert pool.submit(device.sum_of_squares, numbers).result(5) == 10
        finally:
            finish.set()
        assert made.result(5) is ready


def test_to_device_and_back() -> None:
    device = open_device("cpu")
    host = np.arange(5, dtype=np.float32)
    there = device.to_device(host)
    back = np.empty_like(host)
    device.to_host(there, back)
    assert same_bits(back, host)
    with pytest.raises(TypeError):
        device.to_host(there, np.empty(5, np.float64))


def test_a_gpu_asked_for_by_name_must_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it raises ImportError
    with pytest.raises(DeviceUnavailable, match="no GPU can be used"):
        open_device("gpu")
    assert open_device("auto").name.startswith("cpu")


def test_parts_cover_everything_once_and_meet_on_cache_lines() -> None:
    for base, count in ((0, 10**6), (4, 10**6), (60, 786_433), (0, 5)):
        ranges = parts(base, count, 4)
        assert [start for start, _ in ranges] == [0, *(stop for _, stop in ranges[:-1])]
        assert ranges[-1][1] == count
        assert all((base + 4 * stop) % 64 == 0 for _, stop in ranges[:-1])


def test_a_crew_does_every_part_once_and_tells_of_failure() -> None:
    done: list[tuple[int, int]] = []
    wanted = [(i, i + 1) for i in range(100)]
    for threads in (1, 4):
        done.clear()
        Crew(threads).spread(lambda start, stop: done.append((start, stop)), wanted)
        assert sorted(done) == wanted

    def fail(start: int, stop: int) -> None:
        raise ArithmeticError(str(start))

    with pytest.raises(ArithmeticError):
        Crew(2).spread(fail, wanted)
