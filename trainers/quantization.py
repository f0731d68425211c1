"""The language model in 4 or 8 bits while it is frozen, by bitsandbytes.

Only the linear layers of its blocks are quantised. The encoder and the projector train. The head stays as it is: TRL's
fused head multiplies by its weight, without calling it, and it is often the same tensor as the embeddings.
"""

import importlib.util
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, BitsAndBytesConfig, PreTrainedConfig

from modeling_spatialboost import SpatialBoostForConditionalGeneration

CHOICES = ("4bit", "8bit")
BLOCK = 64  # weights that share a scale, and what the 4-bit kernels want the inputs of a layer to be a multiple of
KEPT = ["model.vision_tower", "model.multi_modal_projector", "lm_head"]  # transformers matches from the root


def require_bitsandbytes(setting: str) -> None:
    """Raise ValueError, naming the setting, where bitsandbytes is not installed."""
    if importlib.util.find_spec("bitsandbytes") is None:
        raise ValueError(f"{setting} needs bitsandbytes: install it with `pip install 'spatialboost[quantization]'`.")


def quantization_config(choice: str, compute_dtype: torch.dtype) -> BitsAndBytesConfig:
    """How `from_pretrained` quantises the language model while it reads it; 4 bits are NF4 with quantised scales."""
    if choice == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=KEPT)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        llm_int8_skip_modules=KEPT,
    )


def check_dimensions(config: PreTrainedConfig) -> None:
    """Check that every linear layer of a language model fits 4 bits.

    Raises:
        ValueError: the inputs of one are no multiple of 64.
    """
    with torch.device("meta"):
        model = AutoModel.from_config(config)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear) and module.in_features % BLOCK:
            raise ValueError(
                f"quantize_language_model='4bit': {name} of this {config.model_type!r} language model has "
                f"{module.in_features} inputs, which is no multiple of {BLOCK}: pass 8bit, or remove the argument."
            )


def forget_quantization(model: SpatialBoostForConditionalGeneration) -> None:
    """Take the marks of a quantised model off one of which only the frozen language model is quantised.

    `Trainer` refuses to train a marked model, TRL would cast what trains to bfloat16, and `save_pretrained` would
    write the quantised weights.
    """
    model.hf_quantizer.remove_quantization_config(model)
    for mark in ("is_loaded_in_4bit", "is_loaded_in_8bit"):
        model.__dict__.pop(mark, None)
    for part in model.modules():
        config: Any = getattr(part, "config", None)
        if config is not None:
            config.__dict__.pop("_is_quantized", None)


def is_quantized(model: SpatialBoostForConditionalGeneration) -> bool:
    """Whether the language model has quantised layers."""
    return any(type(part).__module__.startswith("bitsandbytes.") for part in model.model.language_model.modules())
