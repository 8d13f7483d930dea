"""The service's settings: every `serve` option, each also an environment variable GRADLEDGER_<OPTION>."""

from __future__ import annotations

from collections.abc import Container
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from gradledger_server.errors import WrongSetting

PREFIX = "GRADLEDGER_"

Durability = Literal["fsync", "everysec", "memory"]
Where = Literal["auto", "cpu", "gpu"]
LogLevel = Literal["debug", "info", "warning", "error"]


class Settings(BaseSettings):
    """Read once, at start-up, and passed down as arguments."""

    # An empty variable is what a compose file makes of one that nobody has set.
    model_config = SettingsConfigDict(env_prefix=PREFIX, env_ignore_empty=True, extra="ignore")

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data_dir: Path = Field(Path(".gradledger"), description="Where the embedded Valkey keeps its files.")
    redis_url: str | None = Field(
        None,
        description="Redis >= 7.0 or Valkey >= 7.2 instead of the embedded one (redis://, rediss://, unix://).",
    )
    durability: Durability | None = Field(
        None,
        description="What the log must survive: fsync (power cut), everysec (power cut, less a second) or "
        "memory. Default: fsync for the embedded server; whatever an external one gives.",
    )
    device: Where = Field("auto", description="Where the arithmetic runs.")
    workers: int = Field(1, ge=1, le=256, description="Service processes behind the one port.")
    threads: int | None = Field(
        None, ge=1, description="Kernel threads of a process; default: its share of the cores."
    )
    compiled: bool = Field(True, description="Compiled kernels; NumPy's give the same bits, more slowly.")
    max_body_bytes: int = Field(4 << 30, ge=1024, description="No request may be larger, whatever its model.")
    max_json_bytes: int = Field(8 << 20, ge=1024, description="No JSON body may be larger; use safetensors.")
    stall_s: float = Field(
        30.0, ge=0, description="An unfinished request must bring 8 KiB/s over so many seconds; 0: no hurry."
    )
    idle_drop_s: float = Field(600.0, gt=0, description="Seconds unused before a model leaves memory.")
    snapshot_quiet_s: float = Field(2.0, gt=0, description="Seconds without a push before a model is saved.")
    snapshot_log_ratio: float = Field(
        4.0, gt=0, description="A model is saved when its log is so many times as large as its state."
    )
    drain_s: int = Field(20, ge=0, description="Seconds that open requests are given at SIGTERM.")
    log_level: LogLevel = Field("info", description="Log threshold.")


def read(**options: Any) -> Settings:
    """The settings by these options where they are not None, else by the environment, else by default.

    Raises WrongSetting if one cannot be, naming it as it was given.
    """
    given = {name: value for name, value in options.items() if value is not None}
    try:
        return Settings(**given)
    except ValidationError as wrong:
        raise WrongSetting("; ".join(_complaint(error, given) for error in wrong.errors())) from None


def option(name: str) -> str:
    """The setting's name on the command line."""
    return f"--{name.replace('_', '-')}"


def variable(name: str) -> str:
    """The setting's name in the environment."""
    return f"{PREFIX}{name.upper()}"


def _complaint(error: ErrorDetails, given: Container[str]) -> str:
    """Which setting, what it must be, and what it is."""
    name = str(error["loc"][0])
    # As in "Input should be a valid integer, unable to parse string as an integer".
    expected = error["msg"].partition(" should ")[2].partition(", unable ")[0]
    return f"{option(name) if name in given else variable(name)} must {expected}, got {error['input']!r}"
