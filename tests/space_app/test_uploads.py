"""What a stranger may send as an image, and what is refused before it is decoded."""

import io
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from spatialboost_space import uploads
from spatialboost_space.errors import Refusal


def encoded(kind="PNG", size=(30, 20), **options):
    buffer = io.BytesIO()
    Image.fromarray(np.arange(size[0] * size[1] * 3, dtype=np.uint8).reshape(size[1], size[0], 3)).save(
        buffer, kind, **options
    )
    return buffer.getvalue()


def png_bomb(side=30_000):
    """A few kilobytes that would decode to gigabytes."""

    def chunk(name, data):
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def zip_archive():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("payload.py", "print()")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"progressive": True}), ("JPEG", {"restart_marker_blocks": 1}),
     ("JPEG", {"comment": b"\xff\xd9 not the end"}), ("WEBP", {})],
)  # fmt: skip
def test_plain_images_are_read(kind, options, settings):
    image = uploads.read_image(encoded(kind, **options))
    assert image.mode == "RGB" and image.size == (30, 20)


def test_a_large_image_is_reduced_and_an_upright_one_comes_without_its_metadata(settings):
    exif = Image.Exif()
    exif[274] = 6  # lies on its side
    image = uploads.read_image(encoded("JPEG", (30, 20), exif=exif.tobytes()))
    assert image.size == (20, 30) and not image.getexif() and "exif" not in image.info
    assert max(uploads.read_image(encoded(size=(1500, 300))).size) == settings.working_side_px


ANIMATION = io.BytesIO()
Image.new("RGB", (8, 8)).save(
    ANIMATION, "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8), "red")], duration=100
)
REFUSED = {
    "svg": (b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>", "not a PNG"),
    "gif": (encoded("GIF"), "not a PNG"),
    "tiff": (encoded("TIFF"), "not a PNG"),
    "text": (b"hello", "not a PNG"),
    "nothing": (b"", "not a PNG"),
    "bomb": (png_bomb(), "not a PNG"),
    "smaller bomb": (png_bomb(6000), "6000 x 6000 pixels"),
    "animation": (ANIMATION.getvalue(), "animation"),
    "photo of several": (encoded("MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))]), "several images"),
    "png and archive": (encoded() + zip_archive(), "goes on behind"),
    "jpeg and page": (encoded("JPEG") + b"<script>alert(1)</script>", "goes on behind"),
    "png, archive and a second end": (encoded() + zip_archive() + b"\0\0\0\0IEND\xaeB`\x82", "goes on behind"),
    "jpeg, page and a second end": (encoded("JPEG") + b"<script>alert(1)</script>\xff\xd9", "goes on behind"),
    "webp and page": (encoded("WEBP") + b"<html>", "goes on behind"),
    "cut": (encoded(size=(300, 200))[:-400] + b"\0\0\0\0IEND\xaeB`\x82", "not a PNG"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_plain_image_is_refused_with_a_reason(name, settings, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**8)  # as Pillow has it, about; the Space lowers it
    data, reason = REFUSED[name]
    with pytest.raises(Refusal, match=reason):
        uploads.read_image(data)


def test_a_file_that_is_too_large_or_has_another_ending_is_refused_unread(tmp_path, settings):
    large = tmp_path / "large.png"
    large.write_bytes(b"\0" * (settings.upload_bytes + 1))
    with pytest.raises(Refusal, match="limit"):
        uploads.read_file(large)
    (tmp_path / "picture.svg").write_bytes(encoded())
    with pytest.raises(Refusal, match="not a PNG"):
        uploads.read_file(tmp_path / "picture.svg")


def test_an_image_that_is_missing_is_told(tmp_path, settings):
    with pytest.raises(Refusal, match="deleted 15 minutes after"):
        uploads.read_file(tmp_path / "gone.png")
    with pytest.raises(Refusal, match="Give an image first"):
        uploads.needed(None)
