"""The vision-language model that a stage starts from: joined in stage 1, continued in stages 2 and 3."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers import AutoTokenizer, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from modeling_spatialboost import (
    SpatialBoostForConditionalGeneration,
    SpatialBoostImageProcessor,
    SpatialBoostProcessor,
    SpatialBoostVLMConfig,
)
from modeling_spatialboost.dual_channel_attention import is_second_channel
from modeling_spatialboost.encoder_loading import first_line
from modeling_spatialboost.modeling_spatialboost_vlm import load_boosted_encoder
from trainers.config import StageArguments

ModelAndProcessor = tuple[SpatialBoostForConditionalGeneration, SpatialBoostProcessor]


def load_model(arguments: StageArguments) -> ModelAndProcessor:
    """The model and processor that the stage starts from, in float32 (what is frozen may be cast later).

    Raises:
        ValueError: an encoder, language model or previous stage that cannot be loaded.
    """
    return join_components(arguments) if arguments.stage == 1 else continue_from(arguments)


def join_components(arguments: StageArguments) -> ModelAndProcessor:
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
    processor = SpatialBoostProcessor.from_components(image_processor, tokenizer, encoder.config.patch_size)
    model = SpatialBoostForConditionalGeneration.from_components(
        encoder, str(arguments.language_model), processor, dtype=torch.float32
    )
    return model, processor


def continue_from(arguments: StageArguments) -> ModelAndProcessor:
    """Stages 2 and 3: the output of the stage before; stage 3 gives its encoder the second channel.

    Each second channel starts as an exact copy of the first, so that the model computes what it computed before.
    """
    config = _previous_config(arguments)
    if arguments.stage == 3:
        _set_boosted_layers(config, arguments)
    with _quiet_load_report():
        model, report = SpatialBoostForConditionalGeneration.from_pretrained(
            arguments.model,
            config=config,
            revision=arguments.revision,
            dtype=torch.float32,
            output_loading_info=True,
        )
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
        return _settings(name, revision).get("_commit_hash")
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def cast_frozen_language_model(model: SpatialBoostForConditionalGeneration) -> None:
    """Hold the frozen language model in bfloat16; its buffers (RoPE frequencies) keep their precision."""
    for module in (model.model.language_model, model.lm_head):
        for parameter in module.parameters():
            parameter.data = parameter.data.to(torch.bfloat16)


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
    if present == []:
        config.vision_config.boosted_layers = wanted
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
