"""Loading the encoder that is to be boosted, from the Hub, a folder or a configuration."""

from dataclasses import dataclass
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.utils.hub import cached_file, extract_commit_hash

from .dual_channel_attention import encoder_layout


@dataclass(frozen=True)
class BaseChannelReport:
    """Outcome of `verify_base_channel`: how many tensors were compared and which of them differ or are absent."""

    compared: int
    differing: list[str]
    missing: list[str]

    def __bool__(self) -> bool:
        """Whether the frozen part is untouched."""
        return not self.differing and not self.missing


def load_encoder_config(
    pretrained_model_name_or_path: str, revision: str | None = None, **kwargs: Any
) -> PreTrainedConfig:
    """Configuration of an encoder; a composite repository (CLIP, SigLIP) gives its vision tower's.

    Raises:
        ValueError: nothing there that transformers can read, or an encoder that cannot be boosted.
    """
    name = str(pretrained_model_name_or_path)
    try:
        config = AutoConfig.from_pretrained(name, revision=revision, **kwargs)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"encoder={name!r} is neither a folder with a transformers config.json nor a model id that the Hub knows. "
            f"Pass one of those, for instance facebook/dinov3-vitl16-pretrain-lvd1689m ({first_line(error)})"
        ) from error
    config = getattr(config, "vision_config", config)
    encoder_layout(config.model_type)
    return config


def encoder_class(config: PreTrainedConfig) -> Any:
    """The transformers class of an encoder: `AutoModel`, or the one that `ENCODERS` names."""
    name = encoder_layout(config.model_type).model_class
    return getattr(transformers, name) if name else AutoModel


def build_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """An encoder with random weights."""
    model_class = encoder_class(config)
    return model_class.from_config(config) if model_class is AutoModel else model_class(config)


def load_encoder(name: str, revision: str | None = None, dtype: torch.dtype | str = "auto") -> PreTrainedModel:
    """The pre-trained encoder itself, unboosted, from a folder or a Hub id; composite repositories give the tower."""
    config = load_encoder_config(name, revision=revision)
    file = cached_file(name, "config.json", revision=revision)
    config._commit_hash = extract_commit_hash(file, None)  # transformers no longer notes it; never saved
    model_class = encoder_class(config)
    if model_class is AutoModel and type(config) in AutoModel._model_mapping:
        # the concrete class: AutoModel would pick the composite's class from the repository's own config
        model_class = AutoModel._model_mapping[type(config)]
    return model_class.from_pretrained(name, config=config, revision=revision, dtype=dtype)


def vision_tower(model: PreTrainedModel) -> PreTrainedModel:
    """The vision tower of a loaded composite model (CLIP, SigLIP); any other encoder itself."""
    return getattr(model, "vision_model", model) if hasattr(model.config, "vision_config") else model


def timm_geometry(encoder: PreTrainedModel) -> dict[str, Any]:
    """Sizes that a timm encoder's configuration does not tell; empty for all other encoders."""
    timm_model = getattr(encoder, "timm_model", None)
    if not hasattr(timm_model, "blocks"):
        return {}
    return {
        "hidden_size": timm_model.num_features,
        "num_hidden_layers": len(timm_model.blocks),
        "patch_size": list(timm_model.patch_embed.patch_size),
        "image_size": list(timm_model.patch_embed.img_size),
    }


def mark_as_loaded(model: PreTrainedModel) -> None:
    """Keep the weights of a loaded model when it becomes part of another, whose new parts are initialised."""
    for module in model.modules():
        module._is_hf_initialized = True
    for tensor in (*model.parameters(), *model.buffers()):
        tensor._is_hf_initialized = True


def first_line(error: Exception) -> str:
    """The first line of an error's text, to be quoted in ours."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
