"""Fewer mixing weights than channels: one for each head or layer, an ablation that the paper does not show.

The parameter keeps one number a channel, so that checkpoints, fusion and adapters know nothing of it. All numbers of a
group start equal and get the mean of their gradients, so that they stay equal, as one number would.
"""

import torch

from modeling_spatialboost import SpatialBoostModel
from modeling_spatialboost.dual_channel_attention import boosted_modules

ALPHA_SHARINGS = ("channel", "head", "layer")


def share_alpha(encoder: SpatialBoostModel, sharing: str) -> None:
    """Let the channels of a group move together from here on.

    Eq. 1 mixes behind the output projection, which joins the heads, so a "head" is as many neighbouring channels as
    one head is wide.

    Args:
        encoder: boosted.
        sharing: one of `ALPHA_SHARINGS`.

    Raises:
        ValueError: an encoder whose configuration does not tell its heads.
    """
    if sharing == "channel":
        return
    num_heads: int | None = getattr(encoder.config.backbone_config, "num_attention_heads", None)
    if sharing == "head" and num_heads is None:
        raise ValueError("alpha_sharing='head': the encoder's config has no num_attention_heads, pass layer.")
    num_groups = num_heads if sharing == "head" and num_heads else 1
    for attention in boosted_modules(encoder):
        attention.alpha_logit.register_hook(lambda gradient: group_mean(gradient, num_groups))


def group_mean(gradient: torch.Tensor, num_groups: int) -> torch.Tensor:
    """(d,) -> (d,): every number replaced by the mean of its group of d / num_groups neighbours."""
    groups = gradient.unflatten(0, (num_groups, -1))  # (groups, channels)
    return groups.mean(1, keepdim=True).expand_as(groups).flatten()
