"""Behaviour cloning on a frozen encoder: demonstrations, one policy per seed, rollouts, controls."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from evaluators.contract import Result
from evaluators.encoders import Encoder
from evaluators.robots.demonstrations import Demonstrations, Recipe, load_demonstrations, package_versions
from evaluators.robots.inputs import GREY_SIDE_PX, PolicyInput, cached_items, control_inputs, encoder_input
from evaluators.robots.policy import Examples, evaluated_epochs, history_indices, train_policy
from evaluators.robots.protocol import MAX_SHORT_HORIZON_STEPS, CloningConfig, Protocol
from evaluators.robots.recordings import read_recordings
from evaluators.robots.rendering import RENDER_FLAGS, Camera
from evaluators.robots.rollouts import FIRST_SEED, Arena, Outcome
from evaluators.robots.simulators import RobotTask, make_simulator

MAX_PIXEL_SCORE = 60.0  # per cent; a task that grey pixels solve beyond it cannot rank encoders
NOTES = (
    "A BatchNorm MLP of three layers of 256 sees the class token (or the mean patch token) of the last three frames, "
    "fused as differences and newest (FLARE), and the robot's own joints or gripper; MSE, Adam 1e-3, batches of 256.",
    "`last` is the policy after the last epoch; `best` the maximum over the evaluations, chosen on the very rollouts "
    "that it reports: optimistic, printed because CortexBench reports it.",
    "Both encoders see the same pictures of the same demonstrations and are tried from the same seeds.",
    "Controls (first seed only): `state` knows everything, `proprioception` the robot but no picture, `grey pixels` a "
    f"{GREY_SIDE_PX}x{GREY_SIDE_PX} thumbnail, `random encoder` the base's architecture without training.",
)
DIFFERS = {
    "metaworld": "MetaWorld v3 with its camera `corner` instead of CortexBench's v2 and top_cap2, pictures resized "
    "whole instead of cropped, demonstrations of the scripted expert made here",
    "adroit": "gymnasium-robotics v1 instead of mj_envs v0, pictures resized whole, other demonstrations",
    "dmcontrol": "rendered without shadows, pictures resized whole",
}
# (outcomes of all evaluations) -> (num_rollouts, D) items
Itemise = Callable[[list[Outcome], RobotTask], np.ndarray]
Aggregate = Callable[[np.ndarray], dict[str, float]]


def check(config: CloningConfig) -> None:
    """Raise for a simulator, a renderer or recordings that are missing.

    Raises:
        ModuleNotFoundError: the simulator's package.
        ValueError: the rest.
    """
    simulator = make_simulator(config.task())
    if config.data is not None:
        next(read_recordings(Path(config.data), config.read_pickles))
    Camera(simulator.scene[0], config.task().camera, 16).close()


def run_cloning(encoder: Encoder, config: CloningConfig, itemise: Itemise, aggregate: Aggregate, score: str) -> Result:
    """Clone the demonstrations with every seed and try the policies; frame the result with controls.

    Args:
        encoder: what the policies see through.
        config: of the task.
        itemise: outcomes of all evaluations of a seed -> (num_rollouts, D) items.
        aggregate: items -> a value per metric, per cent.
        score: the metric that decides whether grey pixels solve the task already.
    """
    course = _prepare(config, encoder.device)
    resolution = encoder.fit_resolution(config.resolution or encoder.input_size_px)
    protocol, settings, seeds = course.protocol, course.settings(), config.seeds
    arena = Arena(course.task, protocol.rollouts, protocol.image_size_px, course.horizon_steps)
    try:
        controls = {}
        for name, policy_input in control_inputs(encoder, resolution).items():
            key = [policy_input.control_key, settings, course.demonstrations.fingerprint, seeds[0]]
            items = cached_items(config.cache_dir, key, partial(course.items, arena, policy_input, seeds[0], itemise))
            controls[name] = aggregate(items)
        policy_input = encoder_input(encoder, resolution)
        outcomes = [course.outcomes(arena, policy_input, seed, config.num_examples) for seed in seeds]
    finally:
        arena.close()
    first = outcomes[0][-1]
    scores = itemise([first], course.task)[:, 0]  # the suite's own success, or the mean reward
    return {
        "protocol": {
            "id": f"behaviour-cloning/1+{hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:8]}",
            "notes": list(NOTES),
            "settings": settings,
            "differs": DIFFERS[course.task.suite],
        },
        "data": {
            "source": config.data or f"scripted expert of {course.task.suite}",
            "splits": {
                "demonstrations": _split(len(course.demonstrations.lengths), course.demonstrations.fingerprint),
                "rollouts": _split(protocol.rollouts, f"seeds from {FIRST_SEED}"),
            },
            "warnings": _warnings(controls, score),
        },
        "encoder": {**encoder.describe(), "resolution_px": list(resolution)},
        "seeds": list(seeds),
        "items": [itemise(of_seed, course.task) for of_seed in outcomes],
        "controls": controls,
        "examples": [{"strip": strip, "score": scores[number]} for number, strip in enumerate(first.strips)],
    }


def _prepare(config: CloningConfig, device: torch.device) -> "_Course":
    """Fetch the demonstrations and settle the horizon."""
    task, protocol = config.task(), config.protocol()
    max_steps = protocol.horizon_steps or min(task.horizon_steps, MAX_SHORT_HORIZON_STEPS)
    recipe = Recipe(
        protocol.demonstrations,
        protocol.image_size_px,
        max_steps,
        protocol.steps_after_success,
        config.data,
        config.read_pickles,
    )
    demonstrations = load_demonstrations(task, recipe, config.cache_dir)
    twice_the_mean = 2 * round(float(demonstrations.lengths.mean()))
    horizon_steps = protocol.horizon_steps or min(max_steps, twice_the_mean)
    return _Course(task, protocol, horizon_steps, demonstrations, device, config.cache_dir)


@dataclass(frozen=True)
class _Course:
    """What all policies of a task have in common."""

    task: RobotTask
    protocol: Protocol
    horizon_steps: int
    demonstrations: Demonstrations
    device: torch.device
    cache_dir: Path

    def settings(self) -> dict[str, Any]:
        """All that the numbers depend on, for the report and the protocol's id."""
        camera = {"camera": f"{self.task.camera}{' turned upright' if self.task.upside_down else ''}"}
        protocol = {**asdict(self.protocol), "horizon_steps": self.horizon_steps}
        return {"task": self.task.name} | protocol | camera | RENDER_FLAGS | package_versions(self.task)

    def outcomes(self, arena: Arena, policy_input: PolicyInput, seed: int, num_strips: int = 0) -> list[Outcome]:
        """Train one policy and try it at every evaluation; strips are of the last one."""
        steps = self.demonstrations
        examples = Examples(
            embeddings=policy_input.of_demonstrations(steps, self.cache_dir),
            proprioception=torch.from_numpy(steps.states[:, : self.task.num_proprioception]),
            actions=torch.from_numpy(steps.actions),
            history=torch.from_numpy(history_indices(steps.lengths)),
        ).to(self.device)
        evaluated = evaluated_epochs(self.protocol.epochs, self.protocol.evaluate_every)
        outcomes = []
        for epoch, policy in enumerate(train_policy(examples, self.protocol.epochs, seed), start=1):
            if epoch in evaluated:
                strips = num_strips if epoch == evaluated[-1] else 0
                outcomes.append(arena.try_policy(policy, policy_input, strips, f"rollouts after epoch {epoch}"))
        return outcomes

    def items(self, arena: Arena, policy_input: PolicyInput, seed: int, itemise: Itemise) -> np.ndarray:
        """Train and try one policy; return its items."""
        return itemise(self.outcomes(arena, policy_input, seed), self.task)


def _split(items: int, fingerprint: str) -> dict[str, Any]:
    return {"items": items, "fingerprint": fingerprint, "dropped": {}}


def _warnings(controls: dict[str, dict[str, float]], score: str) -> list[str]:
    """Tell when a task cannot rank encoders."""
    pixels, state = controls["grey_pixels"][score], controls["state"][score]
    lines = []
    if pixels > MAX_PIXEL_SCORE:
        lines.append(
            f"{GREY_SIDE_PX}x{GREY_SIDE_PX} grey pixels reach {pixels:.0f} %: beyond {MAX_PIXEL_SCORE:.0f} % the task "
            "is too easy and cannot rank encoders; take fewer demonstrations or another task."
        )
    if state <= controls["proprioception"][score]:
        lines.append(
            f"a policy that knows the whole state reaches {state:.0f} %, no more than one that knows the robot only: "
            "there are too few demonstrations or epochs to tell encoders apart."
        )
    return lines
