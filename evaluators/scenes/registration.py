"""Registration of partial point clouds: two fragments of a scene, matched by nothing but their features."""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from evaluators.contract import NotMeasurable, Result
from evaluators.encoders import Encoder
from evaluators.metrics import Metric
from evaluators.scenes.alignment import mutual_matches, pose_errors, ransac
from evaluators.scenes.fusion import Job, fused_features, is_seen
from evaluators.scenes.loading import load_scenes
from evaluators.scenes.pictures import save_fragments
from evaluators.scenes.scene import Points, Scene, SceneConfig, draw_points, spread, thin_out, unproject

METRICS = (
    Metric("recall", "recall at 0.05 m (%)", higher_is_better=True),
    Metric("rte_m", "RTE (m)", higher_is_better=False),
    Metric("rre_deg", "RRE (°)", higher_is_better=False),
)
NOTES = (
    "The first and the second half of a scene's views give two fragments, points from their own depth and features "
    "from their own views; the first is moved by a random rotation and translation.",
    "Mutual nearest neighbours by cosine, then RANSAC (4,096 samples of 3, inliers within 0.1 m) and Kabsch: nothing "
    "is trained. Recall: share of pairs whose translation is off by less than 0.05 m (Lexicon3D's se3_compare).",
    "Seeds draw the poses and RANSAC's samples.",
)
DIFFERS = "Lexicon3D trains REGTR's cross-attention on pairs of its own, here nothing is trained"
VOXEL_M = 0.05
NEAR_M = 0.1
MIN_OVERLAP = 0.3
RECALL_M = 0.05
CPU_POINTS = 1500


@dataclass(frozen=True, kw_only=True)
class Config(SceneConfig):
    """Registration; `max_points` is of a fragment, None = 4,000 (preset cpu: 1,500)."""

    def __post_init__(self) -> None:
        """Fill in what the preset says."""
        object.__setattr__(self, "max_points", self.max_points or (CPU_POINTS if self.preset == "cpu" else 4000))
        super().__post_init__()


class Fragment(NamedTuple):
    """A part of a scene."""

    scene: Scene
    views: list[int]
    xyz_m: np.ndarray  # (N, 3)


