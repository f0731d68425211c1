"""Encoders with dual-channel attention, native to transformers; this folder travels with every checkpoint."""

from transformers import (
    AutoBackbone,
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForDepthEstimation,
    AutoModelForImageClassification,
    AutoModelForImageTextToText,
    AutoModelForSemanticSegmentation,
    AutoProcessor,
)

from .configuration_spatialboost import SpatialBoostConfig, SpatialBoostVLMConfig
from .dual_channel_attention import ENCODERS
from .image_processing_spatialboost import SpatialBoostImageProcessor
from .modeling_spatialboost import (
    SpatialBoostBackbone,
    SpatialBoostForDepthEstimation,
    SpatialBoostForImageClassification,
    SpatialBoostForSemanticSegmentation,
    SpatialBoostModel,
)
from .modeling_spatialboost_vlm import SpatialBoostForConditionalGeneration
from .processing_spatialboost import SpatialBoostProcessor


def _register() -> None:
    """Tell the Auto classes of this process about ours, and ours to travel with what they save."""
    for config_class in (SpatialBoostConfig, SpatialBoostVLMConfig):
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)
        config_class.register_for_auto_class()
    for auto_class, model_class in (
        (AutoModel, SpatialBoostModel),
        (AutoBackbone, SpatialBoostBackbone),
        (AutoModelForDepthEstimation, SpatialBoostForDepthEstimation),
        (AutoModelForSemanticSegmentation, SpatialBoostForSemanticSegmentation),
        (AutoModelForImageClassification, SpatialBoostForImageClassification),
        (AutoModelForImageTextToText, SpatialBoostForConditionalGeneration),
    ):
        auto_class.register(model_class.config_class, model_class, exist_ok=True)
        model_class.register_for_auto_class(auto_class.__name__)
    AutoProcessor.register(SpatialBoostVLMConfig, SpatialBoostProcessor, exist_ok=True)
    SpatialBoostImageProcessor.register_for_auto_class("AutoImageProcessor")
    SpatialBoostProcessor.register_for_auto_class("AutoProcessor")
    backend = "torchvision" if "Torchvision" in SpatialBoostImageProcessor.__mro__[1].__name__ else "pil"
    AutoImageProcessor.register(
        SpatialBoostConfig, image_processor_classes={backend: SpatialBoostImageProcessor}, exist_ok=True
    )


_register()

__all__ = [
    "ENCODERS",
    "SpatialBoostBackbone",
    "SpatialBoostConfig",
    "SpatialBoostForConditionalGeneration",
    "SpatialBoostForDepthEstimation",
    "SpatialBoostForImageClassification",
    "SpatialBoostForSemanticSegmentation",
    "SpatialBoostImageProcessor",
    "SpatialBoostModel",
    "SpatialBoostProcessor",
    "SpatialBoostVLMConfig",
]
