"""The one way to read an image file: upright RGB pixels, or a drop with its reason.

What is stored is kept byte for byte where it shows exactly the pixels that are returned: RGB JPEG, PNG or WEBP that
needs no turning. Greyscale, palettes and CMYK become RGB, 16 bits are scaled to 8, transparency lies on white.
"""

import hashlib
import io
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from dataset_builders.scene import UNKNOWN_INTRINSICS, DropItem, InputError, Intrinsics, View
from dataset_builders.sources import SourceOptions

# some of these Pillow cannot read: such files are counted as drops rather than overlooked
IMAGE_SUFFIXES = frozenset((".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jp2", ".jpeg", ".jpg")) | frozenset(
    (".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp")
)
MIN_SIDE_PX = 16
MAX_PIXELS = 50_000_000  # 150 MB decoded, 350 MB with depth and masks; Pillow refuses bombs from 179 million on
MAX_ASPECT = 4.0  # beyond it lies a panorama, which no pinhole camera took
QUARTER_TURNS = {1: 0, 6: 1, 3: 2, 8: 3}  # EXIF orientation -> clockwise quarter turns that make it upright
MIRRORED = (2, 4, 5, 7)  # EXIF orientations
KEPT_FORMATS = ("JPEG", "MPO", "PNG", "WEBP")
FILM_WIDTH_MM = 36.0  # phones mean the longer side, too: of an iPhone 4S the diagonal would be 7 % off, the width 3 %
MAX_OFF_CENTRE = 0.2  # of the image's side; intrinsics of half or double the resolution are off by 0.25 or more
MAX_NAME_LENGTH = 120


@dataclass(frozen=True)
class ImageFile:
    """A decoded image.

    Attributes:
        name: what a drop calls it.
        pixels: RGB, uint8, (H, W, 3), upright.
        image_bytes: the file's bytes where they show exactly `pixels`, else None.
        quarter_turns: clockwise turns that made the stored pixels upright; depth and masks beside it need the same.
        exif_focal_length_px: of `pixels`, None where EXIF does not tell it.
    """

    name: str
    pixels: np.ndarray
    image_bytes: bytes | None
    quarter_turns: int
    exif_focal_length_px: float | None


def open_image(source: Path | bytes, name: str) -> Image.Image:
    """Decode a whole image of any kind, so that a damaged file is found here.

    Args:
        source: path or content of the file.
        name: what a drop calls it.

    Raises:
        DropItem: "missing_file", "unreadable_image" or "too_large".
    """
    try:
        image: Image.Image = Image.open(source if isinstance(source, Path) else io.BytesIO(source))
        if image.width * image.height > MAX_PIXELS:
            size = f"{image.width}x{image.height} pixels"
            raise DropItem("too_large", f"{name} has {size}, more than {MAX_PIXELS // 10**6} million")
        image.load()
    except DropItem:
        raise
    except FileNotFoundError as error:
        raise DropItem("missing_file", f"{name} does not exist") from error
    except Image.DecompressionBombError as error:
        raise DropItem("too_large", f"{name}: {error}") from error
    except UnidentifiedImageError as error:  # its text names an object in memory, different in every run
        raise DropItem("unreadable_image", f"{name} is no image of a known format") from error
    except Exception as error:  # Pillow raises OSError, SyntaxError, ValueError, struct.error and more on bad files
        why = getattr(error, "strerror", None) or error
        raise DropItem("unreadable_image", f"{name} cannot be read as an image: {why}") from error
    return image


def read_image(source: Path | bytes, name: str) -> ImageFile:
    """Read a photograph.

    Args:
        source: path or content of the file.
        name: what a drop calls it.

    Raises:
        DropItem: "missing_file", "unreadable_image", "too_large", "too_small", "extreme_aspect", "mirrored_image" or
            "pixel_format".
    """
    image = open_image(source, name)
    short, long = sorted(image.size)
    if short < MIN_SIDE_PX:
        raise DropItem("too_small", f"{name} has {image.width}x{image.height} pixels, fewer than {MIN_SIDE_PX} a side")
    if long > MAX_ASPECT * short:
        size = f"{image.width}x{image.height} pixels"
        raise DropItem(
            "extreme_aspect", f"{name} has {size}, a longer side of more than {MAX_ASPECT:g} times the other"
        )
    orientation, focal_length_35mm = _read_exif(image, name)
    if orientation in MIRRORED:
        raise DropItem("mirrored_image", f"{name} has EXIF orientation {orientation}: it is stored mirrored")
    turns = QUARTER_TURNS.get(orientation, 0)
    focal_length_px = focal_length_35mm * long / FILM_WIDTH_MM
    return ImageFile(
        name=name,
        pixels=np.rot90(_rgb(image, name), -turns),
        image_bytes=_content(source) if turns == 0 and _shows_as_stored(image) else None,
        quarter_turns=turns,
        exif_focal_length_px=focal_length_px or None,
    )


