"""Semantic segmentation through a linear head on frozen features: DINOv3's public recipe on a `dense` data set."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from evaluators.contract import Result
from evaluators.dense_data import DenseData, resize_nearest
from evaluators.dense_probe import DenseProbeConfig, MapOfSize, run_probe
from evaluators.encoders import Encoder
from evaluators.heads import FitConfig, LinearSegmentationHead, Loss, segmentation_loss
from evaluators.metrics import IGNORED_CLASS, SEGMENTATION_METRICS, overlap, segmentation_scores
from evaluators.pictures import save_picture

METRICS = SEGMENTATION_METRICS
FIT_PRESETS = {
    "full": FitConfig(40_000, 16, learning_rate=1e-3, weight_decay=1e-3, beta2=0.999, warmup_steps=1_500),
    "cpu": FitConfig(300, 16, learning_rate=1e-2, weight_decay=1e-3, beta2=0.999, warmup_steps=30),
}


@dataclass(frozen=True, kw_only=True)
class Config(DenseProbeConfig):
    """A segmentation probe; the classes are those of the data's classes.json."""


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Probe segmentation: mIoU over the data set and pixel accuracy, with constant and position-only controls.

    Raises:
        ValueError: if the data is not as `load_dense` wants it or every pixel of a split is ignored.
    """
    return run_probe(encoder, config, config.fit or FIT_PRESETS[config.preset], SegmentationTask)


aggregate = segmentation_scores


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Image, truth, base and boosted."""
    save_picture(file, base["examples"], boosted["examples"], base["data"]["classes"])


class SegmentationTask:
    """The segmentation side of a dense probe."""

    protocol = "segmentation-linear/1"
    aggregate = staticmethod(segmentation_scores)
    column = "segmentation"
    notes: tuple[str, ...] = (
        "Frozen encoder, patch tokens of the last layer after the final norm; channel dropout 0.1, BatchNorm, 1x1 "
        "convolution to classes, bilinear upsampling of the logits to the truth's size; cross-entropy.",
        "mIoU is computed from pixel counts of the whole test split, the mean over classes that occur in truth or "
        "prediction; id 255 does not count; whole image at once (no sliding window), one scale, no augmentation.",
    )

    def __init__(self, data: DenseData) -> None:
        """Keep the number of classes."""
        self.data, self.num_classes = data, len(data.class_names)
        self.loss: Loss = segmentation_loss
        if not self.num_classes:
            raise self._no_class("train")

    def make_head(self, channels: int) -> LinearSegmentationHead:
        """Return a segmentation head."""
        return LinearSegmentationHead(channels, self.num_classes)

    def to_map(self, output: torch.Tensor) -> np.ndarray:
        """Return (H, W) class ids of (1, K, H, W) logits."""
        return output[0].argmax(0).cpu().numpy()

    def controls(self, targets: torch.Tensor) -> dict[str, MapOfSize]:
        """Return the most frequent training class, once over everything and once per pixel position."""
        counts = torch.stack([(targets == class_id).sum(0) for class_id in range(self.num_classes)])  # (K, H, W)
        if not counts.any():
            raise self._no_class("train")
        constant = int(counts.sum((1, 2)).argmax())
        position = torch.where(counts.sum(0) > 0, counts.argmax(0), constant).numpy()  # (H, W)
        return {
            "constant": lambda size: np.full(size, constant),
            "position_only": lambda size: resize_nearest(position, size),
        }

    def measure(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return (num_images, 3K) pixel counts, see `overlap`."""
        items = np.stack([overlap(prediction, truth, self.num_classes) for prediction, truth in pairs])
        if not items[:, -self.num_classes :].any():
            raise self._no_class("test")
        return items

    def _no_class(self, split: str) -> ValueError:
        return ValueError(
            f"data {self.data.source!r} has only ignored pixels ({IGNORED_CLASS}) in split {split!r}: pass data with "
            "class maps, or leave the task 'segmentation' out"
        )
