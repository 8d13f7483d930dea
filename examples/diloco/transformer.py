"""A small causal transformer over characters, with learned positions and pre-normalised blocks."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

LENGTH = 64  # characters it sees
WIDTH = 64
HEADS = 4
BLOCKS = 2


class Block(nn.Module):
    """Attention, then a perceptron, each added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.before_attention, self.before_perceptron = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.queries_keys_values = nn.Linear(WIDTH, 3 * WIDTH)
        self.attended = nn.Linear(WIDTH, WIDTH)
        self.perceptron = nn.Sequential(nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        size, length, _ = x.shape
        projected = self.queries_keys_values(self.before_attention(x))
        q, k, v = projected.view(size, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        attended = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.attended(attended.transpose(1, 2).reshape(size, length, WIDTH))
        thought: torch.Tensor = self.perceptron(self.before_perceptron(x))
        return x + thought


class Transformer(nn.Module):
    """Logits of the next character after each one: [size, length] to [size, length, characters]."""

    def __init__(self, characters: int, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.characters, self.positions = nn.Embedding(characters, WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(BLOCKS)))
        self.normalised, self.logits = nn.LayerNorm(WIDTH), nn.Linear(WIDTH, characters)
        for each in (self.characters, self.positions):
            nn.init.normal_(each.weight, std=0.1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embedded = self.characters(x) + self.positions(torch.arange(x.shape[1]))
        logits: torch.Tensor = self.logits(self.normalised(self.blocks(embedded)))
        return logits


def loss_of(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The mean cross entropy per character, in nats."""
    return functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
