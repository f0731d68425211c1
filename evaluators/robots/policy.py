"""CortexBench's behaviour-cloning policy: three frames fused by their differences, a batch-normed MLP, MSE."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

HISTORY = 3
HIDDEN_SIZES = (256, 256, 256)
LEARNING_RATE = 1e-3
BATCH_SIZE = 256


@dataclass(frozen=True)
class Examples:
    """What a policy learns from: per step of all demonstrations.

    Attributes:
        embeddings: (N, D) of the picture, or of whatever stands in for it.
        proprioception: (N, P).
        actions: (N, A).
        history: (N, HISTORY) indices of the last steps of the same episode, the oldest first; the first step stands
            in for those before it.
    """

    embeddings: torch.Tensor
    proprioception: torch.Tensor
    actions: torch.Tensor
    history: torch.Tensor

    def to(self, device: torch.device) -> "Examples":
        """Return the same on a device."""
        tensors = (self.embeddings, self.proprioception, self.actions, self.history)
        return Examples(*(tensor.to(device) for tensor in tensors))


def history_indices(lengths: np.ndarray) -> np.ndarray:
    """Return (N, HISTORY) indices for episodes of these lengths laid end to end; see `Examples.history`."""
    ends = np.cumsum(lengths)
    starts = np.repeat(ends - lengths, lengths)  # (N,)
    back = np.arange(HISTORY)[::-1]
    return np.maximum(np.arange(ends[-1])[:, None] - back, starts[:, None])


def fuse(embeddings: torch.Tensor) -> torch.Tensor:
    """Fuse the embeddings of the last frames by FLARE: the differences between neighbours, then the newest one.

    Source: FLARE (Shang et al., 2021) as in CortexBench's `fuse_embeddings_flare`.

    Args:
        embeddings: (B, HISTORY, D), the oldest first.

    Returns:
        (B, HISTORY * D).
    """
    differences = embeddings[:, 1:] - embeddings[:, :-1]  # (B, HISTORY - 1, D)
    return torch.cat([differences.flatten(1), embeddings[:, -1]], dim=1)


class ClonedPolicy(nn.Module):
    """Motor commands of (fused embeddings, proprioception)."""

    def __init__(self, embedding_size: int, num_proprioception: int, num_actions: int) -> None:
        super().__init__()
        sizes = (HISTORY * embedding_size + num_proprioception, *HIDDEN_SIZES)
        layers: list[nn.Module] = [nn.BatchNorm1d(sizes[0])]
        for size, next_size in itertools.pairwise(sizes):
            layers += [nn.Linear(size, next_size), nn.ReLU()]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], num_actions))

    def forward(self, embeddings: torch.Tensor, proprioception: torch.Tensor) -> torch.Tensor:
        """Return (B, A) for embeddings (B, HISTORY, D) and proprioception (B, P)."""
        return self.layers(torch.cat([fuse(embeddings), proprioception], dim=1))


def train_policy(examples: Examples, epochs: int, seed: int) -> Iterator[ClonedPolicy]:
    """Clone the behaviour by MSE with Adam; yield the policy after every epoch, ready to act.

    The seed decides the first weights and the order of the examples; the device is that of the examples.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = ClonedPolicy(
            examples.embeddings.shape[1], examples.proprioception.shape[1], examples.actions.shape[1]
        )
    policy.to(examples.actions.device)
    optimizer = torch.optim.Adam(policy.parameters(), LEARNING_RATE)
    order = torch.Generator().manual_seed(seed)
    for _ in range(epochs):
        policy.train()
        for batch in (
            torch.randperm(len(examples.actions), generator=order).to(examples.actions.device).split(BATCH_SIZE)
        ):
            if len(batch) == 1:  # BatchNorm needs two
                continue
            predicted = policy(examples.embeddings[examples.history[batch]], examples.proprioception[batch])
            optimizer.zero_grad()
            functional.mse_loss(predicted, examples.actions[batch]).backward()
            optimizer.step()
        yield policy.eval()


def evaluated_epochs(epochs: int, every: int) -> list[int]:
    """Return the epochs, from 1, after which CortexBench tries the policy: every so many and the last one."""
    return [epoch for epoch in range(1, epochs + 1) if ((epoch - 1) % every == 0 and epoch > 1) or epoch == epochs]
