"""From a picture of any size to one that an encoder takes: how whole-image protocols crop, pad or resize."""

from dataclasses import dataclass
from typing import Literal, get_args

from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

BICUBIC = InterpolationMode.BICUBIC
FramingName = Literal["crop", "letterbox", "native", "squash"]
FRAMING_NAMES: tuple[str, ...] = get_args(FramingName)
ZOOM = 256 / 224  # the short side before the centre crop, DINOv3's evaluation and most others


@dataclass(frozen=True)
class Framing:
    """Bicubic, one of four ways.

    Attributes:
        name: `crop`: short side to 256/224 of the input, then the centre (ImageNet, AmsterTime). `letterbox`: long
            side to the input, black borders; what a "full centre crop" does (DINOv3, ROxford and RParis). `native`:
            each side to the nearest multiple of the patch size (DINOv3, Met). `squash`: the input's size, whatever
            becomes of the aspect ratio.
        resolution: (height, width) of the input in pixels; not used by `native`.
        patch_size_px: what `native` rounds to.
    """

    name: FramingName
    resolution: tuple[int, int]
    patch_size_px: int

    def __post_init__(self) -> None:
        """Check the name."""
        if self.name not in FRAMING_NAMES:
            raise ValueError(f"framing {self.name!r} is none: pass one of {', '.join(FRAMING_NAMES)}")

    def __call__(self, image: Image.Image) -> Image.Image:
        """Return the framed RGB picture."""
        if self.name == "crop":
            image = functional.resize(image, [round(min(self.resolution) * ZOOM)], BICUBIC)
        elif self.name == "letterbox":
            scale = min(new / old for new, old in zip(self.resolution, (image.height, image.width)))
            size = [max(1, round(side * scale)) for side in (image.height, image.width)]
            image = functional.resize(image, size, BICUBIC)
        elif self.name == "native":
            patch = self.patch_size_px
            sides = [max(1, round(side / patch)) * patch for side in (image.height, image.width)]
            return functional.resize(image, sides, BICUBIC)
        else:
            return functional.resize(image, list(self.resolution), BICUBIC)
        return functional.center_crop(image, list(self.resolution))  # pads with black what is smaller
