"""Monocular depth through a linear head on frozen features: DINOv3's public NYU recipe on a `dense` data set."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from evaluators.contract import Result
from evaluators.dense_data import DenseData
from evaluators.dense_probe import DenseProbeConfig, MapOfSize, run_probe
from evaluators.encoders import Encoder
from evaluators.heads import FitConfig, LinearDepthHead, Loss, SigLoss
from evaluators.metrics import DEPTH_METRICS, depth_errors
from evaluators.pictures import save_picture

METRICS = DEPTH_METRICS
NUM_BINS = 256
FIT_PRESETS = {
    "full": FitConfig(
        38_400, 16, learning_rate=3e-4, weight_decay=1e-4, beta2=0.99, warmup_steps=12_800, gradient_clip=35.0
    ),
    "cpu": FitConfig(300, 16, learning_rate=1e-2, weight_decay=1e-4, beta2=0.99, warmup_steps=100, gradient_clip=35.0),
}


@dataclass(frozen=True, kw_only=True)
class Config(DenseProbeConfig):
    """A depth probe; truth outside (min_depth_m, max_depth_m), which the bins span, does not count."""

    min_depth_m: float = 1e-3
    max_depth_m: float = 10.0

    def __post_init__(self) -> None:
        """Check the range."""
        if not 0 < self.min_depth_m < self.max_depth_m:
            raise ValueError(f"max_depth_m {self.max_depth_m} is not above {self.min_depth_m} m: pass a larger one")


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Probe depth: RMSE (mean of per-image), AbsRel, delta1, with constant and position-only controls.

    Raises:
        ValueError: if the data is not as `load_dense` wants it or has no depth within the range.
    """
    fit = config.fit or FIT_PRESETS[config.preset]
    return run_probe(encoder, config, fit, partial(DepthTask, config, fit))


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Average per-image errors, (num_images, 3): the published RMSE is this mean, not the global one."""
    return dict(zip((metric.name for metric in METRICS), np.nanmean(items, axis=0).tolist()))


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Image, truth, base and boosted."""
    save_picture(file, base["examples"], boosted["examples"], class_names=None)


class DepthTask:
    """The depth side of a dense probe."""

    protocol = "depth-linear/1"
    column = "depth"

    aggregate = staticmethod(aggregate)

    def __init__(self, config: Config, fit: FitConfig, data: DenseData) -> None:
        """Keep the range of depth and tell the protocol."""
        self.data, self.range_m = data, (config.min_depth_m, config.max_depth_m)
        self.notes: tuple[str, ...] = (
            "Frozen encoder, patch tokens of the last layer after the final norm; BatchNorm, 1x1 convolution to "
            f"{NUM_BINS} uniform depth bins, expectation, bilinear upsampling to the truth's size; SigLoss.",
            "RMSE, AbsRel and δ1 are means of per-image values; truth outside "
            f"({config.min_depth_m:g}, {config.max_depth_m:g}) m does not count, predictions are clamped to it; no "
            "crop of the truth, no flip at test time, no augmentation.",
        )
        self.loss: Loss = SigLoss(*self.range_m, warmup_steps=min(100, fit.steps // 3))

    def make_head(self, channels: int) -> LinearDepthHead:
        """Return a depth head."""
        return LinearDepthHead(channels, NUM_BINS, *self.range_m)

    def to_map(self, output: torch.Tensor) -> np.ndarray:
        """Return the (H, W) metres of a (1, H, W) prediction."""
        return output[0].cpu().numpy()

    def controls(self, targets: torch.Tensor) -> dict[str, MapOfSize]:
        """Return the mean training depth, once over everything and once per pixel position."""
        valid = (targets > self.range_m[0]) & (targets < self.range_m[1])  # (N, H, W)
        if not valid.any():
            raise self._no_depth("train")
        constant_m = targets[valid].mean()
        sums, counts = (targets * valid).sum(0), valid.sum(0)
        position_m = torch.where(counts > 0, sums / counts.clamp(min=1), constant_m)  # (H, W)

        def position_only(size: tuple[int, int]) -> np.ndarray:
            return functional.interpolate(position_m[None, None], size, mode="bilinear")[0, 0].numpy()

        return {"constant": lambda size: np.full(size, float(constant_m)), "position_only": position_only}

    def measure(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return (num_images, 3) errors, NaN for an image without truth."""
        errors = [depth_errors(prediction_m, truth_m, *self.range_m) for prediction_m, truth_m in pairs]
        if not any(errors):
            raise self._no_depth("test")
        return np.array([list(error.values()) if error else [np.nan] * len(METRICS) for error in errors])

    def _no_depth(self, split: str) -> ValueError:
        low_m, high_m = self.range_m
        return ValueError(
            f"data {self.data.source!r} has no depth between {low_m} and {high_m} m in split {split!r}: pass another "
            "max_depth_m, or check that the depth is in millimetres"
        )
