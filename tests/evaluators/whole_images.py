"""Miniature data sets of whole pictures, written in the layouts of the real ones."""

import numpy as np
from PIL import Image

COLOURS = {"blue": (60, 80, 230), "green": (70, 210, 80), "red": (220, 60, 60)}


def blob(name, seed, size=None):
    """A picture with patches of one colour on noise."""
    random = np.random.default_rng([seed, *map(ord, name)])
    height, width = size or random.integers(34, 60, 2)
    pixels = random.normal(110, 40, (height, width, 3))
    for _ in range(3):
        top, left = random.integers(0, height - 12), random.integers(0, width - 12)
        pixels[top : top + 14, left : left + 14] = COLOURS[name] + random.normal(0, 30, 3)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def save(picture, file):
    file.parent.mkdir(parents=True, exist_ok=True)
    picture.save(file)


def write_classes(root, per_class, splits=("train", "val"), suffix="png"):
    """`SPLIT/CLASS/NAME.png`, or `CLASS/NAME.png` for a split named ""."""
    for offset, split in enumerate(splits):
        for name in COLOURS:
            for number in range(per_class):
                save(blob(name, 1000 * offset + number), root / split / name / f"{number:03d}.{suffix}")
    return root
