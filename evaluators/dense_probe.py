"""The course that every linear probe of a dense task takes: features, one head per seed, per-image items, controls."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Protocol

import numpy as np
import torch
from torch import nn
from tqdm import tqdm

from evaluators.contract import Result, TaskConfig
from evaluators.dense_data import DenseData, DenseSplit, load_dense
from evaluators.encoders import Encoder
from evaluators.features import extract_cached
from evaluators.heads import FitConfig, Loss, fit_head
from modeling_spatialboost.dense_heads import upsample

NOTES = (
    "The head is trained on split train and its last step measured on split test; nothing is selected on either.",
    "Images are resized to the input resolution without keeping their aspect ratio.",
)
# (height, width) -> a map of that size
MapOfSize = Callable[[tuple[int, int]], np.ndarray]
# (index of the test image, (height, width)) -> a map of that size
Predictor = Callable[[int, tuple[int, int]], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class DenseProbeConfig(TaskConfig):
    """A linear probe of a dense task; `fit` is the optimisation of the head, None = the preset's."""

    fit: FitConfig | None = None


class DenseTask(Protocol):
    """What a dense task adds to the common course."""

    protocol: str
    notes: tuple[str, ...]
    column: str
    loss: Loss

    def make_head(self, channels: int) -> nn.Module:
        """Return a new head for (B, channels, h, w) features."""

    def to_map(self, output: torch.Tensor) -> np.ndarray:
        """Turn the upsampled output for one image, (1, ..., H, W), into the (H, W) map that is scored."""

    def controls(self, targets: torch.Tensor) -> dict[str, MapOfSize]:
        """Return predictors that see no image, made of the (N, H, W) training targets."""

    def measure(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
        """Return (num_images, D) items for (prediction, truth) maps, of which `aggregate` makes the scores."""

    def aggregate(self, items: np.ndarray) -> dict[str, float]:
        """Return a value per metric."""


def run_probe(
    encoder: Encoder, config: DenseProbeConfig, fit: FitConfig, make_task: Callable[[DenseData], DenseTask]
) -> Result:
    """Train one head per seed on the train split and measure its last step on the test split."""
    assert config.data is not None  # the catalogue says that the data set has a place
    data = load_dense(config.data, config.limit)
    task = make_task(data)
    resolution = encoder.fit_resolution(config.resolution or encoder.input_size_px)
    train, test = (
        extract_cached(encoder, split, split.fingerprint, resolution, config.cache_dir)
        for split in (data.train, data.test)
    )
    targets = data.train.training_targets(task.column, resolution, config.cache_dir)
    controls = {
        name: task.aggregate(task.measure(_pairs(data.test, task.column, partial(_blind, control))))
        for name, control in task.controls(targets).items()
    }
    items: list[np.ndarray] = []
    examples: list[dict[str, np.ndarray]] = []
    for seed in config.seeds:
        head = fit_head(
            partial(task.make_head, encoder.hidden_size), train, targets, task.loss, fit, seed, encoder.device
        )
        predict = partial(_predict, task, head, test, encoder.device)
        items.append(task.measure(_pairs(data.test, task.column, predict)))
        examples = examples or _examples(data.test, task.column, predict, config.num_examples)
    return {
        "protocol": {
            "id": task.protocol,
            "notes": [*task.notes, *NOTES],
            "settings": asdict(fit),
            "differs": "the data set is not one of the paper's",
        },
        "data": data.describe(),
        "encoder": {**encoder.describe(), "resolution_px": list(resolution)},
        "seeds": list(config.seeds),
        "items": items,
        "controls": controls,
        "examples": examples,
    }


@torch.inference_mode()
def _predict(
    task: DenseTask,
    head: nn.Module,
    features: torch.Tensor,
    device: torch.device,
    index: int,
    size: tuple[int, int],
) -> np.ndarray:
    """Return the (H, W) map of one test image."""
    return task.to_map(upsample(head(features[index : index + 1].to(device).float()), size))


def _blind(control: MapOfSize, _index: int, size: tuple[int, int]) -> np.ndarray:
    """Return a control's map, which is the same for every image."""
    return control(size)


def _pairs(split: DenseSplit, column: str, predict: Predictor) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield (prediction, truth) of every image, at the truth's own size."""
    for index in tqdm(range(len(split)), desc=f"{column} scores", unit="image"):
        truth = split.dense_map(column, index)
        yield predict(index, truth.shape), truth


def _examples(split: DenseSplit, column: str, predict: Predictor, count: int) -> list[dict[str, np.ndarray]]:
    """Return image, truth and prediction of `count` images spread over the split."""
    indices = np.unique(np.linspace(0, len(split) - 1, count).round().astype(int))
    truths = {int(index): split.dense_map(column, int(index)) for index in indices}
    return [
        {"image": np.asarray(split[index]), "truth": truth, "prediction": predict(index, truth.shape)}
        for index, truth in truths.items()
    ]
