"""3D semantic segmentation: a linear layer on features that were fused from many views (Lexicon3D)."""

import dataclasses
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from evaluators.contract import Result
from evaluators.encoders import Encoder, Preprocessing
from evaluators.heads import deterministic_kernels
from evaluators.metrics import IGNORED_CLASS, Metric, class_iou, overlap
from evaluators.scenes.fusion import Job, fused_features, is_seen
from evaluators.scenes.loading import load_scenes
from evaluators.scenes.pictures import save_classes
from evaluators.scenes.scene import Points, Scene, SceneConfig, draw_points, spread

METRICS = (
    Metric("mean_iou", "mIoU (%)", higher_is_better=True),
    Metric("accuracy", "Acc (%)", higher_is_better=True),
    Metric("mean_accuracy", "mAcc (%)", higher_is_better=True),
)
NOTES = (
    "Patch tokens, bicubic to the depth map, go to the points that the view sees (depth test 25 %, border of 10 "
    "pixels of 320 cut) and are averaged over the views; a linear layer, cross-entropy, Adam, one scene a step.",
    "The last step is measured; nothing is selected. Points that no view sees do not count, for either encoder.",
)
COMPAT_NOTE = "Upstream's habits: softmax before the cross-entropy, and CLIP's mean and deviation for DINOv2's images."
HEIGHT_BIN_M = 0.1
CLIP_MEAN, CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
CPU_EPOCHS, CPU_LEARNING_RATE = 60, 1e-2


@dataclass(frozen=True, kw_only=True)
class Config(SceneConfig):
    """The probe; None and 0 = what the preset says (full: 20 epochs at 1e-4, Lexicon3D's run_dino.sh)."""

    epochs: int | None = None
    learning_rate: float = 0.0
    weight_decay: float = 1e-5

    def __post_init__(self) -> None:
        """Fill in what the preset says."""
        super().__post_init__()
        is_small = self.preset == "cpu"
        object.__setattr__(self, "epochs", self.epochs or (CPU_EPOCHS if is_small else 20))
        object.__setattr__(self, "learning_rate", self.learning_rate or (CPU_LEARNING_RATE if is_small else 1e-4))


