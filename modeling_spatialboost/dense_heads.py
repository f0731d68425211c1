"""Linear heads on frozen patch features, and their losses: the probes of the DINOv2/DINOv3 protocol."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional


class LinearDepthHead(nn.Module):
    """BatchNorm and one 1x1 convolution to bins; depth is the expectation over uniformly spaced bin centres.

    `p = relu(logits) + 0.1`, normalised over the bins; `depth = sum(p * centre)` (AdaBins "linear" normalisation).
    """

    def __init__(self, channels: int, num_bins: int, min_depth_m: float, max_depth_m: float) -> None:
        """Args are the feature size C, the number of bins and the range of the bin centres in metres."""
        super().__init__()
        self.min_depth_m, self.max_depth_m = min_depth_m, max_depth_m
        self.batch_norm = nn.BatchNorm2d(channels)
        self.bin_logits = nn.Conv2d(channels, num_bins, kernel_size=1)
        nn.init.normal_(self.bin_logits.weight, std=0.01)
        nn.init.zeros_(self.bin_logits.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) patch features -> (B, h, w) depth in metres."""
        weights = torch.relu(self.bin_logits(self.batch_norm(features))) + 0.1
        centres = torch.linspace(
            self.min_depth_m, self.max_depth_m, weights.shape[1], device=weights.device, dtype=weights.dtype
        )
        return torch.einsum("bkhw,k->bhw", weights / weights.sum(1, keepdim=True), centres)


class LinearSegmentationHead(nn.Module):
    """Dropout, BatchNorm and one 1x1 convolution to class logits."""

    def __init__(self, channels: int, num_labels: int, dropout: float = 0.1) -> None:
        """Args are the feature size C, the number of classes and the channel dropout."""
        super().__init__()
        self.dropout = nn.Dropout2d(dropout)
        self.batch_norm = nn.BatchNorm2d(channels)
        self.class_logits = nn.Conv2d(channels, num_labels, kernel_size=1)
        nn.init.normal_(self.class_logits.weight, std=0.01)
        nn.init.zeros_(self.class_logits.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) patch features -> (B, num_labels, h, w) logits."""
        return self.class_logits(self.batch_norm(self.dropout(features)))


def upsample(maps: torch.Tensor, size: Sequence[int]) -> torch.Tensor:
    """Bilinear, corners not aligned: (B, K, h, w) or (B, h, w) -> the same with `size` = (H, W)."""
    batched = maps if maps.ndim == 4 else maps[:, None]
    resized = functional.interpolate(batched, size=tuple(size), mode="bilinear", align_corners=False)
    return resized if maps.ndim == 4 else resized[:, 0]


def scale_invariant_log_loss(
    depth_m: torch.Tensor, truth_m: torch.Tensor, valid: torch.Tensor, with_variance: bool = True
) -> torch.Tensor:
    """`sqrt(var(g) + 0.15 * mean(g)^2)`, `g = log(depth + eps) - log(truth + eps)` over valid pixels, eps = 1e-3.

    Args:
        depth_m, truth_m: (B, H, W), metres.
        valid: (B, H, W) bool; where none is true the loss is zero.
        with_variance: False for the warm-up of the linear probe, whose first 100 steps drop the variance term.
    """
    if not valid.any():
        return depth_m.sum() * 0.0
    gap = torch.log(depth_m[valid] + 1e-3) - torch.log(truth_m[valid] + 1e-3)
    variance = gap.var(unbiased=False) if with_variance else gap.new_zeros(())
    return torch.sqrt(variance + 0.15 * gap.mean().square() + 1e-12)
