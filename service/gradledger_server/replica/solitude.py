"""Whether a model is pushed to from here alone: a guess, by what has been heard of its log.

Where others may write to the server too, nobody knows the log's end without asking. But a connection stays
with the process that took it, so most models hear from one process for a long time. Whoever relies on the
guess has to play the state anew where it is wrong. So it takes half as many pushes as there would be entries
to play, and each time it was wrong it takes twice as many to be made again.
"""

from __future__ import annotations

from gradledger_server.replica.playback import Playback

FEWEST = 8  # pushes from here, and from nobody else, before anybody relies on it
MOST = 1024


class Solitude:
    """Of one model. Whoever asks or tells holds the model's lock, or is about to take it."""

    def __init__(self, playback: Playback) -> None:
        self._playback = playback
        self._heard = playback.heard  # entries that came from the log, not from here
        self._ours = 0  # since the last of those
        self._needed = FEWEST
        self._right = 0  # pushes since that was changed

    @property
    def likely(self) -> bool:
        """Whether so many pushes came from here that the next entry will be one as well."""
        needed = max(self._needed, self._playback.unsaved_entries // 2)
        return self._ours >= needed and self._heard == self._playback.heard

    def note(self, pushes: int = 1) -> None:
        """So many were appended from here."""
        if self._heard != self._playback.heard:
            self._heard, self._ours = self._playback.heard, 0
            return
        self._ours += pushes
        self._right += pushes
        if self._needed > FEWEST and self._right >= 4 * self._needed:
            self._needed, self._right = self._needed // 2, 0

    def wrong(self) -> None:
        """Somebody else was there, or nobody knows. Of pushes in the air together, each may say so."""
        if self._ours:
            self._ours, self._right, self._needed = 0, 0, min(2 * self._needed, MOST)
