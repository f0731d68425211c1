"""The course that every probe of a dense task takes: features, one head per seed, per-image items, controls."""

import importlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image
from torch import nn
from tqdm import tqdm

from evaluators.contract import Result, TaskConfig
from evaluators.dense_augmentation import AugmentedItems, DepthAugmentation, SegmentationAugmentation, fit_augmented
from evaluators.dense_data import DenseData, load_dense
from evaluators.dense_features import test_features, training_features, with_layers
from evaluators.dense_protocols import CPU_LIMIT
from evaluators.dense_views import Frame, Slide, make_frame
from evaluators.encoders import Encoder
from evaluators.heads import FitConfig, Loss, fit_head

NOTE = "The head's last step is measured on split test; nothing is selected on either split."
CACHED_NOTE = {
    False: "Trained on cached features without augmentation, images resized to the input without keeping their aspect "
    "ratio.",
    True: "Trained on cached features without augmentation, each image cut around its centre to the input.",
}
AUGMENTED_NOTE = (
    "Trained with the published augmentations, the encoder in the loop; the heads of all seeds see the same batches."
)
CONTROL_SIDE_PX = 64  # controls are made of training maps no larger than this
Map = np.ndarray
# (height, width) -> a map of that size
MapOfSize = Callable[[tuple[int, int]], Map]


@dataclass(frozen=True, kw_only=True)
class DenseProbeConfig(TaskConfig):
    """A probe of a dense task.

    Attributes:
        fit: the optimisation of the head; None = the preset's.
        augment: train with the published augmentations, the encoder in the loop; else on cached features, which is
            much faster. None: as published in preset "full", cached in preset "cpu" and on built rooms.
        num_workers: processes that read and augment images.
    """

    fit: FitConfig | None = None
    augment: bool | None = None
    num_workers: int = 4

    def _fill(self, can_augment: bool, **settings: Any) -> None:
        """Set what is None (or 0, or "") to the protocol's; called once the configuration is made."""
        if self.augment and not can_augment:
            raise ValueError(f"augment: there is no published augmentation for {self.data_set}, pass false")
        settings["augment"] = can_augment and self.preset == "full"
        if self.preset == "cpu" and can_augment and self.limit is None:  # thousands of large images
            object.__setattr__(self, "limit", CPU_LIMIT)
        for name, value in settings.items():
            if getattr(self, name) in (None, "", 0.0) and getattr(self, name) is not False:
                object.__setattr__(self, name, value)


@dataclass(frozen=True)
class Recipe:
    """What a task's protocol says of features and views.

    Attributes:
        slide: how test images are shown.
        frame: of a window of `slide`.
        training_frame: of an augmented training image.
        augmentation: None for cached training.
        layers: of the encoder, None: the last one.
        class_token: DINOv2's habit, see `LayersEncoder`.
        cache_test: whether the features of all test views are kept on disk.
        loss_stride: cached training compares maps that are so many times smaller than the input.
    """

    slide: Slide
    frame: Frame
    training_frame: Frame
    augmentation: DepthAugmentation | SegmentationAugmentation | None
    layers: tuple[int, ...] = (-1,)
    class_token: bool = False
    cache_test: bool = True
    loss_stride: int = 1


class DenseTask(Protocol):
    """What a dense task adds to the common course."""

    protocol: str
    notes: tuple[str, ...]
    settings: dict[str, Any]
    column: str
    loss: Loss
    softmax: bool  # whether views are averaged as probabilities

    def make_head(self, channels: int) -> nn.Module:
        """Return a new head for (B, channels, h, w) features."""

    def to_map(self, output: torch.Tensor) -> Map:
        """Turn the merged output for one image, (1, ..., H, W), into the (H, W) map that is scored."""

    def controls(self, targets: torch.Tensor) -> dict[str, MapOfSize]:
        """Return predictors that see no image, made of the (N, H, W) training targets."""

    def item(self, prediction: Map, truth: Map) -> np.ndarray:
        """Return the (D,) item of one image, of which `aggregate` makes the scores."""

    def check_items(self, items: np.ndarray) -> None:
        """Raise ValueError if no (num_images, D) item says anything."""

    def aggregate(self, items: np.ndarray) -> dict[str, float]:
        """Return a value per metric."""


def loss_stride(config: TaskConfig) -> int:
    """4 in preset "cpu" on published data sets, whose 150 classes at full size take too long on two cores."""
    return 4 if config.preset == "cpu" and config.data_set != "rooms" else 1


