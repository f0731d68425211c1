"""Scenes that show what an earlier scene shows, found by perceptual hashes of their views.

A hash has 256 bits (`imagehash.phash`). Copies of a photograph that were scaled or compressed anew differ in up to 24
of them, different photographs in 80 or more (tests/dataset_builders/test_duplicates.py shows both). Candidates are
hashes that agree in one of 16 bands of 16 bits: every pair up to 15 bits apart is found, and most up to 24.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from dataset_builders.scene import Scene

HASH_SIDE = 16  # bits per side of the hash
NEAR_BITS = 24
BAND_TYPE = np.dtype(">u2")
UNIQUE_SOURCES = ("synthetic", "llava")  # rendered, each from its own seed; several conversations about one photograph


def hashes_of(scene: Scene) -> list[str]:
    """The perceptual hash of every view, in hexadecimal."""
    import imagehash

    return [str(imagehash.phash(Image.fromarray(view.image), hash_size=HASH_SIDE)) for view in scene.views]


def find_duplicates(scenes: Iterable[tuple[str, list[str]]]) -> dict[str, str]:
    """Scenes to leave out, each with the earlier scene that is kept in its place.

    A scene is a duplicate if every view of it looks like some view of one earlier scene that is kept.

    Args:
        scenes: names and `hashes_of` of all scenes, in order; those without hashes are no duplicates.

    Returns:
        Duplicate -> the first scene that it equals.
    """
    duplicates: dict[str, str] = {}
    names: list[str] = []
    owners: list[int] = []  # of each hash, the place of its scene in `names`
    packed = bytearray()
    seen: dict[bytes, str] = {}
    in_order = []
    for name, hashes in scenes:
        if not hashes:
            continue
        in_order.append(name)
        code = bytes.fromhex("".join(hashes))
        first = seen.setdefault(code, name)
        if first != name:  # equal bit for bit, of which there may be very many
            duplicates[name] = first
            continue
        owners += [len(names)] * len(hashes)
        names.append(name)
        packed += code
    bands = np.frombuffer(bytes(packed), dtype=BAND_TYPE).reshape(-1, HASH_SIDE * HASH_SIDE // 16)
    alike: defaultdict[int, defaultdict[int, set[int]]] = defaultdict(lambda: defaultdict(set))
    for one, other in near_pairs(bands, NEAR_BITS):  # later scene -> earlier scene -> views of the later one
        low, high = (one, other) if owners[one] < owners[other] else (other, one)
        if owners[low] != owners[high]:
            alike[owners[high]][owners[low]].add(high)
    num_views = np.bincount(np.array(owners, dtype=int), minlength=len(names))
    for later in sorted(alike):
        equal = [earlier for earlier, views in alike[later].items() if len(views) == num_views[later]]
        kept = [names[earlier] for earlier in sorted(equal) if names[earlier] not in duplicates]
        if kept:
            duplicates[names[later]] = kept[0]
    found = ((name, duplicates[name]) for name in in_order if name in duplicates)
    return {name: duplicates.get(first, first) for name, first in found}


def near_pairs(bands: np.ndarray, limit: int) -> Iterator[tuple[int, int]]:
    """Pairs of rows that agree in a column and differ in at most `limit` bits; a pair may come more than once.

    Args:
        bands: uint16, (N, B), one hash per row.
        limit: bits.
    """
    for column in range(bands.shape[1]):
        order = np.argsort(bands[:, column], kind="stable")
        start = np.arange(len(order))
        for step in range(1, len(order)):  # compare each with the next, the next but one, ... of equal value
            start = start[start + step < len(order)]
            start = start[bands[order[start], column] == bands[order[start + step], column]]
            if not len(start):
                break
            one, other = order[start], order[start + step]
            near = np.bitwise_count(bands[one] ^ bands[other]).sum(axis=1) <= limit
            yield from zip(one[near].tolist(), other[near].tolist())
