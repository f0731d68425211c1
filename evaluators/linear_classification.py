"""Classification by a linear layer on frozen features: DINOv3's recipe, thirteen learning rates at once."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from accelerate.utils import gather
from torch.nn import functional
from torchvision.transforms import InterpolationMode, v2

from evaluators.classification import FRAMING_NOTE, METRICS, Course, Predictor, aggregate, check, draw, hold_out
from evaluators.contract import Result, TaskConfig
from evaluators.data_sets.image_folder import LabelledPictures
from evaluators.encoders import Encoder
from evaluators.heads import batch_order
from evaluators.image_features import MEAN_ONLY, prepared_batches
from evaluators.joint_heads import JointHeads, LinearFit, fit_joint_heads

__all__ = ["METRICS", "Config", "aggregate", "check", "draw", "evaluate"]

# 10 epochs x 1,250 steps of 128 pictures on each of 8 GPUs: ten times over ImageNet
FIT_PRESETS = {"full": LinearFit(12_500, 1_024), "cpu": LinearFit(500, 128)}


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """A linear probe of whole pictures.

    Attributes:
        augment: train on random crops and flips, with the encoder in the loop; False: on features that are computed
            once; None: the preset's, full True, cpu False.
        steps: of the optimiser, None = the preset's.
        batch_size: over all processes together, None = the preset's.
    """

    augment: bool | None = None
    steps: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        """Check the settings, None aside."""
        if self.augment is not None and not isinstance(self.augment, bool):
            raise ValueError(f"augment={self.augment!r} is no truth value: pass true or false")
        for name in ("steps", "batch_size"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r} is no count: pass 1 or more")

    @property
    def fit(self) -> LinearFit:
        """The optimisation."""
        preset = FIT_PRESETS[self.preset]
        return LinearFit(self.steps or preset.steps, self.batch_size or preset.batch_size)

    @property
    def augments(self) -> bool:
        """Whether training pictures are cropped and flipped."""
        return self.preset == "full" if self.augment is None else self.augment


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Measure top-1 of the learning rate that is best on a held-out part of the training split.

    Raises:
        ValueError: if the data is not as its loader wants it.
    """
    course = Course.start(encoder, config)
    train, test = course.data.train, course.data.test
    kept, held = hold_out(train.labels)
    judge = test if config.upstream_compat else train.select(held)
    fit = config.fit.for_items(len(kept))
    asked = course.vectors(test)
    judged = course.vectors(judge) if config.augments or config.upstream_compat else course.vectors(train)[held]
    predictions, chosen = [], []
    for seed in config.seeds:
        batches = (
            augmented_batches(course, train.select(kept), fit, seed)
            if config.augments
            else cached_batches(course.vectors(train), train.labels, kept, fit, seed)
        )
        heads = fit_joint_heads(batches, asked.shape[1], len(course.data.class_names), fit, seed, encoder.device)
        best = best_head(heads, judged, judge.labels)
        predictions.append(heads.predict(asked)[best].numpy())
        chosen.append(fit.learning_rates[best])
    feature = "class token and mean patch token" if asked.shape[1] > encoder.hidden_size else MEAN_ONLY
    controls = course.controls(_control_predictor(course, fit.steps))
    notes = [f"feature: {feature}", f"learning rate chosen, by seed: {', '.join(f'{rate:g}' for rate in chosen)}"]
    return course.result(_protocol(config, len(held)), predictions, controls, feature, notes)


