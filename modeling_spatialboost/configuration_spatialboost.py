"""Configurations of the boosted encoder and of the vision-language model around it."""

from typing import Any, ClassVar

from transformers import AutoConfig, LlavaConfig, PreTrainedConfig
from transformers.backbone_utils import BackboneConfigMixin

from .config_limits import check_number, check_sizes

# What one repository of a boosted encoder offers, whichever of these classes saved it.
AUTO_MAP = {
    "AutoConfig": "configuration_spatialboost.SpatialBoostConfig",
    "AutoModel": "modeling_spatialboost.SpatialBoostModel",
    "AutoBackbone": "modeling_spatialboost.SpatialBoostBackbone",
    "AutoModelForDepthEstimation": "modeling_spatialboost.SpatialBoostForDepthEstimation",
    "AutoModelForSemanticSegmentation": "modeling_spatialboost.SpatialBoostForSemanticSegmentation",
    "AutoModelForImageClassification": "modeling_spatialboost.SpatialBoostForImageClassification",
}


class SpatialBoostConfig(BackboneConfigMixin, PreTrainedConfig):
    """Configuration of an encoder with dual-channel attention.

    Attributes:
        backbone_config: configuration of the encoder that is boosted; its type must be in `ENCODERS`.
        boosted_layers: indices of the attention layers that have a second channel; None = all, [] = none.
        alpha_logit_init: start of `alpha_logit`; 0 gives alpha = 0.5.
        base_encoder, base_revision: where the frozen weights came from, for `verify_base_channel`.
        hidden_size, num_hidden_layers, patch_size, image_size: read off the encoder, so that config.json tells them.
        apply_layernorm, reshape_hidden_states, out_features, out_indices: of the feature maps, as in any AutoBackbone.
        depth_bins, min_depth_m, max_depth_m: of the linear depth head, metres.
        head_dropout: dropout before the linear segmentation head.
        ignore_index: label that segmentation does not count.
    """

    model_type = "spatialboost"
    base_config_key = "vision_config"
    sub_configs: ClassVar[dict[str, type]] = {"backbone_config": AutoConfig}

    backbone_config: Any = None
    boosted_layers: list[int] | None = None
    alpha_logit_init: float = 0.0
    base_encoder: str | None = None
    base_revision: str | None = None
    hidden_size: int | None = None
    num_hidden_layers: int | None = None
    patch_size: int | list[int] | None = None
    image_size: int | list[int] | None = None
    apply_layernorm: bool = True
    reshape_hidden_states: bool = True
    depth_bins: int = 256
    min_depth_m: float = 1e-3
    max_depth_m: float = 10.0
    head_dropout: float = 0.1
    ignore_index: int = 255
    _out_features: list[str] | None = None
    _out_indices: list[int] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Check the sizes, read the geometry off the encoder's configuration and name the stages."""
        check_sizes(self.backbone_config, "backbone_config")
        check_sizes(vars(self) | kwargs, "configuration")
        check_number("configuration", "alpha_logit_init", self.alpha_logit_init, -1000, 1000)
        check_number("configuration", "head_dropout", self.head_dropout, 0, 1)
        outputs = {key: kwargs.pop(key, None) for key in ("out_features", "out_indices")}
        kwargs.setdefault("auto_map", dict(AUTO_MAP))
        self.backbone_config = sub_config(self.backbone_config, "dinov3_vit")
        super().__post_init__(**kwargs)
        geometry = {}
        for key in ("hidden_size", "num_hidden_layers", "patch_size", "image_size"):
            own = getattr(self, key)
            geometry[key] = getattr(self.backbone_config, key, None) if own is None else own
        self.set_geometry(**geometry, **outputs)
        self.validate_depth_range()

    def set_geometry(
        self,
        hidden_size: int | None,
        num_hidden_layers: int | None,
        patch_size: int | list[int] | None,
        image_size: int | list[int] | None,
        out_features: list[str] | None = None,
        out_indices: list[int] | None = None,
    ) -> None:
        """Set the encoder's sizes, and the stages that follow from them."""
        self.hidden_size, self.num_hidden_layers = hidden_size, num_hidden_layers
        self.patch_size, self.image_size = patch_size, image_size
        self.stage_names = ["stem"] + [f"stage{i}" for i in range(1, (num_hidden_layers or 0) + 1)]
        self.set_output_features_output_indices(out_features, out_indices)

    def validate_depth_range(self) -> None:
        """Raise ValueError unless 0 < min_depth_m < max_depth_m and there are at least two bins."""
        if not 0 < self.min_depth_m < self.max_depth_m < float("inf"):
            raise ValueError(
                f"min_depth_m={self.min_depth_m} and max_depth_m={self.max_depth_m}: give metres with 0 < min < max."
            )
        if self.depth_bins < 2:
            raise ValueError(f"depth_bins={self.depth_bins}: give at least 2, the paper's linear probe has 256.")


class SpatialBoostVLMConfig(LlavaConfig):
    """Configuration of encoder + projector + language model; LLaVA's, with `SpatialBoostConfig` as `vision_config`.

    Attributes:
        vision_feature_layer: -1 feeds the last layer after the encoder's final norm; any other index feeds that
            hidden state as it is.
        use_cls_token: put the encoder's first token ([CLS]) in front of each image's patch tokens.
        projector_shuffle: pixel shuffle in front of the projector: each block of that many patch tokens in height and
            in width becomes one token with the channels of all; 2 leaves a quarter of the image tokens, 1 all of them.
            [CLS] belongs to no block, so that `use_cls_token` needs 1.
    """

    model_type = "spatialboost_vlm"
    sub_configs: ClassVar[dict[str, type]] = {"vision_config": SpatialBoostConfig, "text_config": AutoConfig}
    sub_configs_defaults: ClassVar[dict] = {}  # LLaVA's; newer transformers would resolve the parts by them

    vision_config: Any = None
    text_config: Any = None

    vision_feature_layer: int = -1
    vision_feature_select_strategy: str = "full"
    use_cls_token: bool = False
    projector_shuffle: int = 1

    def __post_init__(self, **kwargs: Any) -> None:
        """Turn the parts that come as dictionaries into configurations."""
        check_sizes(vars(self) | kwargs, "configuration")
        check_sizes(self.text_config, "text_config")
        if isinstance(self.vision_config, dict):
            check_sizes(self.vision_config, "vision_config")
        self.validate_projector_shuffle()
        if not isinstance(self.vision_config, PreTrainedConfig):
            self.vision_config = SpatialBoostConfig(**(self.vision_config or {}))
        self.text_config = sub_config(self.text_config, "qwen2")
        super().__post_init__(**kwargs)

    def validate_projector_shuffle(self) -> None:
        """Raise ValueError unless it is 1 or more, and 1 with [CLS]."""
        if self.projector_shuffle < 1:
            raise ValueError(f"projector_shuffle={self.projector_shuffle}: give 1 for every patch token, or 2.")
        if self.projector_shuffle > 1 and self.use_cls_token:
            raise ValueError(
                f"projector_shuffle={self.projector_shuffle} joins blocks of patches, and use_cls_token=True asks for "
                "a token that belongs to none: choose one of both."
            )


def sub_config(value: dict[str, Any] | PreTrainedConfig | None, default_model_type: str) -> PreTrainedConfig:
    """The configuration of a part, which may come as a dictionary, of `default_model_type` where it names no type."""
    if isinstance(value, PreTrainedConfig):
        return value
    settings = dict(value or {})
    return AutoConfig.for_model(settings.pop("model_type", default_model_type), **settings)
