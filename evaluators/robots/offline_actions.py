"""TriFinger behaviour cloning, judged on held-out demonstrations: no simulator with its controller installs."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from tqdm import tqdm

from evaluators.contract import Result, TaskConfig
from evaluators.encoders import Encoder
from evaluators.metrics import Metric
from evaluators.robots.inputs import PolicyInput, cached_items, control_inputs, encoder_input
from evaluators.robots.trifinger_data import CAMERA, FingerSteps, load_fingers

METRICS = (Metric("action_error_cm", "error of the fingertips' displacement (cm)", higher_is_better=False),)
HIDDEN_SIZE = 2000
LEARNING_RATE = 1e-4
BATCH_SIZE = 32
NOTES = (
    "An MLP of two layers of 2,000 sees the class token (or the mean patch token) of the picture, the fingertips and, "
    "in move_cube, the feature of the goal picture; MSE, Adam 1e-4, batches of 32; the last epoch counts.",
    "Per held-out demonstration: root mean square distance between predicted and demonstrated displacement of the "
    "fingertips, averaged over the steps; no rollouts.",
)
DIFFERS = (
    "it is an error of actions on held-out demonstrations, not a success in simulation: trifinger_simulation is on "
    "PyPI, but CortexBench's environments and their impedance controller are not"
)


class _Finger(NamedTuple):
    folder: str
    num_moving: int
    sees_goal: bool
    epochs: int


FINGER_TASKS = {
    "trifinger_reach_cube": _Finger("reach", 1, False, 100),
    "trifinger_move_cube": _Finger("move", 3, True, 1000),
}
CPU_EPOCHS = 20


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """Offline behaviour cloning; epochs None = the preset's."""

    epochs: int | None = None


def check(config: Config) -> None:
    """Raise ValueError for demonstrations in another layout."""
    _load(config)


def _load(config: Config) -> tuple[FingerSteps, FingerSteps]:
    assert config.data is not None  # the catalogue says that the data set has a place
    task = FINGER_TASKS[config.data_set]
    return load_fingers(Path(config.data), task.folder, task.num_moving, config.limit)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Clone the training demonstrations and measure the actions on the held-out ones.

    Raises:
        ValueError: for demonstrations in another layout.
    """
    task = FINGER_TASKS[config.data_set]
    epochs = config.epochs or (CPU_EPOCHS if config.preset == "cpu" else task.epochs)
    resolution = encoder.fit_resolution(config.resolution or encoder.input_size_px)
    train, test = _load(config)
    run = partial(_items, train, test, task, epochs, encoder.device, config.cache_dir)
    controls = {}
    for name, source in control_inputs(encoder, resolution).items():
        if name != "state":  # the recordings hold none
            key = ["fingers", source.control_key, train.fingerprint, test.fingerprint, epochs, config.seeds[0]]
            controls[name] = aggregate(cached_items(config.cache_dir, key, partial(run, source, config.seeds[0])))
    constant = np.broadcast_to(train.actions_cm.mean(0), test.actions_cm.shape)
    return {
        "protocol": {
            "id": "trifinger-actions/1",
            "notes": list(NOTES),
            "settings": {"epochs": epochs, "camera": CAMERA},
            "differs": DIFFERS,
        },
        "data": {
            "source": config.data,
            "splits": {name: _describe(steps) for name, steps in (("train", train), ("test", test))},
        },
        "encoder": {**encoder.describe(), "resolution_px": list(resolution)},
        "seeds": list(config.seeds),
        "items": [run(encoder_input(encoder, resolution), seed) for seed in config.seeds],
        "controls": {"constant": aggregate(_errors(constant, test))} | controls,
        "examples": [],
    }


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Average the errors of the demonstrations, (num_demonstrations, 1)."""
    return {"action_error_cm": float(items.mean())}


def _items(
    train: FingerSteps,
    test: FingerSteps,
    task: _Finger,
    epochs: int,
    device: torch.device,
    cache_dir: Path,
    source: PolicyInput,
    seed: int,
) -> np.ndarray:
    """Train one policy; return the errors of its last epoch, (num_demonstrations, 1)."""
    train_inputs, test_inputs = (
        _inputs(steps, source.of_demonstrations(steps, cache_dir), task.sees_goal).to(device)
        for steps in (train, test)
    )
    targets = torch.from_numpy(train.actions_cm).to(device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = nn.Sequential(
            nn.Linear(train_inputs.shape[1], HIDDEN_SIZE),
            nn.ReLU(),
            nn.Linear(HIDDEN_SIZE, HIDDEN_SIZE),
            nn.ReLU(),
            nn.Linear(HIDDEN_SIZE, targets.shape[1]),
        ).to(device)
    optimizer = torch.optim.Adam(policy.parameters(), LEARNING_RATE)
    order = torch.Generator().manual_seed(seed)
    for _ in tqdm(range(epochs), desc="policy", unit="epoch"):
        for batch in torch.randperm(len(targets), generator=order).to(device).split(BATCH_SIZE):
            optimizer.zero_grad()
            functional.mse_loss(policy(train_inputs[batch]), targets[batch]).backward()
            optimizer.step()
    with torch.inference_mode():
        return _errors(policy(test_inputs).cpu().numpy(), test)


def _inputs(steps: FingerSteps, features: torch.Tensor, sees_goal: bool) -> torch.Tensor:
    """Return (N, D) of features (N + num_demonstrations, C), fingertips and the goal's feature."""
    parts = [features[: len(steps.goals)], torch.from_numpy(steps.fingertips_cm)]
    return torch.cat([*parts, features[steps.goals]] if sees_goal else parts, dim=1)


def _errors(predicted_cm: np.ndarray, steps: FingerSteps) -> np.ndarray:
    """Return (num_demonstrations, 1) mean over the steps of the root mean square distance of the fingers."""
    offsets = (predicted_cm - steps.actions_cm).reshape(len(predicted_cm), -1, 3)  # (N, fingers, xyz)
    distances = np.sqrt((offsets**2).sum(2).mean(1))
    return np.array([[distances[steps.demonstrations == one].mean()] for one in np.unique(steps.demonstrations)])


def _describe(steps: FingerSteps) -> dict[str, object]:
    return {"items": len(np.unique(steps.demonstrations)), "fingerprint": steps.fingerprint, "dropped": {}}