def cached_batches(
    vectors: torch.Tensor, labels: np.ndarray, rows: np.ndarray, fit: LinearFit, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of some rows of (N, D) features and (N,) labels."""
    for batch in batch_order(len(rows), fit.batch_size, fit.steps, seed):
        chosen = torch.from_numpy(rows)[batch]
        yield vectors[chosen], torch.from_numpy(labels)[chosen]


def augmented_batches(
    course: Course, train: LabelledPictures, fit: LinearFit, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield batches of features of random crops and flips, and their labels.

    A crop depends on the seed and on its place in the training alone: both encoders see the same ones. Each process
    runs its share of a batch through the encoder, then all have all features, so that the heads, which each process
    trains, are those of one process.
    """
    encoder, state, size = course.encoder, PartialState(), course.framing.resolution
    augment = v2.Compose(
        [
            v2.RandomResizedCrop(size, interpolation=InterpolationMode.BICUBIC),
            v2.RandomHorizontalFlip(),
        ]
    )
    batches = list(batch_order(len(train.labels), fit.batch_size, fit.steps, seed))

    def prepare(place: int) -> torch.Tensor:
        step, position = divmod(place, fit.batch_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed * fit.steps * fit.batch_size + place)
            return encoder.preprocessing(augment(train.pictures[int(batches[step][position])]), size)

    starts = range(0, fit.steps * fit.batch_size, fit.batch_size)
    shares = [range(start + state.process_index, start + fit.batch_size, state.num_processes) for start in starts]
    truth = torch.from_numpy(train.labels)
    for rows, [(_, pixels)] in zip(batches, prepared_batches(prepare, shares, encoder.device)):
        features = encoder.pooled_features(pixels).flatten(1).clone()
        yield _of_all_processes(features, fit.batch_size), truth[rows]


def best_head(heads: JointHeads, vectors: torch.Tensor, labels: np.ndarray) -> int:
    """Return the head that is right most often, the smallest learning rate of equals."""
    return int((heads.predict(vectors) == torch.from_numpy(labels)).sum(1).argmax())


def _of_all_processes(share: torch.Tensor, batch_size: int) -> torch.Tensor:
    """Return the (batch_size, D) features of which each process has every n-th row."""
    count = PartialState().num_processes
    rows = -(-batch_size // count)  # of the largest share; the others are filled up
    gathered = gather(functional.pad(share, (0, 0, 0, rows - len(share))))  # (count * rows, D), process by process
    return gathered.unflatten(0, (count, rows)).transpose(0, 1).flatten(0, 1)[:batch_size]


def _control_predictor(course: Course, steps: int) -> Predictor:
    """Return what trains and applies the heads on a control's features."""
    classes, device = len(course.data.class_names), course.encoder.device

    def predict(known: torch.Tensor, labels: np.ndarray, asked: torch.Tensor, seed: int) -> np.ndarray:
        kept, held = hold_out(labels)
        small = FIT_PRESETS["cpu"]
        fit = replace(small, steps=min(small.steps, steps)).for_items(len(kept))
        heads = fit_joint_heads(
            cached_batches(known, labels, kept, fit, seed), known.shape[1], classes, fit, seed, device
        )
        return heads.predict(asked)[best_head(heads, known[held], labels[held])].numpy()

    return predict


def _protocol(config: Config, num_held: int) -> dict[str, Any]:
    """Return id, notes and settings."""
    chosen_on = (
        "UPSTREAM COMPAT: the best of them on the reported split is reported: optimistic."
        if config.upstream_compat
        else f"the best of them on {num_held:,} training pictures that were held out is reported."
    )
    training = (
        "Training pictures: random resized crop (bicubic) and flip, the encoder in the loop."
        if config.augments
        else "Training pictures as test pictures, features computed once: the fast form, without the recipe's crops "
        "and flips."
    )
    return {
        "id": "classification-linear/1"
        + ("" if config.augments else "+cached")
        + ("+best-rate-on-test" if config.upstream_compat else ""),
        "notes": [
            f"One linear layer per learning rate, {len(config.fit.learning_rates)} trained together; {chosen_on}",
            f"SGD, momentum 0.9, no weight decay, cosine; rates are for batches of 256. {training}",
            f"{FRAMING_NOTE}class token and mean patch token side by side, without a class token the latter alone.",
        ],
        "settings": {**asdict(config.fit), "learning_rates": "1e-5 to 0.1"} | {"augment": config.augments},
        "differs": "" if config.augments else "training pictures are neither cropped at random nor flipped",
    }
