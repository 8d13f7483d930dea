"""The memory of a process as the kernel counts it."""

from __future__ import annotations

import re
from pathlib import Path


class Footprint:
    """Resident bytes of one process, now and at their highest since `forget`."""

    def __init__(self, pid: int) -> None:
        self._directory = Path("/proc") / str(pid)

    @property
    def now(self) -> int:
        return self._read("VmRSS")

    @property
    def highest(self) -> int:
        return self._read("VmHWM")

    def forget(self) -> None:
        """From here on `highest` is about what comes."""
        (self._directory / "clear_refs").write_text("5")

    def _read(self, name: str) -> int:
        found = re.search(rf"(?m)^{name}:\s+(\d+) kB$", (self._directory / "status").read_text())
        assert found, f"the kernel tells no {name}"
        return int(found[1]) << 10
