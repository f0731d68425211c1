"""Load any vision encoder (transformers, timm, ours) from a folder or a Hub id and read its patch features."""

import hashlib
import inspect
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from transformers import AutoConfig, AutoImageProcessor, AutoModel, PreTrainedModel

from model_cards import weights_digest
from modeling_spatialboost.dual_channel_attention import ENCODERS
from modeling_spatialboost.encoder_loading import first_line

# Missing weights of parts that do not touch the patch tokens are harmless; any other one would be random.
UNUSED_PARTS = ("pool", "head", "mask_token", "logit_", "visual_projection", "text_projection", "text_model")


@dataclass(frozen=True)
class Preprocessing:
    """What turns an RGB image into `pixel_values`: resize to a fixed size, scale to [0, 1], normalise."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    resample: int

    def __call__(self, image: Image.Image, resolution: tuple[int, int]) -> torch.Tensor:
        """Return float32 (3, H, W) for `resolution` = (H, W); the aspect ratio is not kept."""
        height, width = resolution
        resized = image.convert("RGB").resize((width, height), Image.Resampling(self.resample))
        pixels = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8).view(height, width, 3)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (pixels.permute(2, 0, 1).contiguous() / 255).sub_(mean).div_(std)


@dataclass(frozen=True)
class Encoder:
    """A frozen vision encoder with all that an evaluator needs to know of it.

    Attributes:
        name: the folder or id it was loaded from.
        model: in eval mode, on `device`.
        patch_size_px: side of a square patch.
        hidden_size: channels C of a patch token.
        num_parameters: of the vision tower only.
        input_size_px: (height, width) its image processor would feed it.
        any_size: whether it takes images of another size, too.
        weights_hash: of configuration, code and weights; two encoders with one hash compute the same features.
        weights_files: digest of the folder's weight files, by which `spatialboost publish` knows whose scores these
            are; "" for one that came from the Hub.
    """

    name: str
    revision: str | None
    model: PreTrainedModel
    preprocessing: Preprocessing
    patch_size_px: int
    hidden_size: int
    num_parameters: int
    input_size_px: tuple[int, int]
    any_size: bool
    weights_hash: str
    weights_files: str = ""

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.model.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """What the encoder computes in."""
        return next(self.model.parameters()).dtype

    def fit_resolution(self, resolution: tuple[int, int]) -> tuple[int, int]:
        """Round (H, W) to the nearest multiples of the patch size, one patch at least."""
        height, width = (max(1, round(side / self.patch_size_px)) * self.patch_size_px for side in resolution)
        return height, width

    def describe(self) -> dict[str, Any]:
        """Return what a report prints about the encoder."""
        return {
            "name": self.name,
            "revision": self.revision,
            "class": f"{type(self.model).__module__}.{type(self.model).__name__}",
            "model_type": _vision_config(self.model).model_type,
            "num_hidden_layers": getattr(_vision_config(self.model), "num_hidden_layers", None),
            "parameters": self.num_parameters,
            "patch_size_px": self.patch_size_px,
            "hidden_size": self.hidden_size,
            "dtype": str(self.dtype).removeprefix("torch."),
            "preprocessing": asdict(self.preprocessing),
            "weights_hash": self.weights_hash,
            "weights_files": self.weights_files,
        }

    def _moved(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """The same on the encoder's device, in its dtype; rounded there, so that pinned memory is not waited for."""
        return pixel_values.to(self.device, non_blocking=True).to(self.dtype)

    @torch.inference_mode()
    def image_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return one feature per image: the class token after the final norm, without one the mean patch token.

        Args:
            pixel_values: (B, 3, H, W), both sides multiples of the patch size.

        Returns:
            (B, C), in the encoder's dtype.
        """
        return self.pooled_features(pixel_values)[:, 0]

    @torch.inference_mode()
    def pooled_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the class token, where there is one, and the mean patch token, both after the final norm.

        Args:
            pixel_values: (B, 3, H, W), both sides multiples of the patch size.

        Returns:
            (B, 2, C), or (B, 1, C) without a class token, in the encoder's dtype.
        """
        rows, columns = (side // self.patch_size_px for side in pixel_values.shape[-2:])
        inputs = _model_inputs(self.model, self._moved(pixel_values), rows, columns)
        tokens = _tokens_after_final_norm(self.model, inputs)  # (B, prefix + rows * columns, C)
        mean = tokens[:, -rows * columns :].mean(1, keepdim=True)  # (B, 1, C)
        return torch.cat([tokens[:, :1], mean], 1) if tokens.shape[1] > rows * columns else mean

    @torch.inference_mode()
    def patch_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return the last layer's patch tokens after the final norm.

        Args:
            pixel_values: (B, 3, H, W), both sides multiples of the patch size.

        Returns:
            (B, C, H / patch, W / patch), in the encoder's dtype.
        """
        rows, columns = (side // self.patch_size_px for side in pixel_values.shape[-2:])
        inputs = _model_inputs(self.model, self._moved(pixel_values), rows, columns)
        tokens = _tokens_after_final_norm(self.model, inputs)  # (B, prefix + rows * columns, C)
        patches = tokens[:, -rows * columns :]
        return patches.transpose(1, 2).unflatten(2, (rows, columns))

    @torch.inference_mode()
    def layer_features(self, pixel_values: torch.Tensor, layers: Sequence[int]) -> list[torch.Tensor]:
        """Return the patch tokens behind some layers, each after the encoder's final norm where it has one.

        Args:
            pixel_values: (B, 3, H, W), both sides multiples of the patch size.
            layers: counted from 0; -1 is the last.

        Returns:
            Per layer (B, C, H / patch, W / patch), in the encoder's dtype.
        """
        rows, columns = (side // self.patch_size_px for side in pixel_values.shape[-2:])
        inputs = _model_inputs(self.model, self._moved(pixel_values), rows, columns)
        blocks, norm = _blocks(self.model), _final_norm(self.model)
        outputs: dict[int, torch.Tensor] = {}

        def keep(index: int, output: Any) -> None:
            outputs[index] = output[0] if isinstance(output, tuple) else output  # (B, prefix + rows * columns, C)

        wanted = [layer % len(blocks) for layer in layers]
        hooks = [
            blocks[index].register_forward_hook(lambda _block, _args, output, index=index: keep(index, output))
            for index in set(wanted)
        ]
        try:
            self.model(**inputs)
        finally:
            for hook in hooks:
                hook.remove()
        tokens = (norm(outputs[index])[:, -rows * columns :] for index in wanted)
        return [patches.transpose(1, 2).unflatten(2, (rows, columns)) for patches in tokens]

    @property
    def num_layers(self) -> int:
        """How many transformer blocks the encoder has."""
        return len(_blocks(self.model))


def load_encoder(
    id_or_folder: str, revision: str | None = None, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Encoder:
    """Load a frozen encoder with AutoModel, remote code included; a CLIP or SigLIP repository gives its vision tower.

    Raises:
        ValueError: if there is no model, no image processor, no patch tokens, or if weights are missing.
    """
    model = _load_vision_model(id_or_folder, revision, dtype)
    vision_config = _vision_config(model)
    patch_size_px, hidden_size = _patch_geometry(model, vision_config, id_or_folder)
    try:
        processor = AutoImageProcessor.from_pretrained(id_or_folder, revision=revision, trust_remote_code=True)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"encoder {id_or_folder!r} has no image processor: save one beside the weights with "
            "AutoImageProcessor.from_pretrained(ORIGINAL).save_pretrained(FOLDER)"
        ) from error
    preprocessing, input_size_px = read_processor(processor)
    return Encoder(
        name=str(id_or_folder),
        revision=revision,
        model=model.requires_grad_(False).eval().to(device),
        preprocessing=preprocessing,
        patch_size_px=patch_size_px,
        hidden_size=hidden_size,
        num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        input_size_px=input_size_px,
        any_size=_takes_any_size(vision_config.model_type),
        weights_hash=hash_model(model),
        weights_files=weights_digest(id_or_folder),
    )


def _load_vision_model(id_or_folder: str, revision: str | None, dtype: torch.dtype) -> PreTrainedModel:
    """Load the model with all its weights and return its vision tower."""
    if Path(id_or_folder).is_dir() and not (Path(id_or_folder) / "config.json").is_file():
        raise ValueError(
            f"encoder {id_or_folder!r} is a folder without config.json: pass one written by save_pretrained"
        )
    try:
        config = AutoConfig.from_pretrained(id_or_folder, revision=revision, trust_remote_code=True)
        _allow_any_timm_size(config)
        layout = ENCODERS.get(config.model_type)
        model_class = getattr(transformers, layout.model_class) if layout and layout.model_class else AutoModel
        model, loading = model_class.from_pretrained(
            id_or_folder,
            config=config,
            revision=revision,
            dtype=dtype,
            trust_remote_code=True,
            output_loading_info=True,
        )
    except (OSError, ValueError) as error:
        raise ValueError(
            f"encoder {id_or_folder!r} cannot be loaded: pass a folder written by save_pretrained or a model id "
            f"that AutoModel knows ({first_line(error)})"
        ) from error
    missing = sorted(key for key in loading["missing_keys"] if not any(part in key for part in UNUSED_PARTS))
    if missing:
        raise ValueError(
            f"encoder {id_or_folder!r} lacks {len(missing)} weights ({missing[0]}, ...), which would stay random: "
            "pass a complete checkpoint"
        )
    return getattr(model, "vision_model", model)


def _vision_config(model: PreTrainedModel) -> Any:
    """Return the innermost configuration, that of the transformers or timm encoder itself."""
    return getattr(model.config, "backbone_config", None) or model.config


def _allow_any_timm_size(config: Any) -> None:
    """Let a timm transformer interpolate its position table, as transformers' encoders do on request."""
    config = getattr(config, "backbone_config", None) or config
    if config.model_type == "timm_wrapper" and any(name in config.architecture for name in ("vit", "eva")):
        config.model_args = {**(config.model_args or {}), "dynamic_img_size": True}


def _takes_any_size(model_type: str) -> bool:
    """Return whether the position table is interpolated; `_allow_any_timm_size` sees to timm's."""
    return model_type not in ENCODERS or ENCODERS[model_type].any_size or model_type == "timm_wrapper"


def _patch_geometry(model: PreTrainedModel, config: Any, name: str) -> tuple[int, int]:
    """Return (patch size in pixels, hidden size)."""
    patch_size, hidden_size = getattr(config, "patch_size", None), getattr(config, "hidden_size", None)
    for module in model.modules():  # timm keeps them in the module
        if hasattr(module, "patch_embed") and hasattr(module, "num_features"):
            patch_size, hidden_size = getattr(module.patch_embed, "patch_size", None), module.num_features
    sides = patch_size if isinstance(patch_size, (list, tuple)) else (patch_size,)
    if sides[0] is None or len(set(sides)) != 1 or hidden_size is None:
        raise ValueError(
            f"encoder {name!r} ({type(model).__name__}) has no square patches: pass a vision transformer such as "
            "DINOv2, DINOv3, CLIP, SigLIP or ViT"
        )
    return int(sides[0]), int(hidden_size)


def read_processor(processor: Any) -> tuple[Preprocessing, tuple[int, int]]:
    """Return the normalisation and the (height, width) of an image processor of transformers or timm."""
    timm_config = getattr(processor, "data_config", None)
    if timm_config:
        resample = getattr(Image.Resampling, timm_config["interpolation"].upper(), Image.Resampling.BICUBIC)
        mean, std, size = timm_config["mean"], timm_config["std"], timm_config["input_size"][1:]
        return Preprocessing(tuple(mean), tuple(std), int(resample)), tuple(size)
    normalises = getattr(processor, "do_normalize", True)
    mean, std = (processor.image_mean, processor.image_std) if normalises else ((0.0,) * 3, (1.0,) * 3)
    crops = getattr(processor, "do_center_crop", None) and getattr(processor, "crop_size", None)
    size = dict(crops or getattr(processor, "size", None) or {})
    if hasattr(processor, "max_num_patches"):  # NaFlex: as many square patches as it allows
        size = {"shortest_edge": int(processor.max_num_patches**0.5) * processor.patch_size}
    height, width = (size.get(side) or size.get("shortest_edge") or 224 for side in ("height", "width"))
    resample = getattr(processor, "resample", None)
    resample = Image.Resampling.BICUBIC if resample is None else resample
    return Preprocessing(tuple(mean), tuple(std), int(resample)), (height, width)


def _model_inputs(
    model: PreTrainedModel, pixel_values: torch.Tensor, rows: int, columns: int
) -> dict[str, torch.Tensor | bool]:
    """Return the keyword arguments that the encoder wants for (B, 3, H, W) images of any size."""
    if _vision_config(model).model_type == "siglip2_vision_model":  # NaFlex: a sequence of flat patches
        batch = len(pixel_values)
        grid = pixel_values.unflatten(3, (columns, -1)).unflatten(2, (rows, -1))  # (B, 3, rows, p, columns, p)
        return {
            "pixel_values": grid.permute(0, 2, 4, 3, 5, 1).reshape(batch, rows * columns, -1),
            "pixel_attention_mask": torch.ones(batch, rows * columns, dtype=torch.int64, device=pixel_values.device),
            "spatial_shapes": torch.tensor([[rows, columns]] * batch, device=pixel_values.device),
        }
    forward = inspect.signature(getattr(model, "backbone", model).forward)
    if "interpolate_pos_encoding" in forward.parameters:  # a fixed position table (CLIP, SigLIP, ViT)
        return {"pixel_values": pixel_values, "interpolate_pos_encoding": True}
    return {"pixel_values": pixel_values}


def _tokens_after_final_norm(model: PreTrainedModel, inputs: dict[str, Any]) -> torch.Tensor:
    """Return (B, tokens, C) after the final norm, which CLIP-like towers apply to the pooled token only."""
    final_norm = next((module for name, module in model.named_modules() if name.endswith("post_layernorm")), None)
    if final_norm is None:
        return model(**inputs).last_hidden_state
    normalised_shapes: list[torch.Size] = []
    hook = final_norm.register_forward_hook(lambda _module, _args, output: normalised_shapes.append(output.shape))
    try:
        tokens = model(**inputs).last_hidden_state
    finally:
        hook.remove()
    return tokens if tokens.shape in normalised_shapes else final_norm(tokens)


def _blocks(model: PreTrainedModel) -> Any:
    """Return the transformer blocks: the longest list of modules of one class, the outermost of equals."""
    lists = [
        module
        for module in model.modules()
        if isinstance(module, torch.nn.ModuleList | torch.nn.Sequential) and len({type(part) for part in module}) == 1
    ]
    return max(lists, key=len)


def _final_norm(model: PreTrainedModel) -> Any:
    """Return the norm behind the last block, the identity for an encoder that has none or that we do not know."""
    layout = ENCODERS.get(_vision_config(model).model_type)
    if layout is None or layout.final_norm is None:
        return torch.nn.Identity()
    return getattr(model, "backbone", model).get_submodule(layout.final_norm)


def hash_model(model: PreTrainedModel) -> str:
    """Hash the configuration, the source files of all modules and every weight."""
    config = {key: value for key, value in model.config.to_dict().items() if key != "_name_or_path"}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for source in sorted({str(sys.modules[type(module).__module__].__file__) for module in model.modules()}):
        digest.update(Path(source).read_bytes())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]
