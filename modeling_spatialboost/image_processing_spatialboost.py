"""Image processor of a boosted encoder: resize the whole image, never crop, so that coordinates stay valid."""

from pathlib import Path
from typing import Any, Self

import torch
from transformers import AutoImageProcessor, PreTrainedModel
from transformers.image_utils import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, PILImageResampling
from transformers.utils import IMAGE_PROCESSOR_NAME, is_torchvision_available, logging

from .config_limits import LARGEST_IMAGE_SIDE_PX, check_number
from .dense_heads import upsample
from .encoder_loading import first_line

if is_torchvision_available():
    from transformers.image_processing_backends import TorchvisionBackend as Backend
else:
    from transformers.image_processing_backends import PilBackend as Backend

logger = logging.get_logger(__name__)


class SpatialBoostImageProcessor(Backend):
    """Resize to a fixed size, rescale, normalise with the encoder's own mean and standard deviation.

    Questions name points by normalised coordinates of the whole image, so there is no centre crop.
    """

    resample = PILImageResampling.BICUBIC
    image_mean = IMAGENET_DEFAULT_MEAN
    image_std = IMAGENET_DEFAULT_STD
    size = {"height": 224, "width": 224}  # noqa: RUF012
    do_resize = True
    do_rescale = True
    do_normalize = True
    do_convert_rgb = True

    def __init__(self, **kwargs: Any) -> None:
        """As any image processor.

        Raises:
            ValueError: a `size` that no image is resized to.
        """
        super().__init__(**kwargs)
        for name, side in dict(self.size).items():
            if side is not None:
                check_number("image processor", f"size[{name!r}]", side, 1, LARGEST_IMAGE_SIDE_PX)

    @classmethod
    def from_encoder(cls, encoder: str, size: int | None = None, revision: str | None = None) -> Self:
        """Take mean, standard deviation and resampling from the encoder's own image processor.

        Args:
            encoder: id or folder of the encoder.
            size: side of the square that images are resized to, in pixels; None = the encoder's own.
            revision: of the Hub repository.

        Raises:
            ValueError: the encoder comes without an image processor.
        """
        try:
            own = AutoImageProcessor.from_pretrained(encoder, revision=revision)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"encoder={encoder!r} has no image processor that transformers can load: make one with "
                f"SpatialBoostImageProcessor(size=..., image_mean=..., image_std=...) ({first_line(error)})"
            ) from error
        settings: dict[str, Any] = {
            key: getattr(own, key)
            for key in ("image_mean", "image_std", "resample", "do_normalize", "rescale_factor")
            if getattr(own, key, None) is not None
        }
        sizes = dict(getattr(own, "crop_size", None) or getattr(own, "size", None) or {})
        if timm_settings := getattr(own, "data_config", None):
            sizes = {"height": timm_settings["input_size"][1]}
            settings = {"image_mean": timm_settings["mean"], "image_std": timm_settings["std"]}
            settings["resample"] = PILImageResampling[timm_settings["interpolation"].upper()]
        size = size or sizes.get("height") or sizes.get("shortest_edge") or 224
        return cls(size={"height": size, "width": size}, **settings)

    def post_process_depth_estimation(
        self, outputs: Any, target_sizes: list[tuple[int, int]] | None = None
    ) -> list[dict[str, torch.Tensor]]:
        """Depth maps in metres, one `{"predicted_depth": (H, W)}` an image, resized to `target_sizes` if given."""
        depths = list(outputs.predicted_depth)
        if target_sizes is None:
            return [{"predicted_depth": depth} for depth in depths]
        return [{"predicted_depth": upsample(d[None].float(), s)[0]} for d, s in zip(depths, target_sizes)]

    def post_process_semantic_segmentation(
        self, outputs: Any, target_sizes: list[tuple[int, int]] | None = None
    ) -> list[torch.Tensor]:
        """Class id maps (H, W), int64, one an image, resized to `target_sizes` if given."""
        if target_sizes is None:
            return list(outputs.logits.argmax(1))
        return [upsample(x[None].float(), s)[0].argmax(0) for x, s in zip(outputs.logits, target_sizes)]


def save_image_processor(model: PreTrainedModel, folder: str | Path) -> None:
    """Put a boosted encoder's image processor beside its weights, unless `folder` holds one already.

    It is that of the folder or id that the model was loaded from, else one made from its base's; a warning tells
    where neither has one.
    """
    if (Path(folder) / IMAGE_PROCESSOR_NAME).is_file():
        return
    own, base = model.name_or_path, model.config.base_encoder
    makers = [lambda: SpatialBoostImageProcessor.from_pretrained(own)] if own else []
    makers += [lambda: SpatialBoostImageProcessor.from_encoder(base, None, model.config.base_revision)] if base else []
    for make in makers:
        try:
            return make().save_pretrained(folder)
        except (OSError, ValueError) as error:
            reason = first_line(error)
    logger.warning(
        f"{folder} gets no {IMAGE_PROCESSOR_NAME} ({reason if makers else 'the encoder has no name'}): "
        "save a SpatialBoostImageProcessor there, so that images are prepared alike everywhere."
    )


__all__ = ["SpatialBoostImageProcessor"]
