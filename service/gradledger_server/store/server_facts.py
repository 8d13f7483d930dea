"""What the server at the other end is and promises, read from the server itself and never assumed."""

from __future__ import annotations

from gradledger_server.errors import StoreUnsuitable
from gradledger_server.store.contract import DURABILITIES, StoreFacts

OLDEST = {"redis": (7, 0), "valkey": (7, 2)}

Fields = dict[str, str]


def parse_info(text: bytes) -> Fields:
    """The fields of an INFO reply."""
    lines = text.decode(errors="replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def read_facts(info: Fields, config: Fields | None) -> StoreFacts:
    """The facts in the answers to INFO and CONFIG GET; `config` is None if the server hides it.

    Raises StoreUnsuitable if the server cannot keep a log at all.
    """
    server = "valkey" if "valkey_version" in info else "redis"
    version = info.get(f"{server}_version", "unknown")
    _require_version(server, version)
    _require(
        info.get("maxmemory_policy", "noeviction") == "noeviction",
        f"{server} has maxmemory-policy {info.get('maxmemory_policy')}, which throws entries of the log "
        "away; expected noeviction",
        "Set maxmemory-policy noeviction on the server.",
    )
    _require(
        info.get("role", "master") == "master",
        f"this {server} is a read-only replica; expected the primary",
        "Point --redis-url at the primary.",
    )
    _require(
        info.get("cluster_enabled", "0") == "0",
        f"this {server} runs in cluster mode; expected a single primary",
        "Point --redis-url at a server that is not in cluster mode.",
    )
    durability, note = _durability(info, config)
    return StoreFacts(
        server=server,
        version=version,
        durability=durability,
        maxmemory_bytes=int(info.get("maxmemory", "0")),
        policy=info.get("maxmemory_policy", "noeviction"),
        note=note,
    )


def require(facts: StoreFacts, durability: str) -> None:
    """Raises StoreUnsuitable if the server is weaker than the durability asked for."""
    if DURABILITIES.index(facts.durability) >= DURABILITIES.index(durability):
        return
    settings = {"fsync": "appendonly yes and appendfsync always", "everysec": "appendonly yes"}[durability]
    raise StoreUnsuitable(
        f"durability {durability} was asked for; this {facts.server} gives {facts.durability}"
        + (f" ({facts.note})" if facts.note else ""),
        hint=f"Set {settings} on the server, or ask for --durability {facts.durability}.",
        expected=durability,
        got=facts.durability,
    )


def _durability(info: Fields, config: Fields | None) -> tuple[str, str]:
    if info.get("aof_enabled") != "1":
        return "memory", ""
    if config is None:
        return "memory", "the server hides CONFIG, so how often it syncs its log to disk cannot be read"
    if config.get("no-appendfsync-on-rewrite") == "yes":
        return "memory", "no-appendfsync-on-rewrite is on, so nothing is synced while the log is rewritten"
    return {"always": "fsync", "everysec": "everysec"}.get(config.get("appendfsync", ""), "memory"), ""


def _require_version(server: str, version: str) -> None:
    oldest = OLDEST[server]
    try:
        found = tuple(int(part) for part in version.split(".")[:2])
    except ValueError:
        found = (0, 0)
    _require(
        found >= oldest,
        f"the server is {server} {version}; expected {server} {'.'.join(map(str, oldest))} or newer",
        "Upgrade the server, or start without --redis-url to use the embedded one.",
    )


def _require(holds: bool, detail: str, hint: str) -> None:
    if not holds:
        raise StoreUnsuitable(detail, hint=hint)