def photograph(file: ImageFile, intrinsics: Intrinsics | None = None) -> View:
    """A view without depth; the focal length is that of EXIF, else `intrinsics`, else unknown.

    Raises:
        DropItem: "intrinsics_size" where `intrinsics` would be used and belong to another resolution.
    """
    height, width = file.pixels.shape[:2]
    camera = UNKNOWN_INTRINSICS
    if file.exif_focal_length_px is not None:
        focal_length_px = file.exif_focal_length_px
        camera = Intrinsics(focal_length_px, focal_length_px, (width - 1) / 2, (height - 1) / 2)
    elif intrinsics is not None:
        check_intrinsics(intrinsics, width, height, file.name)
        camera = intrinsics
    return View(file.pixels, np.zeros((height, width), np.float32), camera, image_bytes=file.image_bytes)


def check_intrinsics(intrinsics: Intrinsics, width: int, height: int, name: str) -> None:
    """See that intrinsics can be those of an image of this size in pixels.

    Raises:
        DropItem: "bad_intrinsics" or, where the principal point is far from the middle, "intrinsics_size".
    """
    if not intrinsics.known or min(intrinsics.fx, intrinsics.fy) <= 0:
        raise DropItem("bad_intrinsics", f"{name}: the focal lengths in {intrinsics} are not positive and finite")
    off_centre = max(abs(intrinsics.cx / width - 0.5), abs(intrinsics.cy / height - 0.5))
    if off_centre > MAX_OFF_CENTRE:
        point = f"({intrinsics.cx:g}, {intrinsics.cy:g})"
        raise DropItem(
            "intrinsics_size",
            f"{name}: {point} is far from the middle of {width}x{height} pixels; of another resolution?",
        )


def refuse_views(options: SourceOptions, source: str) -> None:
    """Refuse `--views 2` and more where every image stands alone.

    Raises:
        InputError: as said.
    """
    if options.views not in (None, 1):
        raise InputError(
            f"--views {options.views} is of no use to --source {source}, whose images stand alone; omit it."
        )


def item_name(path: Path) -> str:
    """A relative path as the name of an item: ASCII whatever bytes the file system holds; `item_path` undoes it."""
    return quote_from_bytes(os.fsencode(path.as_posix()))


def item_path(name: str) -> Path:
    """The relative path that `item_name` wrote."""
    return Path(os.fsdecode(unquote_to_bytes(name)))


def safe_id(name: str) -> str:
    """A path or other name as a scene id: a safe file name, different for different names.

    What is safe already stays as it is; anything else gets dashes and the beginning of its hash.
    """
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.")
    if slug == name and 0 < len(slug) <= MAX_NAME_LENGTH:
        return slug
    digest = hashlib.sha256(name.encode("utf-8", "backslashreplace")).hexdigest()[:8]
    return f"{slug[-MAX_NAME_LENGTH:]}-{digest}"


def _content(source: Path | bytes) -> bytes:
    return source.read_bytes() if isinstance(source, Path) else source


def _shows_as_stored(image: Image.Image) -> bool:
    """Whether any reader of the file sees the pixels that `_rgb` gives."""
    moves = image.format != "MPO" and getattr(image, "is_animated", False)
    return image.mode == "RGB" and image.format in KEPT_FORMATS and not image.has_transparency_data and not moves


def _read_exif(image: Image.Image, name: str) -> tuple[int, float]:
    """Orientation (1 = upright) and focal length in millimetres on 35 mm film (0 = not told)."""
    try:
        exif = image.getexif()
        orientation = int(exif.get(ExifTags.Base.Orientation, 1))
        focal_length = float(exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
    except Exception as error:  # garbled EXIF raises as many kinds of error as garbled images
        raise DropItem("unreadable_image", f"{name} has garbled EXIF data: {error}") from error
    return orientation, focal_length if 0 < focal_length < math.inf else 0.0


def _rgb(image: Image.Image, name: str) -> np.ndarray:
    """Pixels as RGB, uint8, (H, W, 3)."""
    if image.mode.startswith("I"):  # one channel of 16 bits or more
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise DropItem("pixel_format", f"{name} has values from {values.min()} to {values.max()}, not 16 bits")
        grey = (values.astype(np.uint32) + 128) // 257  # 65535 is white
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    if image.mode == "F":
        raise DropItem("pixel_format", f"{name} holds floating-point numbers, of which nobody says what is white")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return np.asarray(Image.alpha_composite(white, image).convert("RGB"))
    return np.asarray(image.convert("RGB"))
