"""The text: Python's own language reference, as `help()` shows it. It comes with Python (PSF licence)."""

from __future__ import annotations

from collections.abc import Iterator
from pydoc_data.topics import topics

import torch

HELD_OUT = 10  # every so-manyth piece of the text is kept for validation
PIECE = 2048  # characters

Pairs = tuple[torch.Tensor, torch.Tensor]


class Text:
    """Characters as numbers, divided into pieces to train on and pieces to validate on."""

    def __init__(self) -> None:
        # Several topics quote the same paragraphs; each is taken once, or validation would know the answers.
        paragraphs = (part for name in sorted(topics) for part in topics[name].split("\n\n"))
        text = "\n\n".join(dict.fromkeys(paragraphs))
        self.characters = sorted(set(text))
        number = {character: index for index, character in enumerate(self.characters)}
        numbers = torch.tensor([number[character] for character in text])
        pieces = numbers[: len(numbers) // PIECE * PIECE].view(-1, PIECE)
        kept = torch.arange(len(pieces)) % HELD_OUT == HELD_OUT - 1
        self._training, self._validation = pieces[~kept], pieces[kept]

    def batches(self, worker: int, workers: int, *, size: int, length: int) -> Iterator[Pairs]:
        """Random stretches of one worker's share, for ever: (characters, next characters), [size, length]."""
        share, draw = self._training[worker::workers], torch.Generator().manual_seed(worker)
        while True:
            rows = torch.randint(len(share), (size, 1), generator=draw)
            starts = torch.randint(PIECE - length, (size, 1), generator=draw)
            yield _shifted(share[rows, starts + torch.arange(length + 1)])

    def held_out(self, count: int, length: int) -> Pairs:
        """`count` stretches of each piece nobody trains on, at equal distances."""
        starts = torch.arange(count) * ((PIECE - length) // count)
        columns = starts[:, None] + torch.arange(length + 1)
        return _shifted(self._validation[:, columns].flatten(0, 1))


def _shifted(stretches: torch.Tensor) -> Pairs:
    return stretches[:, :-1], stretches[:, 1:]
