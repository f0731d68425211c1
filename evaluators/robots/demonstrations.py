"""What a policy imitates: episodes of a scripted expert or of a recording, rendered once by our own camera."""

import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from evaluators.robots.recordings import LAYOUTS, Recording, read_recordings
from evaluators.robots.rendering import RENDER_FLAGS, Camera
from evaluators.robots.simulators import SUITE_PACKAGES, RobotTask, Simulator, make_simulator

Step = tuple[np.ndarray, np.ndarray, np.ndarray]  # picture (H, W, 3), state (S,), motor command (A,)


@dataclass(frozen=True)
class Recipe:
    """All that decides what demonstrations look like.

    Attributes:
        count: episodes.
        image_size_px: side of the pictures.
        max_steps: longest episode.
        steps_after_success: how long a scripted expert goes on once it has succeeded.
        recordings: folder or file of recorded episodes, see `read_recordings`; None for the suite's own expert.
        read_pickles: whether a pickle may be read.
    """

    count: int
    image_size_px: int
    max_steps: int
    steps_after_success: int
    recordings: str | None = None
    read_pickles: bool = False


@dataclass(frozen=True)
class Demonstrations(Sequence[Image.Image]):
    """Episodes laid end to end; as a sequence, their pictures.

    Attributes:
        frames: (N, H, W, 3) uint8, memory-mapped.
        states: (N, S) float32, what the suite calls the observation.
        actions: (N, A) float32 in [-1, 1].
        lengths: (num_episodes,) steps of each episode.
        fingerprint: of the content.
    """

    frames: np.ndarray
    states: np.ndarray
    actions: np.ndarray
    lengths: np.ndarray
    fingerprint: str

    def __len__(self) -> int:
        """Number of steps in all episodes."""
        return len(self.frames)

    def __getitem__(self, index: int) -> Image.Image:  # type: ignore[override]
        """The picture of a step."""
        return Image.fromarray(self.frames[index])


def load_demonstrations(task: RobotTask, recipe: Recipe, cache_dir: Path) -> Demonstrations:
    """Return the episodes, from `cache_dir` where they have been rendered before.

    Raises:
        ValueError: without an expert or recordings, or for recordings that cannot be read or are too few.
    """
    key = json.dumps([RENDER_FLAGS, package_versions(task), repr(task), repr(recipe), _stamp(recipe.recordings)])
    folder = cache_dir / f"demonstrations-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
    if not folder.is_dir():
        partial = folder.with_suffix(f".{os.getpid()}.partial")
        partial.mkdir(parents=True)
        try:
            _write(_episodes(task, recipe), recipe.count, partial)
            if not folder.is_dir():  # another process may have been first
                partial.rename(folder)  # an interrupted run leaves nothing that looks finished
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    arrays = np.load(folder / "steps.npz")
    shape = (len(arrays["actions"]), recipe.image_size_px, recipe.image_size_px, 3)
    return Demonstrations(
        frames=np.memmap(folder / "frames.raw", np.uint8, "r", shape=shape),
        states=arrays["states"],
        actions=arrays["actions"],
        lengths=arrays["lengths"],
        fingerprint=str(arrays["fingerprint"]),
    )


def package_versions(task: RobotTask) -> dict[str, str]:
    """What the physics and the pixels depend on."""
    return {package: version(package) for package in ("mujoco", SUITE_PACKAGES[task.suite])}


def _write(episodes: Iterator[Iterator[Step]], count: int, folder: Path) -> None:
    """Write frames.raw while the episodes come, so that memory stays bounded, and steps.npz at the end."""
    digest = hashlib.sha256()
    states: list[np.ndarray] = []
    actions: list[np.ndarray] = []
    lengths: list[int] = []
    with (folder / "frames.raw").open("wb") as file:
        for episode in tqdm(episodes, total=count, desc="demonstrations", unit="episode"):
            before = len(actions)
            for frame, state, action in episode:
                file.write(frame.tobytes())
                digest.update(frame.tobytes() + state.tobytes() + action.tobytes())
                states.append(state)
                actions.append(action)
            lengths.append(len(actions) - before)
    np.savez(
        folder / "steps.npz",
        states=np.array(states, np.float32),
        actions=np.array(actions, np.float32),
        lengths=np.array(lengths),
        fingerprint=digest.hexdigest()[:16],
    )


def _episodes(task: RobotTask, recipe: Recipe) -> Iterator[Iterator[Step]]:
    """Yield the episodes, each the iterator of its steps."""
    simulator = make_simulator(task)
    simulator.reset(0)
    if recipe.recordings is None and simulator.expert_action() is None:
        raise ValueError(f"{task.name} has no scripted expert: {LAYOUTS}")
    camera = Camera(simulator.scene[0], task.camera, recipe.image_size_px, task.upside_down)
    try:
        if recipe.recordings is None:
            yield from (_demonstrate(simulator, camera, recipe, seed) for seed in range(recipe.count))
            return
        recordings = read_recordings(Path(recipe.recordings), recipe.read_pickles)
        number = -1
        for number, recording in enumerate(itertools.islice(recordings, recipe.count)):
            yield _replay(simulator, camera, recording, recipe, f"{recipe.recordings!r}, episode {number},")
        if number + 1 < recipe.count:
            raise ValueError(
                f"demonstrations {recipe.recordings!r} hold {number + 1} episodes where {recipe.count} are wanted: "
                f"pass --limit {number + 1}, or the setting demonstrations={number + 1}"
            )
    finally:
        camera.close()


def _demonstrate(simulator: Simulator, camera: Camera, recipe: Recipe, seed: int) -> Iterator[Step]:
    """Yield what the scripted expert does in the episode of a seed."""
    simulator.reset(seed)
    steps_left = recipe.max_steps
    while steps_left > 0:
        action = simulator.expert_action()
        assert action is not None  # `_episodes` has asked
        yield camera(*simulator.scene), simulator.state(), action
        _, at_goal = simulator.step(action)
        steps_left = min(steps_left - 1, recipe.steps_after_success) if at_goal else steps_left - 1


def _replay(simulator: Simulator, camera: Camera, recording: Recording, recipe: Recipe, where: str) -> Iterator[Step]:
    """Yield the steps of a recorded episode."""
    actions = np.clip(recording["actions"][: recipe.max_steps], -1, 1).astype(np.float32)
    if actions.shape[1:] != (simulator.num_actions,):
        raise ValueError(
            f"demonstrations {where} have actions of shape {actions.shape}, not (T, {simulator.num_actions})"
        )
    for index, action in enumerate(actions):
        try:
            simulator.restore({name: values[index] for name, values in recording.items()})
        except (ValueError, IndexError) as error:
            raise ValueError(f"demonstrations {where} {error}: {LAYOUTS}") from error
        yield camera(*simulator.scene), simulator.state(), action


def _stamp(place: str | None) -> list[list[str]]:
    """Return names, sizes and times of recorded files, so that other ones are rendered anew."""
    if place is None:
        return []
    files = sorted(file for file in (Path(place), *Path(place).rglob("*")) if file.is_file())
    return [[file.name, str(file.stat().st_size), str(file.stat().st_mtime_ns)] for file in files]
