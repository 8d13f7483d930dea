"""What a model has seen of the service's parameters, so that it need not ask for what it has."""

from __future__ import annotations

from dataclasses import dataclass

from gradledger.errors import MalformedAnswer
from gradledger.rows import Rows
from gradledger.tensors import Params


@dataclass(frozen=True, slots=True)
class Seen:
    """One version. `params` is None if it was read into arrays of the caller's, who may change them."""

    etag: str
    step: int
    order: tuple[str, ...]  # of the dense tensors in the service's bodies
    params: Params | None

    @classmethod
    def of(cls, etag: str, params: Params, *, ours: bool) -> Seen:
        """What an answer with this ETag held; `ours` says that nobody else may change it."""
        step = etag.rpartition(".")[2].rstrip('"')
        if not step.isdecimal():
            raise MalformedAnswer(f'expected an ETag "<epoch>.<step>", got {etag!r}')
        dense = {name: value for name, value in params.items() if not isinstance(value, Rows)}
        return cls(etag, int(step), tuple(dense), dense if ours else None)

    @property
    def epoch(self) -> str:
        """Names this life of the model."""
        return self.etag.rpartition(".")[0]

    def replaces(self, known: Seen | None) -> bool:
        """Whether it is not older than what was known, or of another life of the model."""
        return known is None or known.epoch != self.epoch or known.step <= self.step
