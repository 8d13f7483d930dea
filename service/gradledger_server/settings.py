"""The service's settings: every `serve` option, each also an environment variable GRADLEDGER_<OPTION>."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

Durability = Literal["fsync", "everysec", "memory"]


class Settings(BaseSettings):
    """Read once, at start-up, and passed down as arguments."""

    model_config = SettingsConfigDict(env_prefix="GRADLEDGER_", extra="ignore")

    host: str = Field("127.0.0.1", description="Address to listen on.")
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
    device: Literal["auto", "cpu", "gpu"] = Field("auto", description="Where the arithmetic runs.")
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
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Log threshold.")
