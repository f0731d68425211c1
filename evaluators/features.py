"""Patch features of frozen encoders: extracted once per (encoder, data, resolution, preprocessing), kept on disk."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from tqdm import tqdm

from evaluators.array_cache import shared_array
from evaluators.encoders import Encoder, load_encoder

__all__ = ["Encoder", "extract", "extract_cached", "load_encoder"]


def extract(
    encoder: Encoder,
    images: Sequence[Image.Image],
    resolution: tuple[int, int],
    batch_size: int = 16,
    file: Path | None = None,
) -> torch.Tensor:
    """Run the encoder over all images and return its patch feature maps.

    Under `accelerate launch` each process computes its share and writes it into `file`.

    Args:
        encoder: from `load_encoder`.
        images: any sequence of PIL images; each is resized to `resolution`, so sizes may differ.
        resolution: (height, width) in pixels, multiples of the patch size.
        batch_size: images per forward pass.
        file: where the maps are kept, as .npy; without it they stay in memory.

    Returns:
        (N, C, h, w), float32 for a float32 encoder, else float16.

    Raises:
        ValueError: if `resolution` does not suit the encoder or a feature is not finite.
    """
    if tuple(resolution) != encoder.fit_resolution(resolution):
        raise ValueError(
            f"resolution {resolution} is no multiple of the patch size {encoder.patch_size_px} of {encoder.name!r}: "
            f"pass {encoder.fit_resolution(resolution)}"
        )
    if not encoder.any_size and tuple(resolution) != encoder.input_size_px:
        raise ValueError(
            f"encoder {encoder.name!r} takes images of one size only, not {resolution}: pass {encoder.input_size_px}"
        )
    rows, columns = (side // encoder.patch_size_px for side in resolution)
    shape = (len(images), encoder.hidden_size, rows, columns)
    dtype = np.float32 if encoder.dtype == torch.float32 else np.float16  # bfloat16 fits float16 but for its range
    state = PartialState()
    if file is None:
        maps, starts = np.empty(shape, dtype), range(0, len(images), batch_size)
    else:
        if state.is_main_process:
            np.lib.format.open_memmap(file, "w+", dtype, shape)
        state.wait_for_everyone()
        maps = np.lib.format.open_memmap(file, "r+")
        starts = range(state.process_index * batch_size, len(images), state.num_processes * batch_size)
    for start in tqdm(starts, desc=f"features of {encoder.name}", unit="batch", disable=not state.is_main_process):
        batch = [images[index] for index in range(start, min(start + batch_size, len(images)))]
        pixel_values = torch.stack([encoder.preprocessing(image, resolution) for image in batch])
        features = encoder.patch_features(pixel_values).float().cpu().numpy().astype(dtype)
        if not np.isfinite(features).all():
            raise ValueError(f"encoder {encoder.name!r} gives features that are not finite: load it in float32")
        maps[start : start + len(batch)] = features
    if isinstance(maps, np.memmap):
        maps.flush()
    return torch.from_numpy(maps)


def extract_cached(
    encoder: Encoder,
    images: Sequence[Image.Image],
    fingerprint: str,
    resolution: tuple[int, int],
    cache_dir: Path,
    batch_size: int = 16,
) -> torch.Tensor:
    """Return `extract(...)`, read from `cache_dir` where the same encoder has seen the same data before.

    `fingerprint` stands for the content of `images`. The map is memory-mapped: only what is used is read.
    """
    key = f"{encoder.weights_hash} {encoder.dtype} {fingerprint} {tuple(resolution)} {encoder.preprocessing}"
    return shared_array(cache_dir, key, lambda file: extract(encoder, images, resolution, batch_size, file))