def check(config: Config) -> None:
    """Raise ValueError for data that lack something."""
    load_scenes(config)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Register the two fragments of every test scene.

    Raises:
        ValueError: the data lack something, or the encoder does not suit the resolution.
    """
    data = load_scenes(config)
    resolution = encoder.fit_resolution(config.resolution or encoder.input_size_px)
    pairs, dropped = [], 0
    for scene in tqdm(data.test, desc="fragments", unit="scene"):
        pair = _fragments(scene, config)
        if pair:
            pairs.append(pair)
        else:
            dropped += 1
    if not pairs:
        raise NotMeasurable(f"data {config.data!r} has no test scene whose halves overlap by {MIN_OVERLAP:.0%}")
    jobs = [Job(*fragment) for pair in pairs for fragment in pair]
    fused = fused_features(encoder, jobs, resolution, config.cache_dir)
    features = list(zip(fused[::2], fused[1::2]))
    poses = {seed: [_random_pose(seed, index) for index in range(len(pairs))] for seed in config.seeds}

    def errors(seed: int, estimates: list[torch.Tensor]) -> np.ndarray:
        return np.array([pose_errors(one, truth) for one, truth in zip(estimates, poses[seed])])

    estimates = {
        seed: [_register(pair, both, pose, seed) for pair, both, pose in zip(pairs, features, poses[seed])]
        for seed in config.seeds
    }
    first = config.seeds[0]
    described = data.describe()
    described["splits"] = {data.test_split: described["splits"][data.test_split]}
    described["splits"][data.test_split]["dropped"] |= {"halves_overlap_too_little": dropped} if dropped else {}
    described["splits"][data.test_split]["items"] = len(pairs)
    return {
        "protocol": {
            "id": "registration/1",
            "notes": list(NOTES),
            "settings": {name: getattr(config, name) for name in ("max_points", "max_views", "frame_step")},
            "differs": DIFFERS,
        },
        "data": {**described, "images_in_both_splits": 0},
        "encoder": {**encoder.describe(), "resolution_px": list(resolution)},
        "seeds": list(config.seeds),
        "items": [errors(seed, estimates[seed]) for seed in config.seeds],
        "controls": {
            "constant": aggregate(errors(first, [torch.eye(4)] * len(pairs))),
            "true_matches": aggregate(
                errors(first, [_register_truly(pair, pose, first) for pair, pose in zip(pairs, poses[first])])
            ),
        },
        "examples": [
            _example(pair, pose, estimate) for pair, pose, estimate in zip(pairs, poses[first], estimates[first])
        ][: config.num_examples],
    }


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Scores of the (num_pairs, 2) translations in metres and rotations in degrees."""
    return {
        "recall": float(100 * (items[:, 0] < RECALL_M).mean()),
        "rte_m": float(items[:, 0].mean()),
        "rre_deg": float(items[:, 1].mean()),
    }


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw the fragments before and after, from above."""
    save_fragments(file, base["examples"], boosted["examples"])


def _fragments(scene: Scene, config: Config) -> tuple[Fragment, Fragment] | None:
    """Both halves of a scene, None where they share too little."""
    views = spread(scene.num_views, config.max_views)
    halves = []
    for number, part in enumerate((views[: len(views) // 2], views[len(views) // 2 :])):
        xyz = np.concatenate([unproject(scene.view(index))[0] for index in part])
        xyz = xyz[thin_out(xyz, VOXEL_M)]
        ids = np.zeros(len(xyz), np.int32)
        points = draw_points(Points(xyz, ids.astype(np.uint8), ids), config.max_points or 0, f"{scene.id} {number}")
        halves.append(Fragment(scene, part, points.xyz_m))
    first, second = halves
    nearest = torch.cdist(torch.from_numpy(first.xyz_m), torch.from_numpy(second.xyz_m)).amin(1)
    return (first, second) if (nearest < NEAR_M).double().mean() >= MIN_OVERLAP else None


def _random_pose(seed: int, index: int) -> torch.Tensor:
    """The pose (4, 4) that brings the moved first fragment back: a uniform rotation and up to a metre an axis."""
    random = np.random.default_rng((seed, index))
    rotation, upper = np.linalg.qr(random.normal(size=(3, 3)))
    rotation *= np.sign(np.diag(upper))
    pose = np.eye(4)
    pose[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    pose[:3, 3] = random.uniform(-1, 1, 3)
    return torch.from_numpy(pose)


def _moved(xyz_m: np.ndarray, pose: torch.Tensor) -> torch.Tensor:
    """The points as they are given: `pose` brings them back."""
    points = torch.from_numpy(xyz_m).double()
    return (points - pose[:3, 3]) @ pose[:3, :3]


def _register(
    pair: tuple[Fragment, Fragment], features: tuple[torch.Tensor, torch.Tensor], pose: torch.Tensor, seed: int
) -> torch.Tensor:
    seen = [is_seen(one) for one in features]
    source = _moved(pair[0].xyz_m, pose)[seen[0]]
    target = torch.from_numpy(pair[1].xyz_m)[seen[1]]
    matches = mutual_matches(features[0][seen[0]], features[1][seen[1]])
    return ransac(source[matches[:, 0]], target[matches[:, 1]], seed)


def _register_truly(pair: tuple[Fragment, Fragment], pose: torch.Tensor, seed: int) -> torch.Tensor:
    """With the nearest point of the other fragment as the match: what the fragments allow."""
    distances = torch.cdist(torch.from_numpy(pair[0].xyz_m), torch.from_numpy(pair[1].xyz_m))
    nearest = distances.min(1)
    near = nearest.values < NEAR_M
    target = torch.from_numpy(pair[1].xyz_m)[nearest.indices]
    return ransac(_moved(pair[0].xyz_m, pose)[near], target[near], seed)


def _example(pair: tuple[Fragment, Fragment], pose: torch.Tensor, estimate: torch.Tensor) -> dict[str, np.ndarray]:
    return {
        "source_m": _moved(pair[0].xyz_m, pose).numpy(),
        "target_m": pair[1].xyz_m,
        "truth": pose.numpy(),
        "estimate": estimate.numpy(),
    }
