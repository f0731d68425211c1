"""One vector per picture: of an encoder, of a random one, or a colour histogram; computed once and kept on disk."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from evaluators.array_cache import row_writer, shared_array
from evaluators.data_sets.image_folder import Pictures
from evaluators.encoders import Encoder
from evaluators.framing import Framing
from evaluators.random_encoder import randomised

BATCH_SIZE = 32
MAX_WORKERS = 16
HISTOGRAM_BINS = 8  # per colour channel
MEAN_ONLY = "mean patch token (there is no class token)"
Group = tuple[list[int], torch.Tensor]  # places in a batch, what was prepared for them, stacked


class Describer(Protocol):
    """Makes vectors of pictures."""

    @property
    def key(self) -> str:
        """Stands for what it computes."""

    @property
    def device(self) -> torch.device:
        """Where it computes."""

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """What one picture needs beforehand, in a worker process."""

    def describe(self, batch: torch.Tensor) -> torch.Tensor:
        """Return (B, D) float32 of B prepared pictures of one size."""


@dataclass(frozen=True)
class EncoderDescriber:
    """Class token and mean patch token after the final norm, side by side; the mean alone where there is no class.

    Attributes:
        encoder: frozen.
        framing: how a picture becomes the encoder's input.
        random: see through the architecture without training instead, which is made only when it is needed. One
            serves base and boosted, which have the architecture of the base in common.
    """

    encoder: Encoder
    framing: Framing
    random: bool = False

    @property
    def key(self) -> str:
        """Stands for weights, precision, framing and normalisation."""
        weights = self.encoder.weights_hash
        if self.random:
            told = self.encoder.describe()
            architecture = (told[key] for key in ("model_type", "num_hidden_layers", "patch_size_px", "hidden_size"))
            weights = f"random {' '.join(map(str, architecture))}"
        return f"{weights} {self.encoder.dtype} {self.framing} {self.encoder.preprocessing}"

    @property
    def device(self) -> torch.device:
        """Where the encoder is."""
        return self.encoder.device

    @cached_property
    def _looked_through(self) -> Encoder:
        return randomised(self.encoder) if self.random else self.encoder

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """Return float32 (3, H, W)."""
        framed = self.framing(picture)
        return self.encoder.preprocessing(framed, (framed.height, framed.width))

    def describe(self, batch: torch.Tensor) -> torch.Tensor:
        """Return (B, 2 C) of (B, 3, H, W), or (B, C) without a class token."""
        return self._looked_through.pooled_features(batch).flatten(1).float()


@dataclass(frozen=True)
class HistogramDescriber:
    """The control that sees colours only: square roots of a joint RGB histogram, compared as Bhattacharyya did.

    Scaled to a mean square of 1, as an encoder's normalised tokens have it, for which linear heads' rates are meant.
    """

    @property
    def key(self) -> str:
        """Stands for the bins."""
        return f"colour histogram {HISTOGRAM_BINS}"

    @property
    def device(self) -> torch.device:
        """The CPU."""
        return torch.device("cpu")

    def prepare(self, picture: Image.Image) -> torch.Tensor:
        """Return (bins^3,)."""
        colours = np.asarray(picture.convert("RGB").reduce(max(1, min(picture.size) // 64)))
        bins = (colours.reshape(-1, 3).astype(np.int64) * HISTOGRAM_BINS) // 256
        counts = np.bincount(bins @ np.array([HISTOGRAM_BINS**2, HISTOGRAM_BINS, 1]), minlength=HISTOGRAM_BINS**3)
        return torch.from_numpy(np.sqrt(counts / counts.mean())).float()

    def describe(self, batch: torch.Tensor) -> torch.Tensor:
        """Return (B, bins^3)."""
        return batch


def control_describers(encoder: Encoder, framing: Framing) -> dict[str, Describer]:
    """What frames the scores: the architecture without training, and colours alone."""
    return {
        "random_encoder": EncoderDescriber(encoder, framing, random=True),
        "colour_histogram": HistogramDescriber(),
    }


def picture_vectors(describer: Describer, pictures: Pictures, cache_dir: Path) -> torch.Tensor:
    """Return (N, D), memory-mapped; made where `cache_dir` has none of this describer for these pictures.

    Under `accelerate launch` each process makes its share.

    Raises:
        ValueError: if a picture cannot be read or a feature is not finite.
    """
    return shared_array(
        cache_dir,
        f"picture vectors {describer.key} {pictures.fingerprint}",
        lambda file: _make(describer, pictures, file),
    )


def _make(describer: Describer, pictures: Pictures, file: Path) -> None:
    """Write (N, D) float32, or float16 for an encoder of less than 32 bits."""
    state = PartialState()
    half = isinstance(describer, EncoderDescriber) and describer.encoder.dtype != torch.float32
    width = describer.describe(describer.prepare(pictures[0])[None]).shape[1]
    dtype = np.dtype(np.float16 if half else np.float32)
    starts = range(state.process_index * BATCH_SIZE, len(pictures), state.num_processes * BATCH_SIZE)
    batches = [range(start, min(start + BATCH_SIZE, len(pictures))) for start in starts]
    prepared = prepared_batches(lambda index: describer.prepare(pictures[index]), batches, describer.device)
    told = tqdm(prepared, desc="features", total=len(batches), unit="batch", disable=not state.is_main_process)
    with row_writer(file, (len(pictures), width), dtype) as write:
        for groups, indices in zip(told, batches):
            described = np.empty((len(indices), width), dtype)
            for members, batch in groups:
                described[members] = describer.describe(batch).cpu().numpy()
            if not np.isfinite(described).all():
                raise ValueError("the encoder gives features that are not finite: load it in float32")
            write(indices.start, described)


def prepared_batches(
    prepare: Callable[[int], torch.Tensor], batches: Sequence[Sequence[int]], device: torch.device
) -> Iterator[list[Group]]:
    """Yield what `prepare` makes of each batch, in groups of one size; beside a GPU, worker processes work ahead."""
    processes = PartialState().num_processes
    workers = 0 if device.type == "cpu" else min(MAX_WORKERS, (os.cpu_count() or 1) // processes)
    loader = DataLoader(
        _Prepared(prepare),
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_group,
        multiprocessing_context="fork" if workers else None,  # what prepares need not be picklable
        pin_memory=device.type == "cuda",  # copies to the GPU then run beside its work
        generator=torch.Generator(),  # the global one stays as it is, whether anything is in the cache or not
    )
    return iter(loader)


def _group(prepared: list[torch.Tensor]) -> list[Group]:
    """Stack what has one size; few tensors leave a worker, each of which costs it an open file."""
    members: dict[torch.Size, list[int]] = {}
    for index, tensor in enumerate(prepared):
        members.setdefault(tensor.shape, []).append(index)
    return [(indices, torch.stack([prepared[index] for index in indices])) for indices in members.values()]


class _Prepared(Dataset):
    """Any index is an item."""

    def __init__(self, prepare: Callable[[int], torch.Tensor]) -> None:
        self.prepare = prepare

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.prepare(index)
