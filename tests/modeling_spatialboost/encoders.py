"""Tiny random encoders of every real class that can be boosted, by the name of the family."""

import torch
import transformers as t
from transformers import PreTrainedModel

SIZE, PATCH = 32, 8
COMMON = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "patch_size": PATCH}
VIT = {**COMMON, "image_size": SIZE, "intermediate_size": 64}
RATIO = {**COMMON, "image_size": SIZE, "mlp_ratio": 2}

BUILDERS = {
    "dinov3": lambda: t.DINOv3ViTModel(t.DINOv3ViTConfig(**VIT, num_register_tokens=4)),
    "dinov2": lambda: t.Dinov2Model(t.Dinov2Config(**RATIO)),
    "dinov2_registers": lambda: t.Dinov2WithRegistersModel(
        t.Dinov2WithRegistersConfig(**RATIO, num_register_tokens=4)
    ),
    "siglip": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**VIT)),
    "siglip2_fixed": lambda: t.SiglipVisionModel(t.SiglipVisionConfig(**VIT, hidden_act="gelu_pytorch_tanh")),
    "siglip2_naflex": lambda: t.Siglip2VisionModel(
        t.Siglip2VisionConfig(**COMMON, intermediate_size=64, num_patches=16)
    ),
    "clip": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**VIT)),
    "openclip": lambda: t.CLIPVisionModel(t.CLIPVisionConfig(**VIT, hidden_act="gelu", projection_dim=16)),
    "metaclip2": lambda: t.MetaClip2VisionModel(t.MetaClip2VisionConfig(**VIT)),
    "tipsv2": lambda: t.Tipsv2VisionModel(t.Tipsv2VisionConfig(**RATIO)),
    "pe_core": lambda: t.TimmWrapperModel(
        t.TimmWrapperConfig(
            architecture="vit_pe_core_tiny_patch16_384",
            model_args={"depth": 2, "embed_dim": 32, "num_heads": 2, "img_size": SIZE, "patch_size": PATCH},
        )
    ),
    "radio": lambda: t.RadioModel(t.RadioConfig(**{**RATIO, "mlp_ratio": 2.0}, max_img_size=64)),
    "aimv2": lambda: t.Aimv2VisionModel(t.Aimv2VisionConfig(**VIT)),
    "mlcd": lambda: t.MLCDVisionModel(t.MLCDVisionConfig(**VIT)),
    "pixio": lambda: t.PixioModel(t.PixioConfig(**RATIO)),
    "vit": lambda: t.ViTModel(t.ViTConfig(**VIT)),
    "ijepa": lambda: t.IJepaModel(t.IJepaConfig(**VIT)),
}
FIXED_SIZE = {"pe_core", "aimv2"}


def tiny_encoder(name: str) -> PreTrainedModel:
    torch.manual_seed(0)
    return BUILDERS[name]().eval()


def native_inputs(name: str, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """Inputs as the encoder's own forward takes them: two images."""
    generator = torch.Generator().manual_seed(1)
    if name != "siglip2_naflex":
        return {"pixel_values": torch.rand(2, 3, SIZE, SIZE, generator=generator).to(dtype)}
    patches = torch.rand(2, 16, 3 * PATCH * PATCH, generator=generator).to(dtype)
    shapes = torch.tensor([[4, 4], [2, 5]])  # the second image has padding
    mask = torch.arange(16)[None] < shapes.prod(1, keepdim=True)
    return {"pixel_values": patches, "pixel_attention_mask": mask.int(), "spatial_shapes": shapes}
