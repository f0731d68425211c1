"""Pixels of two images that show the same point: learned matchers of transformers, and SIFT without any weights."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Protocol

import numpy as np
from PIL import Image

from dataset_builders.geometry import Array
from dataset_builders.perception import PerceptionOptions
from dataset_builders.scene import InputError

ARCHITECTURES = {
    "efficientloftr": ("EfficientLoFTRForKeypointMatching", "EfficientLoFTRImageProcessor"),
    "lightglue": ("LightGlueForKeypointMatching", "LightGlueImageProcessor"),
    "superglue": ("SuperGlueForKeypointMatching", "SuperGlueImageProcessor"),
}
Pairs = Sequence[tuple[int, int]]


class Matcher(Protocol):
    """Finds the same points in two images."""

    def match(self, images: Sequence[Array], pairs: Pairs) -> list[Array]:
        """For each pair of indices of images, matched pixels (N, 4): u, v in the first, u, v in the second."""


class TransformersMatcher:
    """LightGlue or SuperGlue on SuperPoint, or EfficientLoFTR.

    Always in float32: in half precision the coordinates themselves would be off by a pixel or more.
    """

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Load by id or folder; see `loading.load` for errors."""
        from dataset_builders.perception.loading import load

        self._batch_size = options.batch_size
        self._loaded = load("reconstructor", name, replace(options, dtype="float32"), ARCHITECTURES)

    def match(self, images: Sequence[Array], pairs: Pairs) -> list[Array]:
        """See `Matcher`; to the whole pixel."""
        import torch

        matches = []
        with torch.inference_mode():
            for start in range(0, len(pairs), self._batch_size):
                chosen = [[images[view] for view in pair] for pair in pairs[start : start + self._batch_size]]
                inputs = self._loaded.processor(images=chosen, return_tensors="pt").to(self._loaded.device)
                outputs = self._loaded.model(**inputs)
                sizes = [[image.shape[:2] for image in pair] for pair in chosen]
                found = self._loaded.processor.post_process_keypoint_matching(outputs, sizes)
                matches += [np.hstack([_pixels(one["keypoints0"]), _pixels(one["keypoints1"])]) for one in found]
        return matches


def _pixels(keypoints: Any) -> Array:
    return keypoints.cpu().numpy().reshape(-1, 2).astype(np.float64)


class SiftMatcher:
    """Classical features (COLMAP's own SIFT on one CPU core): good on texture and small changes of the viewpoint."""

    def __init__(self) -> None:
        """Raise `InputError` where pycolmap is not installed."""
        try:
            import pycolmap
        except ImportError as error:
            raise InputError("reconstructor keypoints:sift needs pycolmap; run pip install pycolmap.") from error
        pycolmap.logging.minloglevel = 1  # it would announce every extractor on standard error
        extraction = pycolmap.FeatureExtractionOptions(num_threads=1)
        matching = pycolmap.FeatureMatchingOptions(num_threads=1)
        self._extractor = pycolmap.FeatureExtractor.create(extraction, pycolmap.Device.cpu)
        self._matcher = pycolmap.FeatureMatcher.create(matching, pycolmap.Device.cpu)

    def match(self, images: Sequence[Array], pairs: Pairs) -> list[Array]:
        """See `Matcher`; to a fraction of a pixel."""
        used = sorted({view for pair in pairs for view in pair})
        greys = {view: np.asarray(Image.fromarray(images[view]).convert("L")) for view in used}
        features = {view: self._extractor.extract_from_uint8_array(grey) for view, grey in greys.items()}
        centres = {  # COLMAP counts from the corner of a pixel, we from its centre
            view: np.array([(one.x - 0.5, one.y - 0.5) for one in keypoints]).reshape(-1, 2)
            for view, (keypoints, _) in features.items()
        }
        matches = []
        for first, second in pairs:
            index = np.empty((0, 2), dtype=np.int64)
            if len(centres[first]) and len(centres[second]):
                index = self._matcher.match(*features[first], *features[second]).astype(np.int64)
            matches.append(np.hstack([centres[first][index[:, 0]], centres[second][index[:, 1]]]))
        return matches
