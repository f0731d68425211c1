"""Read recorded demonstrations: simulator states and motor commands, which our own camera then renders."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from evaluators.array_pickle import load_arrays

Recording = dict[str, np.ndarray]  # "actions" (T, A) and, per name, what `Simulator.restore` wants of every step
LAYOUTS = (
    "pass a folder of .npz files with actions (T, A) and per step the simulator's state (Adroit: qpos, qvel, "
    "desired_orien or obj_pos, target_pos; DMControl: internal_state), a Minari folder with data/main_data.hdf5, or "
    "CortexBench's .pickle"
)


def read_recordings(place: Path, read_pickles: bool = False) -> Iterator[Recording]:
    """Yield the episodes of a folder of .npz files, of a Minari data set or of one of CortexBench's pickles.

    Args:
        place: the folder or file.
        read_pickles: whether a pickle may be read; even then nothing but arrays is ever built from it.

    Raises:
        ValueError: for a place that is none of these, or an episode without actions or states.
    """
    if not place.exists():
        raise ValueError(f"demonstrations {str(place)!r} do not exist: {LAYOUTS}")
    if (place / "data" / "main_data.hdf5").is_file():
        episodes = _read_minari(place / "data" / "main_data.hdf5")
    elif place.suffix in (".pickle", ".pkl"):
        if not read_pickles:
            raise ValueError(
                f"demonstrations {str(place)!r} are a pickle, which can run code: if you trust it, pass "
                "--set robot_success.read_pickles=true (or robot_return), or convert it to .npz"
            )
        episodes = _read_cortexbench(place)
    elif files := sorted(place.glob("*.npz")):
        episodes = _read_npz(files)
    else:
        raise ValueError(f"demonstrations {str(place)!r} hold no episodes: {LAYOUTS}")
    for number, episode in enumerate(episodes):
        steps = {name: len(values) for name, values in episode.items()}
        if "actions" not in steps or len(steps) == 1:
            found = ", ".join(steps) or "nothing"
            raise ValueError(f"demonstrations {str(place)!r}, episode {number}, hold only {found}: {LAYOUTS}")
        yield episode


def _read_npz(files: list[Path]) -> Iterator[Recording]:
    for file in files:
        with np.load(file, allow_pickle=False) as arrays:
            yield dict(arrays)


def _read_minari(file: Path) -> Iterator[Recording]:
    """Yield episodes of Minari's HDF5, whose states are in `state` or `infos/state`, as D4RL's Adroit sets have it."""
    import h5py

    with h5py.File(file) as data:
        for name in sorted(data, key=lambda name: int(name.split("_")[-1])):
            episode = data[name]
            states = episode.get("infos/state", episode.get("state", {}))
            yield {"actions": episode["actions"][()]} | {key: values[()] for key, values in states.items()}


def _read_cortexbench(file: Path) -> Iterator[Recording]:
    for path in load_arrays(file):
        infos = path.get("env_infos", {})
        states = {"internal_state": infos["internal_state"]} if "internal_state" in infos else {}
        yield {"actions": np.asarray(path["actions"])} | states
