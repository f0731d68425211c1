"""Image files of all kinds through `image_files`, which every source of images uses."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dataset_builders.scene import DropItem, Intrinsics
from dataset_builders.sources.image_files import item_name, item_path, open_image, photograph, read_image, safe_id

RAMP = np.stack(np.broadcast_arrays(np.arange(0, 160, 4)[:, None], np.arange(0, 128, 4)[None], 90), -1).astype(
    np.uint8
)
RAMP[:4, :4] = (250, 0, 0)  # a corner that tells how the picture was turned


def encoded(image, kind="PNG", **options):
    if not isinstance(image, Image.Image):
        image = Image.fromarray(image)
    buffer = io.BytesIO()
    image.save(buffer, format=kind, **options)
    return buffer.getvalue()


def with_exif(orientation=None, focal_35mm=None, size=(32, 40)):
    exif = Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    if focal_35mm is not None:
        exif.get_ifd(0x8769)[0xA405] = focal_35mm
    return encoded(Image.fromarray(RAMP).resize(size), "JPEG", exif=exif, quality=95)


def reason(content):
    with pytest.raises(DropItem) as caught:
        read_image(content, "the_name")
    detail = caught.value.detail
    assert "the_name" in detail and " at 0x" not in detail and "/tmp" not in detail
    return caught.value.reason


def empty_png(width, height):
    """A PNG whose header promises a size and whose data hold next to nothing."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# What cannot be used


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6, 0.95])
def test_truncated_files(kind, share):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    content = encoded(noise, kind)
    assert reason(content[: int(share * len(content))]) == "unreadable_image"


def test_a_file_that_is_no_image_or_is_not_there(tmp_path):
    assert reason(b"GET / HTTP/1.1 404") == "unreadable_image"
    assert reason(tmp_path / "absent.jpg") == "missing_file"
    assert reason(tmp_path) == "unreadable_image"


@pytest.mark.parametrize(
    ("width", "height", "why"),
    [(100_000, 100_000, "too_large"), (12_000, 10_000, "too_large"), (10_001, 5_000, "too_large")],
)
def test_bombs_and_giants_are_refused_before_they_are_decoded(width, height, why):
    assert reason(empty_png(width, height)) == why


def test_the_limit_is_named():
    with pytest.raises(DropItem, match="10001x5000 pixels, more than 50 million"):
        read_image(empty_png(10_001, 5_000), "big.png")


@pytest.mark.parametrize(("width", "height"), [(1, 1), (1, 64), (64, 15)])
def test_tiny_images(width, height):
    assert reason(encoded(np.zeros((height, width, 3), np.uint8))) == "too_small"


def test_a_panorama_is_no_photograph_of_a_pinhole_camera():
    assert reason(encoded(np.zeros((1000, 20_000), np.uint8), compress_level=1)) == "extreme_aspect"
    assert reason(encoded(np.zeros((165, 33), np.uint8))) == "extreme_aspect"
    assert read_image(encoded(np.zeros((160, 40), np.uint8)), "x").pixels.shape == (160, 40, 3)


@pytest.mark.parametrize("orientation", [2, 4, 5, 7])
def test_mirrored_images(orientation):
    assert reason(with_exif(orientation)) == "mirrored_image"


@pytest.mark.parametrize("image", [Image.new("F", (32, 32)), Image.new("I", (32, 32), 70_000)])
def test_values_that_nobody_explains(image):
    assert reason(encoded(image, "TIFF")) == "pixel_format"


# What is turned into RGB


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_plain_files_keep_their_bytes(tmp_path, kind):
    content = encoded(RAMP, kind)
    (tmp_path / "a").write_bytes(content)
    for source in (content, tmp_path / "a"):
        file = read_image(source, "a")
        assert file.image_bytes == content and file.quarter_turns == 0 and file.exif_focal_length_px is None
        np.testing.assert_array_equal(file.pixels, np.asarray(Image.open(io.BytesIO(content))))


@pytest.mark.parametrize(("orientation", "turns"), [(1, 0), (6, 1), (3, 2), (8, 3), (0, 0), (99, 0)])
def test_exif_rotation_is_applied(orientation, turns):
    file = read_image(with_exif(orientation), "x")
    assert file.quarter_turns == turns and (file.image_bytes is None) == bool(turns)
    assert np.abs(file.pixels.astype(int) - np.rot90(RAMP, -turns)).mean() < 4
    assert np.ptp(file.pixels[..., 0]) > 200


def test_grey_levels_become_rgb_and_are_stored_anew():
    grey = RAMP[..., 0]
    for content in (encoded(grey), encoded(Image.fromarray(grey).convert("LA"))):
        file = read_image(content, "x")
        assert file.image_bytes is None
        np.testing.assert_array_equal(file.pixels, np.repeat(grey[..., None], 3, -1))


