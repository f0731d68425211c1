"""Patch features of frozen encoders: extracted once per (encoder, data, resolution, preprocessing), kept on disk."""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from tqdm import tqdm

from evaluators.array_cache import row_writer, shared_array
from evaluators.encoders import Encoder, load_encoder
from evaluators.image_features import prepared_batches

__all__ = ["Encoder", "extract", "extract_cached", "load_encoder"]

Item = TypeVar("Item")


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
    # bfloat16 fits float16 but for its range
    dtype = torch.float32 if encoder.dtype == torch.float32 else torch.float16
    state = PartialState()
    first, step = (0, 1) if file is None else (state.process_index, state.num_processes)
    starts = range(first * batch_size, len(images), step * batch_size)
    batches = [range(start, min(start + batch_size, len(images))) for start in starts]
    found = _feature_maps(encoder, images, resolution, batches, dtype)
    if file is None:
        maps = torch.empty(shape, dtype=dtype)
        for start, features in found:
            maps[start : start + len(features)] = features
        return maps
    with row_writer(file, shape, "float32" if dtype == torch.float32 else "float16") as write:
        for start, features in found:
            write(start, features)
    return torch.from_numpy(np.load(file, mmap_mode="c"))


def _feature_maps(
    encoder: Encoder,
    images: Sequence[Image.Image],
    resolution: tuple[int, int],
    batches: list[range],
    dtype: torch.dtype,
) -> Iterator[tuple[int, torch.Tensor]]:
    """Yield the first index and the (B, C, h, w) of each batch, while the next images are read and resized."""
    prepared = prepared_batches(
        lambda index: encoder.preprocessing(images[index], resolution), batches, encoder.device
    )
    if encoder.device.type == "cpu":
        prepared = _ahead(prepared)
    quiet = not PartialState().is_main_process
    told = tqdm(prepared, desc=f"features of {encoder.name}", total=len(batches), unit="batch", disable=quiet)
    for [(_, pixel_values)], batch in zip(told, batches):
        features = encoder.patch_features(pixel_values).to(dtype)
        if not features.isfinite().all():
            raise ValueError(f"encoder {encoder.name!r} gives features that are not finite: load it in float32")
        yield batch.start, features.cpu()


def _ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items; a thread makes the next one meanwhile."""
    with ThreadPoolExecutor(1) as thread:
        waiting = iter(items)
        coming = thread.submit(next, waiting, None)
        while (item := coming.result()) is not None:
            coming = thread.submit(next, waiting, None)
            yield item


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
