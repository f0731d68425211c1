"""The vision-language model that a stage starts from: joined in stage 1, continued in stages 2 and 3."""

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import AutoTokenizer, PreTrainedConfig
from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file, extract_commit_hash

from modeling_spatialboost import (
    SpatialBoostForConditionalGeneration,
    SpatialBoostImageProcessor,
    SpatialBoostProcessor,
    SpatialBoostVLMConfig,
)
from modeling_spatialboost.dual_channel_attention import is_second_channel
from modeling_spatialboost.encoder_loading import first_line
from modeling_spatialboost.modeling_spatialboost_vlm import load_boosted_encoder
from trainers.alpha import share_alpha
from trainers.config import StageArguments
from trainers.low_rank import adapt_encoder, adapt_language_model, merge_adapters, take_out_adapters
from trainers.quantization import check_dimensions, forget_quantization, quantization_config
from trainers.scale_out import unsplit_loading

ModelAndProcessor = tuple[SpatialBoostForConditionalGeneration, SpatialBoostProcessor]


def load_model(arguments: StageArguments, language_model_dtype: torch.dtype = torch.float32) -> ModelAndProcessor:
    """The model and processor that the stage starts from, as the stage trains them.

    Args:
        arguments: of the stage.
        language_model_dtype: what the language model is read in; all else is read in float32.

    Raises:
        ValueError: an encoder, language model or previous stage that cannot be loaded.
    """
    _refuse_sharding(arguments)
    if arguments.stage == 1:
        return join_components(arguments, language_model_dtype)
    model, processor = continue_from(arguments, language_model_dtype, arguments.quantize_language_model)
    if arguments.stage == 2 and arguments.lora_rank is not None:
        adapt_language_model(model, arguments.lora_rank)
    elif arguments.encoder_tuning in ("lora", "lora_matched"):
        adapt_encoder(model, arguments.lora_rank)
    if arguments.alpha_sharing is not None:
        share_alpha(model.vision_tower, arguments.alpha_sharing)
    return model, processor


def _refuse_sharding(arguments: StageArguments) -> None:
    quantize, tuning = arguments.quantize_language_model, arguments.encoder_tuning
    fsdp = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if quantize is not None and (fsdp or is_deepspeed_zero3_enabled()):
        raise ValueError(
            f"quantize_language_model={quantize!r} and FSDP or ZeRO-3 exclude each other: run it with plain data "
            "parallelism, or shard the language model in bf16."
        )
    if (arguments.lora_rank is not None or tuning == "lora_matched") and is_deepspeed_zero3_enabled():
        setting = f"encoder_tuning={tuning!r}" if tuning == "lora_matched" else f"lora_rank={arguments.lora_rank}"
        raise ValueError(f"{setting} and ZeRO-3 exclude each other: use FSDP2, ZeRO-2 or plain data parallelism.")


def to_plain_model(model: SpatialBoostForConditionalGeneration, arguments: StageArguments) -> None:
    """Turn a trained model into the one that is saved: adapters merged, the language model as `model` names it.

    Where it is quantised, only in the process that saves: the others would each read it into the same memory.
    """
    if arguments.quantize_language_model is not None and not PartialState().is_main_process:
        return
    adapters = take_out_adapters(model)
    if arguments.quantize_language_model is not None:
        own, _ = continue_from(arguments, model.lm_head.weight.dtype)
        model.model.language_model, model.lm_head = own.model.language_model, own.lm_head
    merge_adapters(model, adapters)


@unsplit_loading()
def join_components(arguments: StageArguments, language_model_dtype: torch.dtype) -> ModelAndProcessor:
    """Stage 1: a plain encoder (or an already boosted one), a new projector and a language model."""
    name = str(arguments.encoder)
    encoder = load_boosted_encoder(name, [], arguments.revision, torch.float32)
    image_processor = SpatialBoostImageProcessor.from_encoder(name, arguments.image_size, arguments.revision)
    try:
        tokenizer = AutoTokenizer.from_pretrained(arguments.language_model)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"language_model={arguments.language_model!r} has no tokenizer that transformers can load. Pass a folder "
            f"or a Hub id such as Qwen/Qwen2-7B-Instruct. ({first_line(error)})"
        ) from error
    assert encoder.config.patch_size is not None  # read off the encoder when it was loaded
    shuffle = arguments.projector_shuffle or 1
    processor = SpatialBoostProcessor.from_components(
        image_processor, tokenizer, encoder.config.patch_size, projector_shuffle=shuffle
    )
    model = SpatialBoostForConditionalGeneration.from_components(
        encoder, str(arguments.language_model), processor, dtype=language_model_dtype, projector_shuffle=shuffle
    )
    return model, processor


