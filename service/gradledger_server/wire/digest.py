"""The digest of a payload: which body a (worker, sequence) or a key was used for, and is it whole.

XXH3 with 128 bits is as fast as memory. It finds accidents and does not resist an adversary, who could
only forge a retry of his own. Other threads run while it hashes anything beyond 64 KiB.
"""

from __future__ import annotations

from xxhash import xxh3_128


def digest(payload: bytes | memoryview) -> str:
    """The XXH3-128 of `payload` as 32 hex digits."""
    state = xxh3_128()
    state.update(payload)  # the one-shot form holds the interpreter lock in xxhash 3
    return state.hexdigest()
