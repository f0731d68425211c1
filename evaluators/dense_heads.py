"""Heads of dense tasks beside the linear ones: DPT around transformers' own modules, DINOv2's linear depth head."""

import torch
from torch import nn
from transformers import DPTConfig
from transformers.models.dpt.modeling_dpt import DPTDepthEstimationHead, DPTNeck

from evaluators.heads import LinearDepthHead
from modeling_spatialboost.dense_heads import upsample

NUM_LAYERS = 4


def bin_depth(logits: torch.Tensor, min_depth_m: float, max_depth_m: float) -> torch.Tensor:
    """(B, K, h, w) logits of uniform bins -> (B, h, w) metres, as `LinearDepthHead` does it."""
    weights = torch.relu(logits) + 0.1
    centres = torch.linspace(min_depth_m, max_depth_m, logits.shape[1], device=logits.device)
    return torch.einsum("bkhw,k->bhw", weights, centres) / weights.sum(1)


class DPTDepthHead(nn.Module):
    """The dense prediction transformer's decoder on four layers, to depth bins (DINOv2 and DINOv3, eval/depth).

    Neck and head are transformers' `DPTNeck` (readout "ignore") and `DPTDepthEstimationHead`, whose last layer gives
    bins instead of a depth. On a GPU the convolutions run in bfloat16, the bins in float32.
    """

    def __init__(self, channels: int, num_bins: int, min_depth_m: float, max_depth_m: float, width: int = 256) -> None:
        """Args are the channels of all four layers together, the bins, their range, and the width of the decoder."""
        super().__init__()
        self.range_m = min_depth_m, max_depth_m
        config = DPTConfig(
            hidden_size=channels // NUM_LAYERS,
            num_attention_heads=1,
            readout_type="ignore",
            reassemble_factors=[4, 2, 1, 0.5],
            neck_hidden_sizes=[width // 2, width, 2 * width, 4 * width],
            fusion_hidden_size=width,
            use_batch_norm_in_fusion_residual=False,
        )
        self.neck = DPTNeck(config)
        self.head = DPTDepthEstimationHead(config)
        self.head.head[-2], self.head.head[-1] = nn.Conv2d(32, num_bins, kernel_size=1), nn.Identity()
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):  # as mmcv does: no norm keeps signals from fading
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, 4C, h, w) features of four layers -> (B, 16h, 16w) depth in metres; odd sides count as h + 1."""
        rows, columns = features.shape[-2:]
        with torch.autocast(features.device.type, torch.bfloat16, enabled=features.is_cuda):
            tokens = [part.flatten(2).mT for part in features.chunk(NUM_LAYERS, dim=1)]  # each (B, h * w, C)
            tokens = [torch.cat([part[:, :1], part], dim=1) for part in tokens]  # the neck drops the class token
            logits = self.head(self.neck(tokens, rows, columns))
        return bin_depth(logits.float(), *self.range_m)


class UpsampledDepthHead(LinearDepthHead):
    """DINOv2's linear depth head: no BatchNorm, and logits four times as fine as the patches.

    Upsampling the features before a 1x1 convolution, as DINOv2 does, gives the same as the logits after it.
    """

    def __init__(self, channels: int, num_bins: int, min_depth_m: float, max_depth_m: float) -> None:
        """See `LinearDepthHead`."""
        super().__init__(channels, num_bins, min_depth_m, max_depth_m)
        self.batch_norm = nn.Identity()

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, h, w) features -> (B, 4h, 4w) depth in metres."""
        logits = self.bin_logits(features)
        fine = upsample(logits, [4 * side for side in features.shape[-2:]])
        return bin_depth(fine, self.min_depth_m, self.max_depth_m)


def even_layers(num_layers: int, upstream_compat: bool = False) -> tuple[int, ...]:
    """Return four layers at even intervals, the last one among them, counted from 0.

    With `upstream_compat` a ViT-L's are [4, 11, 17, 23], what the published DPT heads were trained on.
    """
    if upstream_compat and num_layers == 24:
        return 4, 11, 17, 23
    return tuple(max(0, num_layers * quarter // NUM_LAYERS - 1) for quarter in range(1, NUM_LAYERS + 1))


def last_layers(num_layers: int) -> tuple[int, ...]:
    """Return the last four layers (all of a smaller encoder), counted from 0."""
    return tuple(range(max(0, num_layers - NUM_LAYERS), num_layers))
