"""The CUDA source, run by a C++ compiler for this processor: what it says, without a GPU to say it to.

CUDA's words are defined away: a launch is two loops, and the 32 lanes of a warp, where they exchange numbers,
are 32 threads that wait for each other. What is left to a GPU is its own arithmetic.
"""

from __future__ import annotations

import ctypes
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

COMPILE = ("g++", "-std=c++20", "-O1", "-ffp-contract=off", "-shared", "-fPIC", "-pthread", "-x", "c++")
CTYPES: dict[str, Any] = {"float": ctypes.c_float, "double": ctypes.c_double, "long long": ctypes.c_longlong}

PRELUDE = """
#include <cmath>
#define __global__
using namespace std;
struct Place { long long x; };
static thread_local Place blockIdx, blockDim{256}, threadIdx;
"""
EXCHANGE = """
#include <barrier>
#include <thread>
#include <vector>
static thread_local double* offered;
static thread_local barrier<>* warp;
static double __shfl_down_sync(unsigned, double mine, int distance) {
  const int lane = threadIdx.x % 32;
  offered[lane] = mine;
  warp->arrive_and_wait();
  const double theirs = lane + distance < 32 ? offered[lane + distance] : mine;
  warp->arrive_and_wait();
  return theirs;
}
"""
ELEMENTS = """
extern "C" void host_{name}({parameters}) {{
  for (blockIdx.x = 0; blockIdx.x * 256 < count; ++blockIdx.x)
    for (threadIdx.x = 0; threadIdx.x < 256; ++threadIdx.x) ::{name}({arguments});
}}
"""
WARPS = """
extern "C" void host_{name}({parameters}) {{
  for (long long first = 0; first < (blocks + 7) / 8 * 256; first += 32) {{
    double exchange[32];
    barrier<> lanes(32);
    vector<jthread> threads;
    for (int lane = 0; lane < 32; ++lane) threads.emplace_back([&, lane] {{
      offered = exchange;
      warp = &lanes;
      blockIdx.x = first / 256;
      threadIdx.x = first % 256 + lane;
      ::{name}({arguments});
    }});
  }}
}}
"""


class HostLibrary:
    """Kernels by name, callable with NumPy arrays and scalars."""

    def __init__(self, folder: Path, sources: Mapping[str, str]) -> None:
        self._signatures = {name: _parameters(name, source) for name, source in sources.items()}
        parts = [PRELUDE, *([EXCHANGE] if any("__shfl" in source for source in sources.values()) else [])]
        for name, source in sources.items():
            launch = WARPS if "__shfl" in source else ELEMENTS
            parameters = self._signatures[name]
            spelled = ", ".join(f"{kind} {letter}" for kind, letter in parameters)
            arguments = ", ".join(letter for _, letter in parameters)
            parts += [source, launch.format(name=name, parameters=spelled, arguments=arguments)]
        (folder / "kernels.cu").write_text("\n".join(parts))
        built = [*COMPILE, "kernels.cu", "-o", "kernels.so"]
        subprocess.run(built, cwd=folder, check=True, capture_output=True, text=True)
        self._library = ctypes.CDLL(str(folder / "kernels.so"))

    def __call__(self, name: str, *arguments: npt.NDArray[Any] | float | int) -> None:
        launch = getattr(self._library, f"host_{name}")
        passed: list[Any] = []
        for (kind, letter), argument in zip(self._signatures[name], arguments, strict=True):
            if isinstance(argument, np.ndarray):
                assert kind.endswith("*"), letter
                passed.append(ctypes.c_void_p(argument.ctypes.data))
            else:
                passed.append(CTYPES[kind](argument))
        launch(*passed)


def _parameters(name: str, source: str) -> list[tuple[str, str]]:
    """(type, name) of each parameter of the kernel."""
    found = re.search(rf"void {name}\((.*?)\)", source)
    assert found is not None, name
    pairs = (parameter.rpartition(" ") for parameter in found[1].split(", "))
    return [(kind, letter) for kind, _, letter in pairs]
