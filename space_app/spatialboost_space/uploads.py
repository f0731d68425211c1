"""Images from strangers: what is refused before it is decoded, and how the rest is read."""

import base64
import io
import re
from pathlib import Path
from typing import Any

import gradio as gr
from PIL import Image, ImageOps

from spatialboost_space.errors import NO_IMAGE, Refusal, deleted
from spatialboost_space.settings import limits

FORMATS = ("PNG", "JPEG", "WEBP")
ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}
_JPEG_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")  # no stuffed byte, restart or padding, as pixels have them


def _ends_with_its_image(data: bytes, kind: str) -> bool:
    """Whether nothing hides behind the image: a file may be a picture and an archive or a page at once.

    The file is read from its start, chunk by chunk: whatever comes behind may hold an end mark of its own.
    """
    ends = {"PNG": _end_of_png, "JPEG": _end_of_jpeg, "WEBP": lambda webp: 8 + int.from_bytes(webp[4:8], "little")}
    return kind in ends and not data[ends[kind](data) :].strip(b"\0\r\n ")


def _end_of_png(data: bytes) -> int:
    start = 8
    while start < len(data) and data[start + 4 : start + 8] != b"IEND":
        start += 12 + int.from_bytes(data[start : start + 4], "big")
    return start + 12


def _end_of_jpeg(data: bytes) -> int:
    start = 2
    while (found := _JPEG_MARKER.search(data, start)) and found[0] != b"\xff\xd9":
        start = found.end() + int.from_bytes(data[found.end() : found.end() + 2], "big")
    return found.end() if found else len(data)


def read_image(data: bytes) -> Image.Image:
    """An upright RGB image of at most `working_side_px` a side, without anything else that the file held.

    Raises:
        Refusal: too many bytes or pixels, another format, an animation, content behind the image, a broken file.
    """
    bounds = limits()
    if len(data) > bounds.upload_bytes:
        raise Refusal(f"The file has {len(data) / 2**20:.1f} MB; {bounds.upload_bytes / 2**20:.0f} MB are the limit.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:  # reads the header only
            width, height = image.size
            if width * height > bounds.image_pixels:
                raise Refusal(
                    f"The image has {width} x {height} pixels; {bounds.image_pixels / 1e6:.0f} million are the limit."
                )
            if getattr(image, "n_frames", 1) > 1:
                raise Refusal("The file holds several images or an animation: save one as a plain PNG or JPEG.")
            if not _ends_with_its_image(data, str(image.format)):
                raise Refusal("The file goes on behind its image: save it again as a plain PNG or JPEG.")
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except Refusal:
        raise
    except Exception as error:  # decoders fail in many ways, and none of them is worth more words to a visitor
        raise Refusal(NO_IMAGE) from error
    if max(upright.size) > bounds.working_side_px:
        upright.thumbnail((bounds.working_side_px, bounds.working_side_px), Image.Resampling.LANCZOS)
    return Image.frombytes("RGB", upright.size, upright.tobytes())  # without EXIF or other metadata


def read_file(path: str | Path) -> Image.Image:
    """`read_image` of a file that gradio has stored; its ending must be that of an image, too."""
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise Refusal(NO_IMAGE)
    if not path.is_file():
        raise deleted()
    if path.stat().st_size > limits().upload_bytes:
        raise Refusal(f"The file is larger than {limits().upload_bytes / 2**20:.0f} MB, which is the limit.")
    return read_image(path.read_bytes())


def image_input(**settings: Any) -> gr.Image:
    """Gradio's image input, which gives the path of a file that nothing has decoded yet: `needed` reads it."""
    return gr.Image(type="filepath", image_mode=None, **settings)


def needed(path: str | None) -> Image.Image:
    """The image of an `image_input`.

    Raises:
        Refusal: there is none, or `read_file` refuses it.
    """
    if path is None:
        raise Refusal("Give an image first: upload one, take one with the camera, or choose an example.")
    return read_file(path)


def as_data_url(image: Image.Image, side_px: int = 640) -> str:
    """A JPEG of at most `side_px` a side, for our own page elements."""
    small = image.copy()
    small.thumbnail((side_px, side_px))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
