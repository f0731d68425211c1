"""The losses of the linear heads and the loop that trains a head on cached features (DINOv3's public protocol).

The heads are those of the boosted encoder's own depth and segmentation models, so a probe can be put into one.
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from evaluators.metrics import IGNORED_CLASS
from modeling_spatialboost.dense_heads import (
    LinearDepthHead,
    LinearSegmentationHead,
    scale_invariant_log_loss,
    upsample,
)

__all__ = [
    "FitConfig",
    "HeadFit",
    "LinearDepthHead",
    "LinearSegmentationHead",
    "Loss",
    "Resize",
    "SigLoss",
    "batch_order",
    "deterministic_kernels",
    "fit_head",
    "segmentation_loss",
]

# (prediction, target, step) -> scalar
Loss = Callable[[torch.Tensor, torch.Tensor, int], torch.Tensor]
# (output of a head, (H, W)) -> the same at that size
Resize = Callable[[torch.Tensor, tuple[int, int]], torch.Tensor]


@dataclass(frozen=True)
class FitConfig:
    """How a head is trained: AdamW, one cosine cycle with warm-up, a fixed number of steps and no selection."""

    steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    beta2: float
    warmup_steps: int
    gradient_clip: float | None = None


class SigLoss:
    """Scale-invariant logarithmic loss `sqrt(var(g) + 0.15 * mean(g)^2)`, g = log(prediction) - log(truth).

    The first `warmup_steps` drop the variance. Truth outside (min_depth_m, max_depth_m) does not count.
    """

    def __init__(self, min_depth_m: float, max_depth_m: float, warmup_steps: int = 100) -> None:
        """Keep the range and the length of the warm-up."""
        self.min_depth_m, self.max_depth_m, self.warmup_steps = min_depth_m, max_depth_m, warmup_steps

    def __call__(self, prediction_m: torch.Tensor, truth_m: torch.Tensor, step: int) -> torch.Tensor:
        """Return the loss of (B, H, W) depths in metres, 0 where no pixel counts."""
        valid = (truth_m > self.min_depth_m) & (truth_m < self.max_depth_m)
        return scale_invariant_log_loss(prediction_m, truth_m, valid, with_variance=step >= self.warmup_steps)


def segmentation_loss(logits: torch.Tensor, class_ids: torch.Tensor, step: int) -> torch.Tensor:
    """Return the cross-entropy of (B, K, H, W) logits and (B, H, W) ids, 255 ignored; 0 where nothing counts.

    The pixels are flattened, since PyTorch's two-dimensional cross-entropy is not deterministic on a GPU.
    """
    total = functional.cross_entropy(
        logits.permute(0, 2, 3, 1).flatten(0, 2),
        class_ids.flatten().long(),
        ignore_index=IGNORED_CLASS,
        reduction="sum",
    )
    return total / (class_ids != IGNORED_CLASS).sum().clamp(min=1)


def fit_head(
    make_head: Callable[[], nn.Module],
    features: torch.Tensor,
    targets: torch.Tensor,
    loss: Loss,
    config: FitConfig,
    seed: int,
    device: torch.device | str = "cpu",
    resize: Resize = upsample,
) -> nn.Module:
    """Train a new head on cached features; the last step's weights are returned, nothing is selected.

    The seed alone decides the head's first weights, the batch order and the dropout, so that heads of two encoders
    of one width are paired. The caller's random state is left as it was.

    Args:
        make_head: builds the head, called under the seed.
        features: (N, C, h, w), on the CPU or memory-mapped.
        targets: (N, H, W), what `loss` compares the head's output with, upsampled to (H, W).
        loss: of (prediction, target, step).
        config: the optimisation.
        seed: see above.
        device: where the head trains.
        resize: brings the head's output to (H, W).

    Returns:
        The head in eval mode.
    """
    with torch.random.fork_rng(), deterministic_kernels():
        fit = HeadFit(make_head, loss, config, seed, device)
        batches = batch_order(len(features), config.batch_size, config.steps, seed)
        for indices in tqdm(batches, desc=f"head, seed {seed}", total=config.steps, unit="step"):
            fit.step(features[indices].to(device).float(), targets[indices].to(device), resize)
    return fit.head.eval()


class HeadFit:
    """A head that is being trained: AdamW and one cycle of the learning rate."""

    def __init__(
        self,
        make_head: Callable[[], nn.Module],
        loss: Loss,
        config: FitConfig,
        seed: int,
        device: torch.device | str,
    ) -> None:
        """Make the head under the seed; see `fit_head`."""
        torch.manual_seed(seed)
        self.head, self.loss, self.gradient_clip = make_head().to(device).train(), loss, config.gradient_clip
        self.steps_done = 0
        self.optimizer = torch.optim.AdamW(
            self.head.parameters(), config.learning_rate, (0.9, config.beta2), weight_decay=config.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimizer,
            config.learning_rate,
            total_steps=config.steps,
            pct_start=config.warmup_steps / config.steps,
            final_div_factor=1000,
        )

    def step(self, features: torch.Tensor, targets: torch.Tensor, resize: Resize) -> None:
        """Take one step on (B, C, h, w) features and (B, H, W) targets."""
        prediction = resize(self.head(features), (targets.shape[1], targets.shape[2]))
        self.optimizer.zero_grad()
        self.loss(prediction, targets, self.steps_done).backward()
        if self.gradient_clip:
            nn.utils.clip_grad_norm_(self.head.parameters(), self.gradient_clip)
        self.optimizer.step()
        self.schedule.step()
        self.steps_done += 1


def batch_order(num_items: int, batch_size: int, steps: int, seed: int) -> Iterator[torch.Tensor]:
    """Yield `steps` batches of indices, each epoch a new permutation, the incomplete last batch left out."""
    generator = torch.Generator().manual_seed(seed)
    batch_size = min(batch_size, num_items)
    queue = torch.empty(0, dtype=torch.int64)
    for _ in range(steps):
        if len(queue) < batch_size:
            queue = torch.randperm(num_items, generator=generator)
        yield queue[:batch_size]
        queue = queue[batch_size:]


@contextlib.contextmanager
def deterministic_kernels() -> Iterator[None]:
    """Use PyTorch's deterministic kernels for a while; an operation that has none warns."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
