"""Boosted encoder + two-layer projector + language model, on LLaVA's classes from transformers."""

import math
from typing import Any, Self

import torch
from torch import nn
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, PreTrainedModel
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import (
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaMultiModalProjector,
    LlavaPreTrainedModel,
)

from .configuration_spatialboost import SpatialBoostConfig, SpatialBoostVLMConfig
from .encoder_loading import first_line, mark_as_loaded
from .modeling_spatialboost import SpatialBoostModel
from .patch_tokens import as_pair, pixel_shuffle, shuffled_grid, to_map


class SpatialBoostProjector(LlavaMultiModalProjector):
    """LLaVA's two-layer projector, behind a pixel shuffle if `config.projector_shuffle` is more than 1."""

    def __init__(self, config: SpatialBoostVLMConfig) -> None:
        """With a pixel shuffle of f, the first layer reads the f^2 * C channels of a block of patches."""
        super().__init__(config)
        self.patch_size, self.shuffle = config.vision_config.patch_size, config.projector_shuffle
        if self.shuffle > 1:
            channels = config.vision_config.hidden_size * self.shuffle**2
            self.linear_1 = nn.Linear(channels, config.text_config.hidden_size, bias=config.multimodal_projector_bias)

    def forward(self, features: torch.Tensor, image_size: tuple[int, int] | None = None) -> torch.Tensor:
        """(num_images, N, C) -> (num_images, N / f^2, text hidden size).

        Args:
            features: patch tokens, row by row.
            image_size: height and width in pixels of the images that they are of; None = square ones.

        Raises:
            ValueError: blocks of f x f do not fill the patch grid.
        """
        features = features.to(self.linear_1.weight.dtype)
        if self.shuffle > 1:
            patch_size = as_pair(self.patch_size)
            if image_size is None:
                side = math.isqrt(features.shape[1])
                image_size = side * patch_size[0], side * patch_size[1]
            height, width = shuffled_grid(image_size, patch_size, self.shuffle)
            features = pixel_shuffle(features, (height * self.shuffle, width * self.shuffle), self.shuffle)
        return super().forward(features)


