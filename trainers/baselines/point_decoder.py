"""A small VGGT: attention within and across views on the patch features, and 3D points for every pixel.

After VGGT (arXiv 2503.11539), in small: its layers of alternating attention and its confidence-weighted loss, DUSt3R's
linear head in place of DPT, no camera, depth or track heads, no loss on gradients.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from trainers.baselines.view_data import View, nearest_pixels

MAX_WIDTH, HEAD_WIDTH, NUM_PAIRS = 768, 64, 4  # VGGT-1B is 1024 wide and has 24 pairs
CONFIDENCE_WEIGHT = 0.2


class PointDecoder(nn.Module):
    """Points of all views of a sample in the frame of its first view, from patch features."""

    def __init__(self, channels: int, patch_size: int) -> None:
        """`channels`: C of the features, also the decoder's width up to 768; `patch_size`: pixels."""
        super().__init__()
        num_heads = max(1, min(channels, MAX_WIDTH) // HEAD_WIDTH)
        width = num_heads * min(channels, HEAD_WIDTH)
        self.patch_size = patch_size
        self.project = nn.Linear(channels, width)
        self.place = nn.Linear(2, width)
        self.view_tokens = nn.Parameter(torch.randn(2, width) * 0.02)  # of the first view, and of every other
        self.within, self.across = (
            nn.ModuleList(
                nn.TransformerEncoderLayer(
                    width, num_heads, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
                )
                for _ in range(NUM_PAIRS)
            )
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 4 * patch_size**2)

    def forward(
        self, features: torch.Tensor, view_counts: torch.Tensor, points: torch.Tensor, valid: torch.Tensor
    ) -> torch.Tensor:
        """The loss: mean over valid pixels of `c * |p - p*| - 0.2 * log(c)`.

        Args:
            features: (V, C, h, w) of the views of all samples, one sample after the other.
            view_counts: (B,) views of each sample, V in all.
            points: (V, H, W, 3) in the frame of the sample's first view; their unit does not matter: each sample is
                divided by the mean distance of its points from the first camera.
            valid: (V, H, W) bool.
        """
        predicted, confidence = self.predict(features, view_counts)
        points = points / self._mean_distances(points, valid, view_counts)[:, None, None, None]
        distance = torch.linalg.vector_norm(predicted - points, dim=-1)
        loss = confidence * distance - CONFIDENCE_WEIGHT * torch.log(confidence)
        return torch.where(valid, loss, 0).sum() / valid.sum().clamp(min=1)

    def predict(self, features: torch.Tensor, view_counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Points (V, H, W, 3), scaled to a mean distance of one, and confidences (V, H, W) above 1, float32."""
        height, width = features.shape[-2:]
        places = torch.cartesian_prod(*(torch.linspace(-1, 1, n, device=features.device) for n in (height, width)))
        tokens = self.project(features.flatten(2).mT) + self.place(places)  # (V, h * w, D)
        present = (
            torch.arange(int(view_counts.max()), device=features.device) < view_counts[:, None]
        )  # (B, most views)
        first = torch.zeros_like(present)
        first[:, 0] = True
        view_tokens = self.view_tokens[(~first[present]).long()][:, None].to(tokens.dtype)
        tokens = torch.cat([view_tokens, tokens], 1)  # (V, 1 + h * w, D)
        absent = ~present.repeat_interleave(tokens.shape[1], 1)
        for within, across in zip(self.within, self.across):
            tokens = within(tokens)
            padded = tokens.new_zeros((*present.shape, *tokens.shape[1:]))
            padded[present] = tokens
            tokens = across(padded.flatten(1, 2), src_key_padding_mask=absent).unflatten(1, (-1, tokens.shape[1]))
            tokens = tokens[present]
        patches = self.head(self.norm(tokens[:, 1:])).float().mT.unflatten(2, (height, width))
        maps = functional.pixel_shuffle(patches, self.patch_size)  # (V, 4, H, W)
        return maps[:, :3].permute(0, 2, 3, 1), 1 + torch.exp(maps[:, 3])

    @staticmethod
    def _mean_distances(points: torch.Tensor, valid: torch.Tensor, view_counts: torch.Tensor) -> torch.Tensor:
        """(V,): for every view the mean distance of its sample's points from the first camera; 1 without points."""
        samples = torch.arange(len(view_counts), device=points.device).repeat_interleave(view_counts)
        distances = torch.where(valid, torch.linalg.vector_norm(points, dim=-1), 0).sum((1, 2))
        total, number = (
            torch.zeros(len(view_counts), device=points.device).index_add_(0, samples, values)
            for values in (distances, valid.sum((1, 2)).float())
        )
        return torch.where(number > 0, total / number.clamp(min=1), 1.0)[samples]


def point_targets(samples: list[list[View]], size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """`points` (V, H, W, 3), metres in the frame of the sample's first view, `valid` (V, H, W)."""
    maps = [_points_of(view, views[0], size) for views in samples for view in views]
    points = np.stack([one for one, _ in maps])
    return {
        "points": torch.from_numpy(points),
        "valid": torch.from_numpy(np.stack([valid for _, valid in maps])),
    }


def _points_of(view: View, first: View, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(H, W, 3) float32 points that a view's depth gives, in the camera frame of `first`, and where they are valid."""
    if view.depth_m is None or view.camera is None or first.camera is None:
        return np.zeros((*size, 3), np.float32), np.zeros(size, bool)
    rows, columns = (nearest_pixels(old, new) for old, new in zip(view.depth_m.shape, size))
    depth_m = view.depth_m[rows[:, None], columns].astype(np.float64)
    camera = view.camera
    rays = np.stack(
        np.broadcast_arrays((columns - camera.cx) / camera.fx, (rows[:, None] - camera.cy) / camera.fy, 1.0), -1
    )
    to_first = np.linalg.inv(first.camera.to_world) @ camera.to_world
    points = (rays * depth_m[..., None]) @ to_first[:3, :3].T + to_first[:3, 3]
    return points.astype(np.float32), depth_m > 0
