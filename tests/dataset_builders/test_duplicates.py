"""Copies are found, different pictures are not, and the first in order stays."""

import io
from itertools import combinations

import imagehash
import numpy as np
import pytest
from PIL import Image

from dataset_builders.duplicates import NEAR_BITS, find_duplicates, hashes_of, near_pairs
from dataset_builders.sources import SourceOptions, open_source
from tests.dataset_builders.builds_for_tests import build, rgbd_plan, write_rgbd_samples


@pytest.fixture(scope="module")
def rooms():
    """Rendered rooms, one view each, at 64 pixels: textured, shaded, with objects, as photographs are."""
    source = open_source("synthetic", SourceOptions(num_scenes=24, image_size=(64, 64), views=1))
    return [source.load(item) for item in source.list_items()]


@pytest.fixture(scope="module")
def pictures():
    """The same rooms at the size of a thumbnail."""
    source = open_source("synthetic", SourceOptions(num_scenes=6, image_size=(240, 320), views=1))
    return [Image.fromarray(source.load(item).views[0].image) for item in source.list_items()]


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


COPIES = {
    "jpeg 90": lambda image: jpeg(image, 90),
    "jpeg 50": lambda image: jpeg(image, 50),
    "half": lambda image: image.resize((image.width // 2, image.height // 2)),
    "double and jpeg 75": lambda image: jpeg(image.resize((image.width * 2, image.height * 2)), 75),
    "brighter": lambda image: image.point(lambda value: min(255, int(1.1 * value))),
}


@pytest.mark.parametrize("name", COPIES)
def test_copies_are_found(pictures, name):
    names = [f"original-{number}" for number in range(len(pictures))]
    scenes = list(zip(names, ([phash(image)] for image in pictures)))
    scenes += [(f"copy-{number}", [phash(COPIES[name](image))]) for number, image in enumerate(pictures)]
    assert find_duplicates(scenes) == {f"copy-{number}": one for number, one in enumerate(names)}


def test_different_rooms_are_kept(rooms):
    scenes = [(scene.id, hashes_of(scene)) for scene in rooms]
    assert find_duplicates(scenes) == {}
    codes = [int(hashes[0], 16) for _, hashes in scenes]
    assert min((one ^ other).bit_count() for one, other in combinations(codes, 2)) > 3 * NEAR_BITS


def test_a_scene_is_a_duplicate_only_if_all_its_views_are():
    one, two, three = (code(number) for number in range(3))
    assert find_duplicates([("a", [one, two]), ("b", [one, three]), ("c", [flipped(two, 3)])]) == {"c": "a"}
    assert find_duplicates([("a", [one]), ("b", [two, one]), ("c", [one, two])]) == {"c": "b"}


def test_the_first_stays_and_a_duplicate_is_no_reason():
    start = code(0)
    near = flipped(start, 14)
    beyond = flipped(start, 28)  # near to the second, far from the first
    assert (int(near, 16) ^ int(beyond, 16)).bit_count() == 14
    assert find_duplicates([("a", [start]), ("b", [near]), ("c", [beyond])]) == {"b": "a"}
    assert find_duplicates([("b", [near]), ("a", [start]), ("c", [beyond])]) == {"a": "b", "c": "b"}


def test_very_many_equal_ones_and_scenes_without_views():
    many = [(f"item-{number}", [code(0)]) for number in range(20_000)]
    found = find_duplicates([("text", []), *many, ("other text", [])])
    assert len(found) == 19_999 and set(found.values()) == {"item-0"}
    assert find_duplicates([]) == {}


def test_pairs_against_all_pairs():
    generator = np.random.default_rng(0)
    bands = generator.integers(0, 2**16, (120, 16), dtype=np.uint16)
    for copy in range(60):  # half of them have a neighbour at a distance of up to 15 bits
        bands[60 + copy] = bands[copy]
        for bit in generator.choice(256, size=copy % 16, replace=False):
            bands[60 + copy, bit // 16] ^= np.uint16(1 << (bit % 16))
    distances = {
        (one, other): int(np.bitwise_count(bands[one] ^ bands[other]).sum())
        for one, other in combinations(range(120), 2)
    }
    expected = {pair for pair, distance in distances.items() if distance <= 15}
    assert len(expected) >= 60
    assert {tuple(sorted(pair)) for pair in near_pairs(bands, 15)} == expected


def test_a_build_leaves_duplicates_out(pictures, tmp_path):
    names = ("a-first", "b-other", "c-copy", "d-third", "e-copy")
    copies = (pictures[0], pictures[1], jpeg(pictures[0], 60), pictures[2], jpeg(pictures[1], 60))
    write_rgbd_samples(tmp_path / "input", dict(zip(names, copies)))
    report = build(rgbd_plan(tmp_path / "input", tmp_path / "data"))
    assert report["rows"] == {"dense": {"train": 3}} and report["kept_items"] == 3
    assert [(one["reason"], one["detail"].replace("@0", "")) for one in report["drops"]] == [
        ("duplicate_image", "c-copy looks like a-first"),
        ("duplicate_image", "e-copy looks like b-other"),
    ]
    import datasets

    rows = datasets.load_dataset(str(tmp_path / "data"), "dense", split="train", streaming=True)
    assert [row["id"].removesuffix("@0") for row in rows] == ["a-first", "b-other", "d-third"]
    assert "| whole item | duplicate_image | 2 |" in (tmp_path / "data" / "README.md").read_text()


def phash(image: Image.Image) -> str:
    return str(imagehash.phash(image, hash_size=16))


def code(seed: int) -> str:
    return np.random.default_rng(seed).bytes(32).hex()


def flipped(hexadecimal: str, bits: int) -> str:
    """With the lowest bits turned over."""
    return f"{int(hexadecimal, 16) ^ ((1 << bits) - 1):064x}"
