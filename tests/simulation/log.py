"""The one log that all replicas share: a list, with the checks that the store makes in one step."""

from __future__ import annotations

from dataclasses import dataclass, field

from gradledger_server.entries import Entry, Push
from gradledger_server.machine.receipts import identity_of
from gradledger_server.store.contract import Gap, Moved, Seen


@dataclass
class Log:
    """Entries at offsets 1, 2, 3 …, each with what the world's clock said, which no replica knows."""

    entries: list[Entry] = field(default_factory=list)
    sequences: dict[str, int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The offset of the last entry."""
        return len(self.entries)

    def append(self, entry: Entry, *, expected: int | None = None) -> int | Seen | Gap | Moved:
        """The entry's offset, or why it has none; `expected` makes it a compare-and-set on the log's end."""
        identity = identity_of(entry) if isinstance(entry, Push) else None
        if identity is not None and isinstance(entry, Push):
            last, sequence = self.sequences.get(identity, 0), entry.sequence or 1
            if sequence <= last:
                return Seen()
            if sequence > last + 1:
                return Gap(last + 1)
        if expected is not None and expected != self.end:
            return Moved()
        if identity is not None and isinstance(entry, Push):
            self.sequences[identity] = entry.sequence or 1
        self.entries.append(entry)
        return self.end
