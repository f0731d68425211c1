"""SAM's prompt encoder and mask decoder, from transformers, on the boosted encoder's features.

Each object is asked for by one point drawn inside its mask; the best of three answers is trained, as in Segment
Anything (arXiv 2304.02643): `20 * focal + dice`, and the squared error of the predicted IoU.
"""

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from transformers import SamConfig, SamMaskDecoderConfig, SamModel, SamPromptEncoderConfig, SamVisionConfig
from transformers.models.sam.modeling_sam import SamMaskDecoder, SamPromptEncoder, SamVisionNeck

from modeling_spatialboost.encoder_loading import first_line
from trainers.baselines.view_data import View, resize_nearest

FOCAL_WEIGHT = 20.0
FOCAL_GAMMA, FOCAL_ALPHA = 2.0, 0.25
WIDTH = 256  # of SAM's decoder


class MaskDecoder(nn.Module):
    """SAM's neck, prompt encoder and mask decoder, without its image encoder."""

    def __init__(self, channels: int, image_size: int, grid_size: int, pretrained: str | None = None) -> None:
        """Build the decoder.

        Args:
            channels: C of the features.
            image_size, grid_size: sides in pixels and in patches of the square inputs.
            pretrained: id or folder of a SAM model whose prompt encoder and mask decoder are taken; None = new ones.

        Raises:
            ValueError: `pretrained` cannot be loaded.
        """
        super().__init__()
        vision = SamVisionConfig(hidden_size=channels, output_channels=WIDTH)
        vision.scale = 1.0  # SAM's own; transformers' default (hidden_size / 2) suits only weights that are loaded
        if pretrained is None:
            config = SamConfig(vision_config=vision)
            prompt_encoder, mask_decoder = _new_decoder(config)
        else:
            try:
                model = SamModel.from_pretrained(pretrained)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"mask_decoder={pretrained!r} is no SAM model that transformers can load: pass a folder or a Hub "
                    f"id such as facebook/sam-vit-base, or remove the argument. ({first_line(error)})"
                ) from error
            prompt_encoder, mask_decoder = model.prompt_encoder, model.mask_decoder
            vision.output_channels = mask_decoder.hidden_size
        prompt_encoder.input_image_size = image_size
        prompt_encoder.image_embedding_size = (grid_size, grid_size)
        prompt_encoder.mask_embed = None  # no mask is ever a prompt here
        _freeze_positions(prompt_encoder.shared_embedding)
        self.neck = SamVisionNeck(vision)
        self.prompt_encoder, self.mask_decoder = prompt_encoder, mask_decoder

    def forward(
        self, features: torch.Tensor, view_counts: torch.Tensor, masks: torch.Tensor, mask_views: torch.Tensor
    ) -> torch.Tensor:
        """The loss.

        Args:
            features: (V, C, h, w) of V views.
            view_counts: of each sample; every view is by itself here.
            masks: (M, 4 h, 4 w) bool, none empty; M may be 0.
            mask_views: (M,) the view that each mask belongs to.
        """
        counts = float(len(masks) > 0)
        if not counts:  # SAM's attention takes no empty batch
            masks, mask_views = masks.new_ones((1, *masks.shape[1:])), mask_views.new_zeros(1)
        logits, quality = self.predict(self.neck(features.permute(0, 2, 3, 1))[mask_views], draw_points(masks))
        truth = masks[:, None].expand_as(logits).float()
        losses = FOCAL_WEIGHT * focal_loss(logits, truth) + dice_loss(logits, truth)  # (M, 3)
        best = losses.argmin(1, keepdim=True)
        with torch.no_grad():
            overlap = ((logits > 0) & masks[:, None]).flatten(2).sum(2)
            union = ((logits > 0) | masks[:, None]).flatten(2).sum(2)
        total = losses.gather(1, best) + (quality - overlap / union).square().gather(1, best)
        return counts * total.mean()

    def predict(self, features: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Three answers to each point.

        Args:
            features: (M, 256, h, w), the view of each point.
            points: (M, 2) x and y within 0-1.

        Returns:
            Logits (M, 3, 4 h, 4 w) and the predicted IoU of each (M, 3), float32.
        """
        coordinates = points[:, None, None] * self.prompt_encoder.input_image_size - 0.5  # it adds half a pixel
        sparse, dense = self.prompt_encoder(coordinates, torch.ones_like(coordinates[..., 0]), None, None)
        logits, quality = self.mask_decoder(
            image_embeddings=features,
            image_positional_embeddings=self._position_map(features).expand(len(features), -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=True,
        )
        return logits[:, 0].float(), quality[:, 0].float()

    def _position_map(self, features: torch.Tensor) -> torch.Tensor:
        """(1, 256, h, w): where each patch lies, in the prompts' own code."""
        height, width = features.shape[-2:]
        y, x = ((torch.arange(n, device=features.device) + 0.5) / n for n in (height, width))
        places = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)
        return self.prompt_encoder.shared_embedding(places).permute(2, 0, 1)[None]


def draw_points(masks: torch.Tensor) -> torch.Tensor:
    """(M, H, W) bool -> (M, 2): x and y within 0-1 of a random pixel's centre inside each mask."""
    height, width = masks.shape[-2:]
    chosen = torch.multinomial(masks.flatten(1).float(), 1)[:, 0]
    return torch.stack(((chosen % width + 0.5) / width, (chosen // width + 0.5) / height), -1)


def focal_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(M, K, H, W) logits and 0/1 truth -> (M, K), mean over pixels (arXiv 1708.02002, eq. 5)."""
    entropy = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    probability = torch.sigmoid(logits)
    missed = truth * (1 - probability) + (1 - truth) * probability
    weight = truth * FOCAL_ALPHA + (1 - truth) * (1 - FOCAL_ALPHA)
    return (weight * missed**FOCAL_GAMMA * entropy).mean((2, 3))


def dice_loss(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    """(M, K, H, W) logits and 0/1 truth -> (M, K), `1 - (2 |A B| + 1) / (|A| + |B| + 1)`."""
    probability = torch.sigmoid(logits)
    overlap = (probability * truth).sum((2, 3))
    return 1 - (2 * overlap + 1) / (probability.sum((2, 3)) + truth.sum((2, 3)) + 1)


def mask_targets(samples: list[list[View]], size: tuple[int, int]) -> dict[str, torch.Tensor]:
    """`masks` (M, H, W) bool of all objects that keep a pixel at this size, and `mask_views` (M,)."""
    views = [view for sample in samples for view in sample]
    resized = [(number, resize_nearest(mask, size)) for number, view in enumerate(views) for mask in view.masks]
    kept = [(number, mask) for number, mask in resized if mask.any()]
    masks = np.stack([mask for _, mask in kept]) if kept else np.zeros((0, *size), bool)
    return {"masks": torch.from_numpy(masks), "mask_views": torch.tensor([n for n, _ in kept], dtype=torch.long)}


def _new_decoder(config: SamConfig) -> tuple[SamPromptEncoder, SamMaskDecoder]:
    config.prompt_encoder_config = SamPromptEncoderConfig(hidden_size=WIDTH)
    config.mask_decoder_config = SamMaskDecoderConfig(hidden_size=WIDTH)
    config.mask_decoder_config._attn_implementation = "sdpa"
    return SamPromptEncoder(config), SamMaskDecoder(config.mask_decoder_config)


def _freeze_positions(embedding: Any) -> None:
    """Make the random frequencies a buffer, as in SAM's own code: they do not train."""
    frequencies = embedding.positional_embedding.detach()
    del embedding.positional_embedding
    embedding.register_buffer("positional_embedding", frequencies)