def test_sixteen_bits_are_scaled_and_not_clipped():
    deep = np.linspace(0, 65535, 40 * 32).reshape(40, 32).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        pixels = read_image(encoded(deep, kind), "x").pixels
        assert pixels[0, 0, 0] == 0 and pixels[-1, -1, 0] == 255 and len(np.unique(pixels)) == 256
        np.testing.assert_allclose(pixels[..., 1], deep / 257, atol=0.51)


def test_cmyk():
    for kind in ("JPEG", "TIFF"):
        file = read_image(encoded(Image.new("CMYK", (32, 32), (0, 255, 255, 0)), kind), "x")
        assert file.image_bytes is None and np.abs(file.pixels.astype(int) - (255, 0, 0)).max() < 12


def test_transparency_lies_on_white():
    image = Image.fromarray(RAMP).convert("RGBA")
    image.putalpha(Image.fromarray(np.where(np.arange(32) < 16, 255, 0)[None].repeat(40, 0).astype(np.uint8)))
    pixels = read_image(encoded(image), "x").pixels
    np.testing.assert_array_equal(pixels[:, :16], RAMP[:, :16])
    assert (pixels[:, 16:] == 255).all()


def test_palettes_with_and_without_a_transparent_colour():
    image = Image.fromarray(RAMP).quantize(16)
    shown = read_image(encoded(image), "x").pixels
    np.testing.assert_array_equal(shown, np.asarray(image.convert("RGB")))
    index = image.getpixel((20, 20))
    for content in (encoded(image, transparency=index), encoded(image, "GIF", transparency=index)):
        file = read_image(content, "x")
        assert (file.pixels[20, 20] == 255).all() and file.image_bytes is None


def test_a_transparent_colour_in_an_rgb_file():
    file = read_image(encoded(RAMP, transparency=(250, 0, 0)), "x")
    assert (file.pixels[:4, :4] == 255).all() and file.image_bytes is None


def test_one_bit_and_moving_images():
    assert np.unique(read_image(encoded(Image.fromarray(RAMP).convert("1")), "x").pixels).tolist() == [0, 255]
    frames = [Image.fromarray(RAMP), Image.fromarray(255 - RAMP)]
    moving = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:])
    file = read_image(moving, "x")
    np.testing.assert_array_equal(file.pixels, RAMP)
    assert file.image_bytes is None


# Cameras


def test_the_focal_length_of_exif():
    file = read_image(with_exif(focal_35mm=26, size=(360, 240)), "x")
    assert file.exif_focal_length_px == pytest.approx(260)
    view = photograph(file, Intrinsics(1, 1, 1, 1))  # EXIF knows better
    assert (view.intrinsics.fx, view.intrinsics.cx, view.intrinsics.cy) == (pytest.approx(260), 179.5, 119.5)
    turned = read_image(with_exif(6, 26, size=(360, 240)), "x")
    assert photograph(turned).intrinsics.cx == 119.5
    assert read_image(with_exif(focal_35mm=0), "x").exif_focal_length_px is None


def test_a_photograph_has_no_depth_and_no_camera():
    view = photograph(read_image(encoded(RAMP), "x"))
    assert not view.has_depth and not view.intrinsics.known and view.depth_m.shape == (40, 32)
    given = Intrinsics(50, 50, 16, 20)
    assert photograph(read_image(encoded(RAMP), "x"), given).intrinsics == given


# Names


def test_ids_are_safe_and_different():
    names = ["a.b.jpg", "a.c.jpg", "x/a.jpg", "y/a.jpg", "x-a.jpg", "x a.jpg", "é.jpg", "..", "", "n" * 300, "n" * 301]
    names.append(b"caf\xe9.jpg".decode("utf-8", "surrogateescape"))
    ids = [safe_id(name) for name in names]
    assert len(set(ids)) == len(ids)
    for one in ids:
        assert one.isascii() and "/" not in one and 0 < len(one) < 200 and one not in (".", "..")
    assert ids[0] == "a.b.jpg"


def test_names_of_items_survive_whatever_bytes_they_hold():
    for raw in (b"a b/c.jpg", b"caf\xe9@100%.jpg", "\u00e9\n.jpg".encode()):
        path = Path(os.fsdecode(raw))
        assert item_name(path).isascii() and item_name(path).isprintable() and " " not in item_name(path)
        assert item_path(item_name(path)) == path


@pytest.mark.parametrize("camera", [(50, 50, 32, 20), (50, 50, 8, 10), (50, 50, 16, 40), (-5, 50, 16, 20)])
def test_intrinsics_of_another_resolution(camera):
    file = read_image(encoded(RAMP), "the_name")
    with pytest.raises(DropItem, match="the_name") as caught:
        photograph(file, Intrinsics(*camera))
    assert caught.value.reason == ("bad_intrinsics" if camera[0] < 0 else "intrinsics_size")


def test_masks_and_depth_have_no_smallest_size():
    assert open_image(encoded(np.zeros((1, 1), np.uint16)), "x").size == (1, 1)
