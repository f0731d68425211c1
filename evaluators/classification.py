"""What both classification tasks share: the data, whole-image features, the part held out, controls, the picture."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluators.array_cache import cached_value
from evaluators.contract import Result, TaskConfig
from evaluators.data_sets.image_folder import LabelledData, LabelledPictures, load_image_folder
from evaluators.data_sets.imagenet import load_imagenet
from evaluators.encoders import Encoder
from evaluators.framing import Framing
from evaluators.hit_pictures import save_labels
from evaluators.image_features import Describer, EncoderDescriber, control_describers, picture_vectors
from evaluators.metrics import Metric

METRICS = (Metric("top1", "top-1 (%)", higher_is_better=True),)
CONTROL_ITEMS = (5_000, 2_000)  # of train and test: the cheap form of what only frames the scores
FRAMING_NOTE = "Pictures: short side bicubic to 256/224 of the input, centre crop. Features after the final norm: "
CONTROL_NOTE = (
    "Controls: `constant` is the most frequent class; `random encoder` (the architecture without training) and "
    f"`colour histogram` are measured the same way on at most {CONTROL_ITEMS[0]:,} training and "
    f"{CONTROL_ITEMS[1]:,} test pictures."
)
# (training vectors, training labels, test vectors, seed) -> predicted classes of the test
Predictor = Callable[[torch.Tensor, np.ndarray, torch.Tensor, int], np.ndarray]


def check(config: TaskConfig) -> None:
    """Look at local data before anything is measured; what is on the Hub is fetched when its turn comes.

    Raises:
        ValueError: if the data is not as its loader wants it.
    """
    if config.data_set != "imagenet" or Path(str(config.data)).is_dir():
        _load(config)


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Return the accuracy in per cent of (num_images, 1) right (1) or wrong (0)."""
    return {"top1": float(100 * items.mean())}


@dataclass(frozen=True)
class Course:
    """Data and framing of one encoder's measurement.

    Attributes:
        encoder: frozen.
        config: of the task.
        data: cut to `config.limit`.
        framing: of the pictures.
    """

    encoder: Encoder
    config: TaskConfig
    data: LabelledData
    framing: Framing

    @classmethod
    def start(cls, encoder: Encoder, config: TaskConfig) -> "Course":
        """Load the data and settle the resolution."""
        wanted = config.resolution if config.resolution and encoder.any_size else encoder.input_size_px
        framing = Framing("crop", encoder.fit_resolution(wanted), encoder.patch_size_px)
        return cls(encoder, config, _load(config), framing)

    @property
    def describer(self) -> EncoderDescriber:
        """Of this encoder."""
        return EncoderDescriber(self.encoder, self.framing)

    def vectors(self, part: LabelledPictures, describer: Describer | None = None) -> torch.Tensor:
        """Return (N, D) features of a split."""
        return picture_vectors(describer or self.describer, part.pictures, self.config.cache_dir)

    def controls(self, predict: Predictor) -> dict[str, dict[str, float]]:
        """Return the scores of the controls; `predict` trains and applies the classifier of the task."""
        train, test = (_cut(part, count) for part, count in zip((self.data.train, self.data.test), CONTROL_ITEMS))
        commonest = np.bincount(self.data.train.labels).argmax()
        scores = {"constant": aggregate((self.data.test.labels == commonest)[:, None].astype(float))}
        for name, describer in control_describers(self.encoder, self.framing).items():
            splits = " ".join(part.describe()["fingerprint"] for part in (train, test))
            compute = partial(self._predictions, train, test, describer, predict)
            predicted = cached_value(self.config.cache_dir, f"control {describer.key} {splits} {self.config}", compute)
            scores[name] = aggregate((predicted.numpy() == test.labels)[:, None].astype(float))
        return scores

    def _predictions(
        self, train: LabelledPictures, test: LabelledPictures, describer: Describer, predict: Predictor
    ) -> np.ndarray:
        """Train and apply the classifier on a control's features; base and boosted share the result."""
        known, asked = (self.vectors(part, describer) for part in (train, test))
        return predict(known, train.labels, asked, self.config.seeds[0])

    def result(
        self,
        protocol: dict[str, Any],
        predictions: list[np.ndarray],
        controls: dict[str, dict[str, float]],
        feature: str,
        notes: list[str],
    ) -> Result:
        """Put together what `evaluate` returns.

        Args:
            protocol: `id`, `notes`, `settings` and perhaps `differs`.
            predictions: per seed (num_test,) class ids.
            controls: see `controls`.
            feature: what the classifier sees of this encoder.
            notes: what the report says of this encoder.
        """
        truth = self.data.test.labels
        return {
            "protocol": {
                "id": protocol["id"],
                "notes": [*protocol["notes"], CONTROL_NOTE, self.data.note],
                "settings": protocol["settings"],
                "differs": "; ".join(filter(None, (self.data.differs, protocol.get("differs", "")))),
            },
            "data": self.data.describe(),
            "encoder": {
                **self.encoder.describe(),
                "resolution_px": list(self.framing.resolution),
                "feature": feature,
                "notes": notes,
            },
            "seeds": list(self.config.seeds[: len(predictions)]),
            "items": [(predicted == truth)[:, None].astype(float) for predicted in predictions],
            "controls": controls,
            "examples": [self._example(index, predictions[0]) for index in self._shown()],
        }

    def _shown(self) -> list[int]:
        """Indices of test pictures, spread over the split."""
        count = len(self.data.test.labels)
        return np.unique(np.linspace(0, count - 1, 2 * self.config.num_examples).round().astype(int)).tolist()

    def _example(self, index: int, predicted: np.ndarray) -> dict[str, np.ndarray]:
        picture = self.data.test.pictures[index]
        picture.thumbnail((224, 224))
        names = self.data.class_names
        return {
            "image": np.asarray(picture),
            "truth": np.array(names[self.data.test.labels[index]]),
            "prediction": np.array(names[predicted[index]]),
        }


def hold_out(labels: np.ndarray, share: float = 0.2, most: int = 10_000) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers in (kept, held out), drawn with seed 0: `share` of them, at most `most`, one at least."""
    order = np.random.default_rng(0).permutation(len(labels))
    count = max(1, min(most, round(share * len(labels))))
    return np.sort(order[count:]), np.sort(order[:count])


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw test pictures with the truth and what each encoder takes them for."""
    save_labels(file, base["examples"], boosted["examples"])


def _load(config: TaskConfig) -> LabelledData:
    assert config.data is not None  # the catalogue says that the data set has a place
    load = load_imagenet if config.data_set == "imagenet" else load_image_folder
    return load(config.data, config.limit)


def _cut(part: LabelledPictures, count: int) -> LabelledPictures:
    """Return at most `count` rows, evenly over the split."""
    rows = np.linspace(0, len(part.labels) - 1, min(count, len(part.labels))).round().astype(np.int64)
    return part.select(np.unique(rows))