class SpatialBoostVLMModel(LlavaModel):
    """The model without its language head: image tokens in the text are replaced by projected patch tokens."""

    config: SpatialBoostVLMConfig
    config_class = SpatialBoostVLMConfig

    def __init__(
        self,
        config: SpatialBoostVLMConfig,
        vision_tower: SpatialBoostModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        """Build from `config`, around random weights or around loaded parts."""
        LlavaPreTrainedModel.__init__(self, config)
        self.vision_tower = SpatialBoostModel(config.vision_config) if vision_tower is None else vision_tower
        self.multi_modal_projector = SpatialBoostProjector(config)
        self.language_model = AutoModel.from_config(config.text_config) if language_model is None else language_model
        self.post_init()

    def vision_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """What the projector reads: (num_images, 3, H, W) -> (num_images, N, C).

        N = h * w patch tokens, with the first token ([CLS]) in front if `config.use_cls_token`.
        """
        layer, tower = self.config.vision_feature_layer, self.vision_tower
        outputs = tower.encode(pixel_values, output_hidden_states=layer != -1)
        if layer != -1:
            tokens = outputs.hidden_states[layer]
        else:
            tokens = outputs.last_hidden_state
            tokens = tokens if tower.normalised else tower.final_norm(tokens)
        patches = to_map(tokens, tower.patch_grid(pixel_values)).flatten(2).mT
        # one layout, so that gradients of the projector round alike whether features come from here or from a cache
        return torch.cat([tokens[:, :1], patches], dim=1) if self.config.use_cls_token else patches.contiguous()

    def project(self, features: torch.Tensor, image_size: tuple[int, int] | None = None) -> BaseModelOutputWithPooling:
        """What `vision_features` gave, with `pooler_output` one (N / shuffle^2, text hidden size) tensor an image.

        `image_size` is the images' height and width in pixels; None = they are square.
        """
        projected = self.multi_modal_projector(features, image_size)
        return BaseModelOutputWithPooling(last_hidden_state=features, pooler_output=list(projected))

    def get_image_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Projected tokens: `pooler_output` holds one (N / shuffle^2, text hidden size) tensor an image."""
        height, width = pixel_values.shape[-2:]
        return self.project(self.vision_features(pixel_values), (height, width))

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        pixel_values: torch.Tensor | None = None,
        vision_features: torch.Tensor | None = None,
        scored_positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """As LLaVA's, with two more inputs.

        Args:
            input_ids: (B, L).
            pixel_values: (num_images, 3, H, W).
            vision_features: (num_images, N, C), computed before by the method of that name, instead of `pixel_values`.
            scored_positions: (B, L) booleans; `last_hidden_state` then is (1, K, text hidden size), of the K positions
                that are true, so that a language head does not read the others.
            kwargs: LLaVA's own.

        Raises:
            ValueError: both `pixel_values` and `vision_features` are given.
        """
        if vision_features is not None:
            if pixel_values is not None:
                raise ValueError("vision_features stand in for pixel_values: pass one of both.")
            embeddings = self.get_input_embeddings()(input_ids)  # (B, L, text hidden size)
            tokens = torch.cat(self.project(vision_features).pooler_output).to(embeddings.dtype)
            places = self.get_placeholder_mask(input_ids, inputs_embeds=embeddings, image_features=tokens)
            input_ids, kwargs["inputs_embeds"] = None, embeddings.masked_scatter(places, tokens)
        if kwargs.get("use_cache") is False and pads_right_only(kwargs.get("attention_mask")):
            kwargs["attention_mask"] = None
        outputs = super().forward(input_ids, pixel_values, **kwargs)
        if scored_positions is not None:
            outputs.last_hidden_state = outputs.last_hidden_state[scored_positions][None]
        return outputs


class SpatialBoostForConditionalGeneration(LlavaForConditionalGeneration):
    """The vision-language model of all three stages (`AutoModelForImageTextToText`)."""

    config: SpatialBoostVLMConfig
    config_class = SpatialBoostVLMConfig

    def __init__(
        self,
        config: SpatialBoostVLMConfig,
        vision_tower: SpatialBoostModel | None = None,
        language_model: PreTrainedModel | None = None,
    ) -> None:
        """Build from `config`, around random weights or around loaded parts (a causal language model)."""
        LlavaPreTrainedModel.__init__(self, config)
        text_model = None if language_model is None else language_model.base_model
        self.model = SpatialBoostVLMModel(config, vision_tower, text_model)
        if language_model is None:
            self.lm_head = nn.Linear(config.text_config.hidden_size, config.text_config.vocab_size, bias=False)
        else:
            self.lm_head = language_model.get_output_embeddings()
        self.post_init()

    @classmethod
    def from_components(
        cls,
        encoder: str | SpatialBoostModel,
        language_model: str | PreTrainedModel,
        processor: Any,
        boosted_layers: list[int] | None = None,
        revision: str | None = None,
        dtype: torch.dtype | str = "auto",
        **config_kwargs: Any,
    ) -> Self:
        """Join an encoder and a language model by a new, randomly initialised projector.

        Args:
            encoder: id or folder of a plain or of a boosted encoder, or a loaded `SpatialBoostModel`.
            language_model: id or folder of a causal language model, or a loaded one.
            processor: the `SpatialBoostProcessor` of both; its tokenizer may know more tokens than the language model.
            boosted_layers: for a plain encoder: which attention layers get a second channel; [] = none.
            revision: of the encoder's repository.
            dtype: of the loaded weights.
            config_kwargs: further fields of `SpatialBoostVLMConfig`.

        Raises:
            ValueError: no such encoder or language model.
        """
        if not isinstance(encoder, PreTrainedModel):
            encoder = load_boosted_encoder(encoder, boosted_layers, revision, dtype)
        if not isinstance(language_model, PreTrainedModel):
            try:
                language_model = AutoModelForCausalLM.from_pretrained(language_model, dtype=dtype)
            except (OSError, ValueError) as error:
                raise ValueError(
                    f"language_model={language_model!r} is no causal language model that transformers can load: pass "
                    f"a folder or a Hub id such as Qwen/Qwen2-7B-Instruct ({first_line(error)})"
                ) from error
        tokenizer = processor.tokenizer
        if len(tokenizer) > language_model.get_input_embeddings().num_embeddings:
            language_model.resize_token_embeddings(len(tokenizer))
        config = cls.config_class(
            vision_config=encoder.config,
            text_config=language_model.config,
            image_token_index=processor.image_token_id,
            attn_implementation={
                "vision_config": {"": encoder.config._attn_implementation},
                "text_config": language_model.config._attn_implementation,
            },
            **config_kwargs,
        )
        mark_as_loaded(encoder)
        mark_as_loaded(language_model)
        model = cls(config, vision_tower=encoder, language_model=language_model)
        widest = torch.promote_types(encoder.dtype, language_model.dtype)
        model.model.multi_modal_projector.to(device=language_model.device, dtype=widest)
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
        return model

    @property
    def vision_tower(self) -> SpatialBoostModel:
        """The encoder; save it by itself with `model.vision_tower.save_pretrained(folder)`."""
        return self.model.vision_tower

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        super()._set_gradient_checkpointing(enable, *args, **kwargs)
        self.vision_tower._set_gradient_checkpointing(
            enable, *args, **kwargs
        )  # timm encoders have a switch of their own


def pads_right_only(attention_mask: torch.Tensor | None) -> bool:
    """Whether a (B, L) mask hides nothing but the ends of sequences, where a causal model never looks anyway.

    Without such a mask SDPA takes its causal kernels (FlashAttention on a GPU) instead of reading a (B, 1, L, L) mask.
    """
    if attention_mask is None or attention_mask.ndim != 2 or torch.compiler.is_compiling():
        return False
    return bool((attention_mask[:, 1:] <= attention_mask[:, :-1]).all())


def load_boosted_encoder(
    encoder: str,
    boosted_layers: list[int] | None = None,
    revision: str | None = None,
    dtype: torch.dtype | str = "auto",
) -> SpatialBoostModel:
    """A `SpatialBoostModel` from the id or folder of a boosted encoder, or of a plain one that is boosted on loading.

    Raises:
        ValueError: no such encoder, or one that cannot be boosted.
    """
    try:
        model_type = AutoConfig.from_pretrained(encoder, revision=revision).model_type
    except (OSError, ValueError):
        model_type = None  # from_encoder below says what is wrong
    if model_type == SpatialBoostConfig.model_type:
        return SpatialBoostModel.from_pretrained(encoder, revision=revision, dtype=dtype)
    return SpatialBoostModel.from_encoder(encoder, boosted_layers, revision, dtype)


__all__ = ["SpatialBoostForConditionalGeneration", "SpatialBoostVLMModel"]
