"""Features of the views of a split: cached on disk, or computed again where they would not fit."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image

from evaluators.dense_data import DenseSplit
from evaluators.dense_views import CentreViews, Frame, PaddedPreprocessing, Slide, Views
from evaluators.encoders import Encoder
from evaluators.features import extract_cached

BATCH_SIZE = 16
# index of an image -> (V, C, h, w) features of its views
ImageFeatures = Callable[[int], torch.Tensor]


@dataclass(frozen=True)
class LayersEncoder(Encoder):
    """An encoder whose patch features are those of several layers, one after the other: C is the sum of theirs.

    Attributes:
        layers: counted from 0; one channel block each.
        class_token: DINOv2's habit: the class token (after the final norm) is put beside every patch token.
    """

    layers: tuple[int, ...] = (-1,)
    class_token: bool = False

    @torch.inference_mode()
    def patch_features(self, pixel_values: torch.Tensor) -> torch.Tensor:
        """Return (B, C, H / patch, W / patch) of all layers."""
        maps = self.layer_features(pixel_values, self.layers)
        if self.class_token:
            token = self.image_features(pixel_values)[:, :, None, None]  # (B, C, 1, 1)
            maps = [*maps, token.expand_as(maps[-1])]
        return torch.cat(maps, dim=1)


def with_layers(encoder: Encoder, layers: Sequence[int], class_token: bool = False) -> Encoder:
    """Return the encoder as one that gives several layers; the last layer alone is the encoder itself."""
    if tuple(layers) == (-1,) and not class_token:
        return encoder
    fields = {field.name: getattr(encoder, field.name) for field in dataclasses.fields(encoder)}
    fields["hidden_size"] *= len(layers) + class_token
    fields["weights_hash"] += f" layers {tuple(layers)}{' class token' if class_token else ''}"
    return LayersEncoder(**fields, layers=tuple(layers), class_token=class_token)


def in_frame(encoder: Encoder, frame: Frame) -> Encoder:
    """Return the encoder with a preprocessing that pads to the frame, where it has padding."""
    if frame.size == frame.padded:
        return encoder
    preprocessing = encoder.preprocessing
    padded = PaddedPreprocessing(preprocessing.mean, preprocessing.std, preprocessing.resample, frame)
    return dataclasses.replace(encoder, preprocessing=padded)


def training_features(
    encoder: Encoder, split: DenseSplit, frame: Frame, keep_aspect: bool, cache_dir: Path
) -> torch.Tensor:
    """Return (N, C, h, w) of every image once, squashed or cut to the frame, memory-mapped."""
    images: Sequence[Image.Image] = split
    fingerprint = split.fingerprint
    if keep_aspect:
        images, fingerprint = CentreViews(split, frame.size, encoder.preprocessing.resample), f"{fingerprint} centre"
    return extract_cached(in_frame(encoder, frame), images, fingerprint, frame.padded, cache_dir, BATCH_SIZE)


def test_features(
    encoder: Encoder, split: DenseSplit, slide: Slide, frame: Frame, cache_dir: Path | None
) -> ImageFeatures:
    """Return what gives the features of an image's views, cached in `cache_dir` or, without one, computed anew."""
    framed, resample = in_frame(encoder, frame), encoder.preprocessing.resample
    if cache_dir is None:

        def compute(index: int) -> torch.Tensor:
            views = list(slide.views(split[index], resample))
            batches = [
                torch.stack([framed.preprocessing(view, frame.padded) for view in views[start : start + BATCH_SIZE]])
                for start in range(0, len(views), BATCH_SIZE)
            ]
            return torch.cat([framed.patch_features(batch) for batch in batches])

        return compute
    if slide == Slide(slide.window, slide.stride):  # each image once and whole: no views
        features = extract_cached(framed, split, split.fingerprint, frame.padded, cache_dir, BATCH_SIZE)
        return lambda index: features[index : index + 1]
    views = Views(split, slide, resample)
    features = extract_cached(framed, views, f"{split.fingerprint} {slide}", frame.padded, cache_dir, BATCH_SIZE)
    return lambda index: features[views.starts[index] : views.starts[index + 1]]