class _Reader(SpatialBoostForConditionalGeneration):
    """Reads the language model in a dtype of its own, so that it is never in memory in float32."""

    language_model_dtype = torch.float32

    def _get_dtype_plan(self, dtype: torch.dtype) -> dict[str, torch.dtype]:
        own = dict.fromkeys(("language_model", "lm_head"), self.language_model_dtype)
        return super()._get_dtype_plan(dtype) | own


@unsplit_loading()
def continue_from(
    arguments: StageArguments, language_model_dtype: torch.dtype, quantize: str | None = None
) -> ModelAndProcessor:
    """Stages 2 and 3: the output of the stage before; stage 3 gives its encoder the second channel.

    Each second channel starts as an exact copy of the first, so that the model computes what it computed before.
    """
    config = _previous_config(arguments)
    if arguments.stage == 3:
        _set_boosted_layers(config, arguments)
    settings: dict[str, Any] = {}
    if quantize is not None:
        if quantize == "4bit":
            check_dimensions(config.text_config)
        settings["quantization_config"] = quantization_config(quantize, language_model_dtype)
    reader: Any = type(_Reader.__name__, (_Reader,), {"language_model_dtype": language_model_dtype})
    with _quiet_load_report():
        model, report = reader.from_pretrained(
            arguments.model,
            config=config,
            revision=arguments.revision,
            dtype=torch.float32,
            output_loading_info=True,
            **settings,
        )
    model.__class__ = SpatialBoostForConditionalGeneration
    if quantize is not None:
        forget_quantization(model)
    absent = sorted(key for key in report["missing_keys"] if not is_second_channel(key))
    if absent:
        raise ValueError(
            f"model={arguments.model!r} lacks weights such as {absent[0]!r}: train the stage before again."
        )
    processor = SpatialBoostProcessor.from_pretrained(arguments.model, revision=arguments.revision)
    return model, processor


def provenance(name: str, revision: str | None = None) -> str | None:
    """What pins the weights behind a name: SHA-256 of a folder's weight files, or commit of a Hub repository."""
    folder = Path(name)
    if not folder.is_dir():
        try:
            return extract_commit_hash(cached_file(name, "config.json", revision=revision), None)
        except (OSError, ValueError):
            return None
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _settings(name: str, revision: str | None) -> dict:
    try:
        return PreTrainedConfig.get_config_dict(name, revision=revision)[0]
    except (OSError, ValueError):
        return {}


def _previous_config(arguments: StageArguments) -> SpatialBoostVLMConfig:
    found = _settings(str(arguments.model), arguments.revision).get("model_type")
    if found != SpatialBoostVLMConfig.model_type:
        kind = f"a {found!r} model" if found else "no model that transformers can read"
        raise ValueError(
            f"model={arguments.model!r} holds {kind}: pass the output_dir of a finished stage {arguments.stage - 1}, "
            f"which holds a {SpatialBoostVLMConfig.model_type!r} model."
        )
    return SpatialBoostVLMConfig.from_pretrained(arguments.model, revision=arguments.revision)


def _set_boosted_layers(config: SpatialBoostVLMConfig, arguments: StageArguments) -> None:
    present, wanted = config.vision_config.boosted_layers, arguments.boosted_layers
    if arguments.encoder_tuning not in (None, "dual_channel"):
        if present != []:
            raise ValueError(
                f"encoder_tuning={arguments.encoder_tuning!r} starts from a plain encoder, but that of "
                f"model={arguments.model!r} has boosted_layers={present}: pass the output_dir of a stage 2."
            )
    elif present == []:
        config.vision_config.boosted_layers = wanted
        if arguments.alpha_start is not None:
            config.vision_config.alpha_logit_init = math.log(arguments.alpha_start / (1 - arguments.alpha_start))
    elif arguments.alpha_start is not None:
        raise ValueError(
            f"alpha_start={arguments.alpha_start}, but the encoder of model={arguments.model!r} has a second channel "
            "already: remove the argument to go on with it."
        )
    elif wanted not in (None, present):
        raise ValueError(
            f"boosted_layers={wanted}, but model={arguments.model!r} has boosted_layers={present} already: remove the "
            "argument to go on with those."
        )


@contextmanager
def _quiet_load_report() -> Iterator[None]:
    """Hide transformers' table of missing weights: the second channel is absent on purpose, the rest is checked."""
    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
