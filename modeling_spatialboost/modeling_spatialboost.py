"""Encoders with dual-channel attention: the plain model, the backbone and three linear heads."""

import inspect
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn
from torch.nn import functional
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BackboneOutput,
    BaseModelOutputWithPooling,
    DepthEstimatorOutput,
    ImageClassifierOutput,
    SemanticSegmenterOutput,
)
from transformers.utils.generic import can_return_tuple

from .adapter import AdapterMixin
from .channel_fusion import FusionReport, fuse, unfuse
from .configuration_spatialboost import SpatialBoostConfig
from .dense_heads import LinearDepthHead, LinearSegmentationHead, scale_invariant_log_loss, upsample
from .dual_channel_attention import (
    attention_modules,
    boost,
    boosted_modules,
    encoder_layout,
    is_second_channel,
    resolve_layers,
)
from .encoder_loading import (
    BaseChannelReport,
    build_encoder,
    load_encoder,
    mark_as_loaded,
    timm_geometry,
    vision_tower,
)
from .patch_tokens import as_pair, patchify, to_map


class SpatialBoostPreTrainedModel(AdapterMixin, PreTrainedModel):
    """Holds the encoder as `self.backbone`, boosted in place, so that its weights keep their names."""

    config: SpatialBoostConfig
    config_class = SpatialBoostConfig
    base_model_prefix = "backbone"
    main_input_name = "pixel_values"
    input_modalities = ("image",)
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True

    def __init__(self, config: SpatialBoostConfig, backbone: PreTrainedModel | None = None) -> None:
        """Build from `config`, around random weights or a loaded, unboosted `backbone`, which it takes over."""
        super().__init__(config)
        layout = encoder_layout(config.backbone_config.model_type)
        if backbone is None and config.dtype is not None:  # transformers tells it to one level of configs only
            config.backbone_config.dtype = config.dtype
        self.backbone = build_encoder(config.backbone_config) if backbone is None else backbone
        attentions = attention_modules(self.backbone, config.backbone_config.model_type)
        if config.hidden_size is None:
            config.set_geometry(**timm_geometry(self.backbone))
        patch_embed = getattr(getattr(self.backbone, "timm_model", None), "patch_embed", None)
        self.any_size = layout.any_size or not getattr(patch_embed, "strict_img_size", True)
        self.interpolates = "interpolate_pos_encoding" in inspect.signature(self.backbone.forward).parameters
        self.normalised = layout.normalised
        for index in resolve_layers(config.boosted_layers, len(attentions)):
            boost(attentions[index], config.hidden_size, config.alpha_logit_init)

    @classmethod
    def from_encoder(
        cls,
        encoder: str | PreTrainedModel,
        boosted_layers: list[int] | None = None,
        revision: str | None = None,
        dtype: torch.dtype | str = "auto",
        **config_kwargs: Any,
    ) -> Self:
        """Boost a pre-trained encoder; right after it the output equals the encoder's to the last bit.

        Args:
            encoder: a Hub id, a folder, or a loaded model, which is taken over and changed in place.
            boosted_layers: attention layers that get a second channel; None = all, [] = none.
            revision: of the Hub repository.
            dtype: of the weights; "auto" keeps the checkpoint's. Ignored for a loaded model.
            config_kwargs: further fields of `SpatialBoostConfig`, such as `num_labels` or `max_depth_m`.

        Raises:
            ValueError: no such encoder, one that cannot be boosted, or `boosted_layers` outside it.
        """
        name = encoder if isinstance(encoder, str) else getattr(encoder.config, "_name_or_path", "") or None
        model = load_encoder(encoder, revision, dtype) if not isinstance(encoder, PreTrainedModel) else encoder
        model = vision_tower(model)
        if boosted_modules(model):
            raise ValueError(f"encoder={name!r} is boosted already. Load it with AutoModel.from_pretrained instead.")
        encoder_layout(model.config.model_type)
        config = cls.config_class(
            backbone_config=model.config,
            boosted_layers=boosted_layers,
            base_encoder=name,
            base_revision=getattr(model.config, "_commit_hash", None) or revision,
            **{"attn_implementation": model.config._attn_implementation, **timm_geometry(model), **config_kwargs},
        )
        training = model.training
        mark_as_loaded(model)
        boosted = cls(config, backbone=model)
        for name, child in boosted.named_children():
            if name != "backbone":  # which may hold buffers of another dtype on purpose, such as RoPE frequencies
                child.to(device=model.device, dtype=model.dtype)
        return boosted.train(training)

    def _initialize_weights(self, module: nn.Module, is_custom_code: bool = False) -> None:
        """Start every second channel that a checkpoint lacks as a copy of its base channel."""
        super()._initialize_weights(module, is_custom_code)
        if module is not self:
            return
        with torch.no_grad():
            for attention in boosted_modules(self):
                init.constant_(attention.alpha_logit, self.config.alpha_logit_init)
                base = dict(attention.named_parameters())
                for name, parameter in attention.attn_plus.named_parameters():
                    init.copy_(parameter, base[name])

    def save_pretrained(self, save_directory: str | Path, is_main_process: bool = True, **kwargs: Any) -> None:
        """As any model's; its image processor travels with it, see `save_image_processor`."""
        from .image_processing_spatialboost import save_image_processor  # which needs Pillow

        if is_main_process:
            save_image_processor(self, save_directory)
        super().save_pretrained(save_directory, is_main_process, **kwargs)

    def train(self, mode: bool = True) -> Self:
        """Train mode for the heads only: the encoder always computes as in evaluation.

        DINOv3 jitters its patch coordinates in train mode, which would shift every pixel coordinate that a question
        speaks of, and dropout would disturb the frozen channel. Activation checkpointing still works.
        """
        super().train(mode)
        for module in self.backbone.modules():
            module.training = mode and isinstance(module, GradientCheckpointingLayer)
        return self

    def _set_gradient_checkpointing(self, enable: bool = True, *args: Any, **kwargs: Any) -> None:
        if hasattr(self.backbone, "timm_model"):
            self.backbone._set_gradient_checkpointing(enable)
        else:
            super()._set_gradient_checkpointing(enable, *args, **kwargs)

    def get_input_embeddings(self) -> nn.Module | None:
        """The encoder's patch embedding, where it has one."""
        return self.backbone.get_input_embeddings()

    def freeze_base_channel(self) -> Self:
        """Leave only Attn_plus and alpha trainable in the encoder; heads are not touched."""
        for name, parameter in self.backbone.named_parameters():
            parameter.requires_grad_(is_second_channel(name))
        return self

    def fuse_channels(self) -> FusionReport:
        """Make each pair of channels one attention with twice the heads, for inference; `unfuse_channels` undoes it.

        Fuse last, on the final device. What is saved stays the plain form. Until then, these layers cannot train.

        Returns:
            Indices of the layers that were fused, and for each other boosted layer why it keeps its two passes.
        """
        return fuse(attention_modules(self.backbone, self.config.backbone_config.model_type))

    def unfuse_channels(self) -> Self:
        """Undo `fuse_channels`: the very same parameters, which train again if they did before."""
        for attention in boosted_modules(self):
            unfuse(attention)
        return self

    def alpha_table(self) -> list[dict[str, float]]:
        """Mixing weights per boosted layer: `layer`, and `mean`, `min`, `max` of alpha = sigmoid(alpha_logit)."""
        rows = []
        for layer, attention in enumerate(attention_modules(self.backbone, self.config.backbone_config.model_type)):
            if hasattr(attention, "alpha_logit"):
                alpha = torch.sigmoid(attention.alpha_logit.detach().float())
                rows.append(
                    {"layer": layer, "mean": alpha.mean().item(), "min": alpha.min().item(), "max": alpha.max().item()}
                )
        return rows

    def verify_base_channel(self, base: str | PreTrainedModel | None = None) -> BaseChannelReport:
        """Compare every frozen weight with the original encoder's.

        Args:
            base: the original's id, folder or loaded model; None = `config.base_encoder` at `config.base_revision`.

        Raises:
            ValueError: no base is given and the configuration records none.
        """
        base = base or self.config.base_encoder
        if base is None:
            raise ValueError("base=None, and config.base_encoder names none: pass the original's id or folder.")
        revision = self.config.base_revision if base == self.config.base_encoder else None
        encoder = base if isinstance(base, PreTrainedModel) else load_encoder(base, revision, self.dtype)
        original = encoder.state_dict()
        own = {k: v for k, v in self.backbone.state_dict().items() if not is_second_channel(k)}
        differing = [
            key
            for key, tensor in own.items()
            if key in original and not torch.equal(tensor.cpu(), original[key].to(tensor.dtype).cpu())
        ]
        return BaseChannelReport(len(own), differing, sorted(own.keys() ^ original.keys()))

    def encode(self, pixel_values: torch.Tensor, **kwargs: Any) -> BaseModelOutputWithPooling:
        """Run the encoder on images of any size it allows.

        Args:
            pixel_values: (B, 3, H, W); for SigLIP 2 naflex also the native (B, N, 3 * p * p) with its masks.
            kwargs: `output_hidden_states`, `output_attentions` and whatever the encoder's own forward takes.

        Raises:
            ValueError: the encoder takes one image size only, and it is another.
        """
        if self.config.backbone_config.model_type == "siglip2_vision_model":
            if pixel_values.ndim == 4:
                pixel_values, shapes = patchify(pixel_values, as_pair(self.config.patch_size)[0])
                kwargs["spatial_shapes"] = shapes
                kwargs["pixel_attention_mask"] = torch.ones(pixel_values.shape[:2], device=pixel_values.device)
        elif self.config.image_size is not None and tuple(pixel_values.shape[-2:]) != as_pair(self.config.image_size):
            if not self.any_size:
                height, width = pixel_values.shape[-2:]
                raise ValueError(
                    f"pixel_values of {height}x{width}: this {self.config.backbone_config.model_type} encoder takes "
                    f"images of {'x'.join(map(str, as_pair(self.config.image_size)))} only. Resize them to that."
                )
            if self.interpolates:
                kwargs.setdefault("interpolate_pos_encoding", True)
        return self.backbone(pixel_values, **kwargs)

    def patch_grid(self, pixel_values: torch.Tensor, spatial_shapes: torch.Tensor | None = None) -> tuple[int, int]:
        """(h, w) of the patch grid.

        Raises:
            ValueError: native naflex input whose images have different grids; (B, C, h, w) cannot hold those.
        """
        if spatial_shapes is not None:
            if (spatial_shapes != spatial_shapes[:1]).any():
                raise ValueError(
                    f"spatial_shapes={spatial_shapes.tolist()}: feature maps need one grid for the batch."
                )
            height, width = spatial_shapes[0].tolist()
            return height, width
        patch_height, patch_width = as_pair(self.config.patch_size)
        return pixel_values.shape[-2] // patch_height, pixel_values.shape[-1] // patch_width

    def final_norm(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """The norm behind the encoder's last layer; the identity for encoders that have none."""
        name = encoder_layout(self.config.backbone_config.model_type).final_norm
        return self.backbone.get_submodule(name)(hidden_states) if name else hidden_states

    def patch_features(self, pixel_values: torch.Tensor, **kwargs: Any) -> tuple[torch.Tensor, Any]:
        """Patch tokens of the last layer after the final norm, as a map.

        Returns:
            (B, C, h, w) features, and the encoder's whole output.
        """
        outputs = self.encode(pixel_values, **kwargs)
        tokens = outputs.last_hidden_state if self.normalised else self.final_norm(outputs.last_hidden_state)
        return to_map(tokens, self.patch_grid(pixel_values, kwargs.get("spatial_shapes"))), outputs


class SpatialBoostModel(SpatialBoostPreTrainedModel):
    """The boosted encoder: same inputs and outputs as the encoder inside (`AutoModel`)."""

    def __init__(self, config: SpatialBoostConfig, backbone: PreTrainedModel | None = None) -> None:
        """See `SpatialBoostPreTrainedModel`."""
        super().__init__(config, backbone)
        self.post_init()

    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> Any:
        """As the encoder's own forward; see `encode`."""
        return self.encode(pixel_values, **kwargs)


class SpatialBoostBackbone(BackboneMixin, SpatialBoostPreTrainedModel):
    """Feature maps of chosen layers (`AutoBackbone`), also for encoders that have no backbone class of their own."""

    def __init__(self, config: SpatialBoostConfig, backbone: PreTrainedModel | None = None) -> None:
        """See `SpatialBoostPreTrainedModel`; `config.out_indices` counts the embeddings as 0."""
        super().__init__(config, backbone=backbone)
        self.num_features = [config.hidden_size] * (config.num_hidden_layers + 1)
        self.post_init()

    @can_return_tuple
    @filter_output_hidden_states
    def forward(self, pixel_values: torch.Tensor, **kwargs: Any) -> BackboneOutput:
        """(B, 3, H, W) -> one (B, C, h, w) map for each of `out_features`, normed if `apply_layernorm`."""
        kwargs["output_hidden_states"] = True
        outputs = self.encode(pixel_values, **kwargs)
        hidden_states = outputs.hidden_states
        if len(hidden_states) == self.config.num_hidden_layers:  # timm: maps (B, C, h, w), without the embeddings
            hidden_states = (None, *(h.flatten(2).transpose(1, 2) for h in hidden_states))
        grid = self.patch_grid(pixel_values, kwargs.get("spatial_shapes"))
        maps = []
        for name, tokens in zip(self.stage_names, hidden_states):
            if name in self.out_features:
                if tokens is None:
                    raise ValueError(f"out_features={self.out_features}: this encoder does not give its stem.")
                tokens = self.final_norm(tokens) if self.config.apply_layernorm else tokens
                feature_map = to_map(tokens, grid)
                maps.append(feature_map if self.config.reshape_hidden_states else feature_map.flatten(2).mT)
        attentions = getattr(outputs, "attentions", None)
        return BackboneOutput(feature_maps=tuple(maps), hidden_states=outputs.hidden_states, attentions=attentions)


class SpatialBoostForDepthEstimation(SpatialBoostPreTrainedModel):
    """Metric depth from one linear layer on the patch features, the probe of the DINOv3 protocol."""

    def __init__(self, config: SpatialBoostConfig, backbone: PreTrainedModel | None = None) -> None:
        """`config.depth_bins`, `min_depth_m` and `max_depth_m` set the head."""
        super().__init__(config, backbone)
        self.depth_head = LinearDepthHead(
            config.hidden_size, config.depth_bins, config.min_depth_m, config.max_depth_m
        )
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> DepthEstimatorOutput:
        """(B, 3, H, W) -> `predicted_depth` (B, H, W) in metres; `labels` (B, H', W') in metres, 0 = not counted."""
        features, outputs = self.patch_features(pixel_values, **kwargs)
        depth_m = self.depth_head(features)
        loss = None
        if labels is not None:
            valid = (labels > self.config.min_depth_m) & (labels < self.config.max_depth_m)
            loss = scale_invariant_log_loss(upsample(depth_m, labels.shape[-2:]), labels, valid)
        if pixel_values.ndim == 4:
            depth_m = upsample(depth_m, pixel_values.shape[-2:])
        return DepthEstimatorOutput(loss, depth_m, outputs.hidden_states, getattr(outputs, "attentions", None))


class SpatialBoostForSemanticSegmentation(SpatialBoostPreTrainedModel):
    """Class logits from one linear layer on the patch features."""

    def __init__(self, config: SpatialBoostConfig, backbone: PreTrainedModel | None = None) -> None:
        """`config.num_labels` and `head_dropout` set the head."""
        super().__init__(config, backbone)
        self.segmentation_head = LinearSegmentationHead(config.hidden_size, config.num_labels, config.head_dropout)
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> SemanticSegmenterOutput:
        """(B, 3, H, W) -> `logits` (B, K, h, w) on the patch grid; `labels` (B, H', W') of class ids."""
        features, outputs = self.patch_features(pixel_values, **kwargs)
        logits = self.segmentation_head(features)
        loss = None
        if labels is not None:
            full_size = upsample(logits, labels.shape[-2:])
            loss = functional.cross_entropy(full_size, labels.long(), ignore_index=self.config.ignore_index)
        return SemanticSegmenterOutput(loss, logits, outputs.hidden_states, getattr(outputs, "attentions", None))


class SpatialBoostForImageClassification(SpatialBoostPreTrainedModel):
    """Class logits from one linear layer on the mean of the patch features."""

    def __init__(self, config: SpatialBoostConfig, backbone: PreTrainedModel | None = None) -> None:
        """`config.num_labels` sets the head."""
        super().__init__(config, backbone)
        self.classification_head = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self, pixel_values: torch.Tensor, labels: torch.Tensor | None = None, **kwargs: Any
    ) -> ImageClassifierOutput:
        """(B, 3, H, W) -> `logits` (B, K); `labels` (B,) of class ids."""
        features, outputs = self.patch_features(pixel_values, **kwargs)
        logits = self.classification_head(features.mean((2, 3)))
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return ImageClassifierOutput(loss, logits, outputs.hidden_states, getattr(outputs, "attentions", None))


__all__ = [
    "BaseChannelReport",
    "SpatialBoostBackbone",
    "SpatialBoostForDepthEstimation",
    "SpatialBoostForImageClassification",
    "SpatialBoostForSemanticSegmentation",
    "SpatialBoostModel",
]
