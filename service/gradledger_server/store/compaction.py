"""When our own Valkey writes its append-only file anew: as soon as most of it has been let go.

Valkey itself looks at the file's growth alone. So it mostly begins while the logs are long, and writes once
more what their next snapshots let go. A log is let go in one piece, once its snapshot is published: right
behind that the file is several times what it needs to be, and there is least to write.
"""

from __future__ import annotations

from gradledger_server.store.server_facts import Fields

LOOK_S = 1.0  # between two looks: a log that was just let go has not grown again by then
RETRY_S = 60.0  # after a rewriting that failed: on a disk that is full the next one will, too
WORTH_BYTES = 2 << 30  # of the file; rewriting slows large pushes down, so there are no small ones
NEEDED_AT_MOST = 0.5  # of the file, for which it is written anew
# When Valkey does it unasked: a log and its snapshot are five times the state, so something else has grown.
UNASKED_PERCENT = 600
UNASKED_BYTES = 16 << 30

_BUSY = ("aof_rewrite_in_progress", "aof_rewrite_scheduled", "rdb_bgsave_in_progress", "loading")


def is_due(info: Fields) -> bool:
    """Whether the server, whose INFO this is, has a file of which most is needed no more."""
    file_bytes, needed_bytes = int(info.get("aof_current_size", 0)), int(info.get("used_memory", 0))
    idle = all(info.get(field) == "0" for field in _BUSY)
    return idle and file_bytes >= WORTH_BYTES and needed_bytes <= NEEDED_AT_MOST * file_bytes


def pause_s(info: Fields) -> float:
    """How long to leave such a server alone after a look."""
    return LOOK_S if info.get("aof_last_bgrewrite_status", "ok") == "ok" else RETRY_S