def check(config: Config) -> None:
    """Raise ValueError for data that lack something."""
    load_scenes(config)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Train one linear layer per seed on the train scenes and measure it on the test scenes.

    Raises:
        ValueError: the data lack something, or the encoder does not suit the resolution.
    """
    data = load_scenes(config)
    if config.upstream_compat and encoder.describe()["model_type"] == "dinov2":
        clip = Preprocessing(CLIP_MEAN, CLIP_STD, encoder.preprocessing.resample)
        encoder = dataclasses.replace(encoder, preprocessing=clip)
    resolution = encoder.fit_resolution(config.resolution or encoder.input_size_px)
    read = partial(_points_of, count=config.max_points or 0)
    train, test = [read(scene) for scene in data.train], [read(scene) for scene in data.test]
    train_features, test_features = (
        fused_features(
            encoder,
            [Job(s, spread(s.num_views, config.max_views), p.xyz_m) for s, p in zip(scenes, points)],
            resolution,
            config.cache_dir,
        )
        for scenes, points in ((data.train, train), (data.test, test))
    )
    train_ids = [_counted(points, features) for points, features in zip(train, train_features)]
    test_ids = [_counted(points, features) for points, features in zip(test, test_features)]
    num_classes = len(data.class_names)
    heads = [_train(encoder, config, num_classes, train_features, train_ids, seed) for seed in config.seeds]
    predictions = [[_predict(head, features, encoder.device) for features in test_features] for head in heads]
    blind = _blind_predictions(train, train_ids, test, num_classes)

    def items(per_scene: list[np.ndarray]) -> np.ndarray:
        return np.stack([overlap(guess, ids, num_classes) for guess, ids in zip(per_scene, test_ids)])

    shown = range(min(config.num_examples, len(test)))
    return {
        "protocol": {
            "id": "scene-segmentation/1",
            "notes": [*NOTES, COMPAT_NOTE] if config.upstream_compat else list(NOTES),
            "settings": {
                name: getattr(config, name)
                for name in ("epochs", "learning_rate", "weight_decay", "max_points", "max_views", "frame_step")
            },
            "differs": _why_not_comparable(config),
        },
        "data": data.describe(),
        "encoder": {**encoder.describe(), "resolution_px": list(resolution)},
        "seeds": list(config.seeds),
        "items": [items(per_scene) for per_scene in predictions],
        "controls": {name: aggregate(items(per_scene)) for name, per_scene in blind.items()},
        "examples": [
            {"xyz_m": test[place].xyz_m, "truth": test_ids[place], "prediction": predictions[0][place]}
            for place in shown
        ],
    }


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Per cent over the data set of (num_scenes, 3K) counts of `overlap`; classes that are nowhere do not count."""
    both, _, true = items.sum(0).reshape(3, -1)
    iou, recall = class_iou(items), np.divide(both, true, out=np.full_like(both, np.nan), where=true > 0)
    return {
        "mean_iou": float(100 * np.nanmean(iou)) if np.isfinite(iou).any() else float("nan"),
        "accuracy": float(100 * both.sum() / true.sum()) if true.any() else float("nan"),
        "mean_accuracy": float(100 * np.nanmean(recall)) if true.any() else float("nan"),
    }


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw the test scenes from above: truth, base, boosted."""
    save_classes(file, base["examples"], boosted["examples"], base["data"]["classes"])


def _points_of(scene: Scene, count: int) -> Points:
    return draw_points(scene.points(), count, scene.id)


def _counted(points: Points, features: torch.Tensor) -> np.ndarray:
    """(N,) class ids, 255 where no view sees the point."""
    return np.where(is_seen(features).numpy(), points.class_ids, IGNORED_CLASS)


def _train(
    encoder: Encoder,
    config: Config,
    num_classes: int,
    features: list[torch.Tensor],
    class_ids: list[np.ndarray],
    seed: int,
) -> nn.Linear:
    """Train a layer under its seed; the caller's random state is left as it was."""
    usable = [index for index, ids in enumerate(class_ids) if (ids != IGNORED_CLASS).any()]
    if not usable:
        raise ValueError(f"data {config.data!r} has no point with a class that a view sees in split train: rebuild it")
    with torch.random.fork_rng(), deterministic_kernels():
        torch.manual_seed(seed)
        head = nn.Linear(encoder.hidden_size, num_classes).to(encoder.device)
        optimizer = torch.optim.Adam(head.parameters(), config.learning_rate, weight_decay=config.weight_decay)
        for _ in tqdm(range(config.epochs or 0), desc=f"linear layer, seed {seed}", unit="epoch"):
            for index in (usable[place] for place in torch.randperm(len(usable))):
                kept = torch.from_numpy(class_ids[index] != IGNORED_CLASS)
                logits = head(features[index][kept].to(encoder.device).float())
                targets = torch.from_numpy(class_ids[index])[kept].to(encoder.device).long()
                logits = logits.softmax(1) if config.upstream_compat else logits
                optimizer.zero_grad()
                functional.cross_entropy(logits, targets).backward()
                optimizer.step()
    return head.eval()


@torch.inference_mode()
def _predict(head: nn.Linear, features: torch.Tensor, device: torch.device) -> np.ndarray:
    """(N,) class ids; those of points that no view sees mean nothing."""
    parts = [head(part.to(device).float()).argmax(1).cpu() for part in features.split(100_000)]
    return torch.cat(parts).numpy()


def _blind_predictions(
    train: list[Points], train_ids: list[np.ndarray], test: list[Points], num_classes: int
) -> dict[str, list[np.ndarray]]:
    """The most frequent class of the train scenes, once overall and once per 10 cm of height."""
    ids = np.concatenate(train_ids)
    counted = ids != IGNORED_CLASS
    low_m = min(points.xyz_m[:, 2].min() for points in train)

    def bins(points: Points) -> np.ndarray:
        return ((points.xyz_m[:, 2] - low_m) / HEIGHT_BIN_M).astype(int)

    heights = np.concatenate([bins(points) for points in train])
    counts = np.zeros((heights.max() + 1, num_classes), np.int64)
    np.add.at(counts, (heights[counted], ids[counted]), 1)
    constant = int(counts.sum(0).argmax())
    of_height = np.where(counts.any(1), counts.argmax(1), constant)
    return {
        "constant": [np.full(len(points.xyz_m), constant) for points in test],
        "position_only": [of_height[bins(points).clip(0, len(of_height) - 1)] for points in test],
    }


def _why_not_comparable(config: Config) -> str:
    reasons = [
        (config.data_set != "scannet", "the data set is not one of the paper's"),
        (config.preset != "full", f"preset {config.preset}"),
        (config.limit is not None, f"at most {config.limit} scenes of a split"),
    ]
    return ", ".join(reason for applies, reason in reasons if applies)
