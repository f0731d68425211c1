"""Linear depth and segmentation heads on the patch features, and what they are compared with."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from modeling_spatialboost.dense_heads import (
    LinearDepthHead,
    LinearSegmentationHead,
    scale_invariant_log_loss,
    upsample,
)
from trainers.baselines.view_checks import IGNORED_CLASS
from trainers.baselines.view_data import View, resize_nearest


class DepthDecoder(nn.Module):
    """The linear probe's head: BatchNorm, one 1x1 convolution to 256 bins; its loss is SigLoss."""

    def __init__(self, channels: int, max_depth_m: float, min_depth_m: float = 1e-3, num_bins: int = 256) -> None:
        """`channels`: C of the features; depths outside the range are not counted."""
        super().__init__()
        self.head = LinearDepthHead(channels, num_bins, min_depth_m, max_depth_m)

    def forward(self, features: torch.Tensor, view_counts: torch.Tensor, depth_m: torch.Tensor) -> torch.Tensor:
        """(V, C, h, w) features of V views and (V, H, W) depth in metres, 0 = no reading -> the loss."""
        predicted_m = upsample(self.head(features).float(), depth_m.shape[-2:])
        valid = (depth_m > self.head.min_depth_m) & (depth_m < self.head.max_depth_m)
        return scale_invariant_log_loss(predicted_m, depth_m, valid)


class SegmentationDecoder(nn.Module):
    """The linear probe's head: dropout, BatchNorm, one 1x1 convolution to classes; its loss is cross entropy."""

    def __init__(self, channels: int, num_classes: int) -> None:
        """`channels`: C of the features."""
        super().__init__()
        self.head = LinearSegmentationHead(channels, num_classes)

    def forward(self, features: torch.Tensor, view_counts: torch.Tensor, classes: torch.Tensor) -> torch.Tensor:
        """(V, C, h, w) features of V views and (V, H, W) class ids, 255 = ignored -> the loss."""
        logits = upsample(self.head(features).float(), classes.shape[-2:])
        total = functional.cross_entropy(logits, classes, ignore_index=IGNORED_CLASS, reduction="sum")
        return total / (classes != IGNORED_CLASS).sum().clamp(min=1)


def depth_targets(samples: list[list[View]], size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """`depth_m` (V, H, W) of all views, in metres; 0 where there is no reading."""
    maps = [np.zeros(size, np.float32) if v.depth_m is None else v.depth_m for views in samples for v in views]
    return {"depth_m": torch.from_numpy(np.stack([resize_nearest(one, size) for one in maps]))}


def class_targets(samples: list[list[View]], size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """`classes` (V, H, W) of all views, int64; 255 where nothing is known."""
    unknown = np.full(size, IGNORED_CLASS, np.uint8)
    maps = [unknown if view.classes is None else view.classes for views in samples for view in views]
    return {"classes": torch.from_numpy(np.stack([resize_nearest(one, size) for one in maps])).long()}
