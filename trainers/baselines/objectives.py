"""What stands in for the language model: one row for each objective, the batches and the model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from modeling_spatialboost import SpatialBoostImageProcessor, SpatialBoostModel
from modeling_spatialboost.patch_tokens import as_pair
from trainers.baselines.arguments import BaselineArguments
from trainers.baselines.linear_decoders import DepthDecoder, SegmentationDecoder, class_targets, depth_targets
from trainers.baselines.mask_decoder import MaskDecoder, mask_targets
from trainers.baselines.point_decoder import PointDecoder, point_targets
from trainers.baselines.self_distillation import SelfDistillation
from trainers.baselines.view_data import View

Targets = Callable[[list[list[View]], tuple[int, int]], dict[str, torch.Tensor]]


@dataclass(frozen=True)
class Objective:
    """A row of the table.

    Attributes:
        needs: what its targets are made of.
        targets: of a batch, as maps of a size.
    """

    needs: tuple[str, ...]
    targets: Targets


LEARNS_FROM = {
    "depth": Objective(("depth",), depth_targets),
    "segmentation": Objective(("classes",), class_targets),
    "masks": Objective(("masks",), mask_targets),
    "points": Objective(("depth", "cameras"), point_targets),
    "own": Objective((), lambda samples, size: {}),
}


class SupervisedEncoder(nn.Module):
    """The boosted encoder with a decoder that turns its features and the targets into a loss."""

    accepts_loss_kwargs = False

    def __init__(self, encoder: SpatialBoostModel, decoder: nn.Module) -> None:
        """`decoder(features (V, C, h, w), view_counts (B,), **targets)` gives the loss."""
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(
        self, pixel_values: torch.Tensor, view_counts: torch.Tensor, **targets: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """(V, 3, H, W) images of B samples, (B,) views of each, and the objective's targets -> `loss`."""
        features, _ = self.encoder.patch_features(pixel_values)
        return {"loss": self.decoder(features, view_counts, **targets)}

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Recompute the encoder's layers in the backward pass; decoders are small."""
        self.encoder.activation_checkpointing_enable(**kwargs)

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """The same, as older versions of transformers call it."""
        self.encoder.gradient_checkpointing_enable(**kwargs)


class ViewCollator:
    """Joins samples: `pixel_values` (V, 3, H, W) of all views, one sample after the other, and the targets."""

    def __init__(self, processor: SpatialBoostImageProcessor, targets: Targets, patch_size: int | None = None) -> None:
        """Targets have the inputs' size, or with `patch_size` that of SAM's masks: four to a patch and side."""
        self.processor, self.targets, self.patch_size = processor, targets, patch_size

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch of rows, each with its `views`; `view_counts` (B,) tells how many."""
        samples = [row["views"] for row in rows]
        images = [view.image for views in samples for view in views]
        pixel_values = self.processor(images, return_tensors="pt")["pixel_values"]
        height, width = pixel_values.shape[-2:]
        if self.patch_size is not None:
            height, width = 4 * (height // self.patch_size), 4 * (width // self.patch_size)
        view_counts = torch.tensor([len(views) for views in samples])
        return {"view_counts": view_counts, "pixel_values": pixel_values, **self.targets(samples, (height, width))}


def build_model(
    arguments: BaselineArguments, encoder: SpatialBoostModel, image_size: int, num_classes: int
) -> SupervisedEncoder | SelfDistillation:
    """The model of an objective, its decoder new.

    Raises:
        ValueError: `mask_decoder` cannot be loaded.
    """
    if arguments.objective == "own":
        return SelfDistillation(encoder)
    config = encoder.config
    assert config.hidden_size is not None and config.patch_size is not None  # read off the encoder
    channels, patch_size = config.hidden_size, as_pair(config.patch_size)[0]
    decoders: dict[str, Callable[[], nn.Module]] = {
        "depth": lambda: DepthDecoder(channels, arguments.max_depth_m or 10.0),
        "segmentation": lambda: SegmentationDecoder(channels, num_classes),
        "masks": lambda: MaskDecoder(channels, image_size, image_size // patch_size, arguments.mask_decoder),
        "points": lambda: PointDecoder(channels, patch_size),
    }
    return SupervisedEncoder(encoder, decoders[arguments.objective]())