def load_data(config: TaskConfig) -> DenseData:
    """Read the data set of a configuration.

    Raises:
        ValueError: it is not there or not as it should be.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    if config.data_set == "rooms":
        return load_dense(config.data, config.limit)
    return importlib.import_module(f"evaluators.data_sets.{config.data_set}").load(config.data, config.limit)


def check(config: DenseProbeConfig) -> None:
    """Raise ValueError for missing files, before anything is measured."""
    if config.data_set != "rooms":
        load_data(config)


def frames_of(
    encoder: Encoder, config: DenseProbeConfig, training_size: tuple[int, int], stretch: bool = False
) -> tuple[Frame, Frame]:
    """Return the frames of test and training images; built rooms are not padded but rounded to whole patches."""
    pad, resolution = config.data_set != "rooms", config.resolution or encoder.input_size_px
    return make_frame(encoder, resolution, pad, stretch), make_frame(encoder, training_size, pad, stretch)


def run_probe(
    encoder: Encoder, config: DenseProbeConfig, fit: FitConfig, data: DenseData, task: DenseTask, recipe: Recipe
) -> Result:
    """Train one head per seed on the train split and measure its last step on the test split."""
    seen = with_layers(encoder, recipe.layers, recipe.class_token)
    height, width = (min(side, CONTROL_SIDE_PX) for side in recipe.frame.size)
    keep_aspect = recipe.slide.keep_aspect
    controls = task.controls(data.train.training_targets(task.column, (height, width), config.cache_dir, keep_aspect))
    heads = _train(seen, config, fit, data, task, recipe)
    features = test_features(
        seen, data.test, recipe.slide, recipe.frame, config.cache_dir if recipe.cache_test else None
    )
    shown = np.unique(np.linspace(0, len(data.test) - 1, config.num_examples).round().astype(int))
    state, rows = PartialState(), []
    mine = range(state.process_index, len(data.test), state.num_processes)
    for index in tqdm(mine, desc=f"{task.column} scores", unit="image", disable=not state.is_main_process):
        truth = data.test.dense_map(task.column, index)
        maps = [_predict(task, head, features(index), recipe, truth.shape, encoder.device) for head in heads]
        blind = [control(truth.shape) for control in controls.values()]
        scores = [task.item(prediction, truth) for prediction in (*maps, *blind)]
        example = {"truth": truth, "prediction": maps[0]} if index in shown else None
        rows.append((index, np.stack(scores), example))
    rows = sorted(gather_object(rows), key=lambda row: row[0])
    items = list(np.stack([scores for _, scores, _ in rows], axis=1))  # per head and control (num_images, D)
    task.check_items(items[0])
    return {
        "protocol": {
            "id": task.protocol,
            "notes": [*task.notes, AUGMENTED_NOTE if config.augment else CACHED_NOTE[recipe.slide.keep_aspect], NOTE],
            "settings": {
                **asdict(fit),
                **task.settings,
                "augment": config.augment,
                "loss_stride": recipe.loss_stride,
            },
            "differs": _why_not_comparable(config, data),
        },
        "data": data.describe(),
        "encoder": {**encoder.describe(), "resolution_px": list(recipe.frame.padded)},
        "seeds": list(config.seeds),
        "items": items[: len(heads)],
        "controls": {name: task.aggregate(values) for name, values in zip(controls, items[len(heads) :], strict=True)},
        "examples": [
            {**_seen(encoder, data.test[index], recipe.frame.padded), **example}
            for index, _, example in rows
            if example
        ],
    }


def _train(
    encoder: Encoder,
    config: DenseProbeConfig,
    fit: FitConfig,
    data: DenseData,
    task: DenseTask,
    recipe: Recipe,
) -> list[nn.Module]:
    """Return one trained head per seed."""
    make_head = partial(task.make_head, encoder.hidden_size)
    if config.augment and recipe.augmentation:
        frame = recipe.training_frame
        transform = recipe.augmentation.transform(frame.size)

        def items(order: Any) -> AugmentedItems:
            return AugmentedItems(data.train, task.column, transform, encoder, frame, order, config.seeds[0])

        return fit_augmented(make_head, items, encoder, task.loss, fit, config.seeds, config.num_workers)
    keep_aspect = recipe.slide.keep_aspect
    features = training_features(encoder, data.train, recipe.frame, keep_aspect, config.cache_dir)
    height, width = (max(1, side // recipe.loss_stride) for side in recipe.frame.size)
    targets = data.train.training_targets(task.column, (height, width), config.cache_dir, keep_aspect)
    return [
        fit_head(make_head, features, targets, task.loss, fit, seed, encoder.device, recipe.frame.resize)
        for seed in config.seeds
    ]


def _seen(encoder: Encoder, image: Image.Image, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """Return an example's image, (H, W, 3), and what the encoder makes of all of it, (C, h, w)."""
    features = encoder.patch_features(encoder.preprocessing(image, size)[None])[0]
    return {"image": np.asarray(image), "features": features.half().cpu().numpy()}


@torch.inference_mode()
def _predict(
    task: DenseTask, head: nn.Module, features: torch.Tensor, recipe: Recipe, size: tuple[int, int], device: Any
) -> Map:
    """Return the (H, W) map of one test image from the (V, C, h, w) features of its views."""
    outputs = torch.cat([head(part.to(device).float()) for part in features.split(16)])
    return task.to_map(recipe.slide.merge(outputs, recipe.frame, size, task.softmax))


def _why_not_comparable(config: DenseProbeConfig, data: DenseData) -> str:
    """Why the numbers cannot be put beside the paper's, "" if they can."""
    if config.data_set == "rooms":
        return "the data set is not one of the paper's"
    reasons = [
        (config.preset != "full", f"preset {config.preset}"),
        (bool(data.warnings), "the splits are not the published ones"),
        (not config.augment, "trained without augmentation"),
    ]
    return ", ".join(reason for applies, reason in reasons if applies)
