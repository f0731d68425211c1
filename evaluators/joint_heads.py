"""Linear classifiers of many learning rates, trained together: one pass over the features serves them all."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

CHUNK_ROWS = 4_096
# for batches of 256; DINOv3's linear.py
LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 1e-1)


@dataclass(frozen=True)
class LinearFit:
    """How linear classifiers are trained: SGD with momentum 0.9, no weight decay, rates that fall along a cosine.

    Attributes:
        steps: of the optimiser.
        batch_size: B.
        learning_rates: one classifier each, times batch_size / 256.
    """

    steps: int
    batch_size: int
    learning_rates: tuple[float, ...] = LEARNING_RATES

    def for_items(self, count: int) -> "LinearFit":
        """The same with batches of no more than `count` items."""
        return replace(self, batch_size=min(self.batch_size, count))

    @property
    def scaled_rates(self) -> tuple[float, ...]:
        """The learning rates at this batch size."""
        return tuple(rate * self.batch_size / 256 for rate in self.learning_rates)


class JointHeads(nn.Module):
    """H linear classifiers with one first weight, in one product; the weight is (H, K, D), the bias (H, K)."""

    def __init__(self, width: int, num_classes: int, num_heads: int) -> None:
        """Draw one weight of deviation 0.01 for all heads."""
        super().__init__()
        first = torch.empty(width, num_classes).normal_(std=0.01)
        self.weight = nn.Parameter(first.T.repeat(num_heads, 1, 1))
        self.bias = nn.Parameter(torch.zeros(num_heads, num_classes))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return (B, H, K) logits of (B, D) features."""
        logits = functional.linear(features, self.weight.flatten(0, 1), self.bias.flatten())
        return logits.unflatten(1, self.bias.shape)

    @torch.inference_mode()
    def predict(self, features: torch.Tensor) -> torch.Tensor:
        """Return (H, N) class ids of (N, D) features on the CPU or memory-mapped."""
        device = self.weight.device
        return torch.cat([self(chunk.to(device).float()).argmax(2).T.cpu() for chunk in features.split(CHUNK_ROWS)], 1)


def fit_joint_heads(
    batches: Iterable[tuple[torch.Tensor, torch.Tensor]],
    width: int,
    num_classes: int,
    fit: LinearFit,
    seed: int,
    device: torch.device | str = "cpu",
) -> JointHeads:
    """Train one head per learning rate on the same batches.

    Momentum SGD is linear in the gradient, so that a head's rate can scale its loss instead of its step: all heads
    are one tensor under one optimiser.

    Args:
        batches: `fit.steps` times (B, D) features and (B,) labels.
        width: D.
        num_classes: K.
        fit: the optimisation.
        seed: of the first weights.
        device: where the heads are trained.

    Returns:
        The heads in the order of `fit.learning_rates`.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        heads = JointHeads(width, num_classes, len(fit.learning_rates)).to(device)
    rates = torch.tensor(fit.scaled_rates, device=device)
    optimizer = torch.optim.SGD(heads.parameters(), lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, fit.steps)
    for features, labels in tqdm(batches, desc=f"heads, seed {seed}", total=fit.steps, unit="step"):
        optimizer.zero_grad()
        logits = heads(features.to(device).float())  # (B, H, K)
        truth = labels.to(device).repeat_interleave(len(rates))
        losses = functional.cross_entropy(logits.flatten(0, 1), truth, reduction="none").view(-1, len(rates))
        (losses.mean(0) @ rates).backward()
        optimizer.step()
        schedule.step()
    return heads.eval()
