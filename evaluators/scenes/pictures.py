"""Point clouds seen from above."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from evaluators.metrics import IGNORED_CLASS

Example = dict[str, np.ndarray]
GREY = (0.85, 0.85, 0.85, 1.0)
FIRST, SECOND = "#1f77b4", "#ff7f0e"
DOT = 3.0  # points of a printer, squared


def save_classes(file: Path, base: list[Example], boosted: list[Example], class_names: list[str]) -> None:
    """Draw the classes of every scene: truth, base, boosted; higher points lie on top, ignored ones are grey.

    Args:
        file: PNG.
        base: per scene `xyz_m` (N, 3), `truth` (N,) and `prediction` (N,) class ids.
        boosted: the same scenes.
        class_names: of all classes.
    """
    figure = Figure(figsize=(10.5, 3.1 * len(base)), layout="constrained")
    axes = figure.subplots(len(base), 3, squeeze=False)
    palette = np.vstack([colormaps["tab20"](np.arange(len(class_names)) % 20), GREY])
    present: set[int] = set()
    for row, (ours, theirs) in enumerate(zip(base, boosted)):
        order = np.argsort(ours["xyz_m"][:, 2], kind="stable")
        hidden = ours["truth"] == IGNORED_CLASS
        for axis, class_ids in zip(axes[row], (ours["truth"], ours["prediction"], theirs["prediction"])):
            shown = np.where(hidden, len(class_names), class_ids).astype(int)
            _scatter(axis, ours["xyz_m"][order], palette[shown[order]])
            present |= set(np.unique(shown).tolist())
    for axis, title in zip(axes[0], ("truth", "base", "boosted")):
        axis.set_title(title)
    handles = [Patch(color=palette[k], label=[*class_names, "not counted"][k]) for k in sorted(present)]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(file, dpi=100)


def save_fragments(file: Path, base: list[Example], boosted: list[Example]) -> None:
    """Draw every pair of fragments: as given, as they belong, and as each encoder's features put them.

    Args:
        file: PNG.
        base: per pair `source_m` (N, 3), `target_m` (M, 3), `truth` and `estimate`, (4, 4) source to target.
        boosted: the same pairs.
    """
    figure = Figure(figsize=(12, 3.1 * len(base)), layout="constrained")
    axes = figure.subplots(len(base), 4, squeeze=False)
    for row, (ours, theirs) in zip(axes, zip(base, boosted)):
        poses = (np.eye(4), ours["truth"], ours["estimate"], theirs["estimate"])
        for axis, pose, title in zip(row, poses, ("given", "truth", "base", "boosted")):
            moved = ours["source_m"] @ pose[:3, :3].T + pose[:3, 3]
            points = np.concatenate([ours["target_m"], moved])
            colours = np.array([FIRST] * len(ours["target_m"]) + [SECOND] * len(moved))
            order = np.argsort(points[:, 2], kind="stable")
            _scatter(axis, points[order], colours[order])
            error = pose @ np.linalg.inv(ours["truth"])
            axis.set_title(
                title if title in ("given", "truth") else f"{title}: {np.linalg.norm(error[:3, 3]):.2f} m off"
            )
    handles = [Patch(color=FIRST, label="target"), Patch(color=SECOND, label="source")]
    figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(file, dpi=100)


def _scatter(axis: Any, points: np.ndarray, colours: np.ndarray) -> None:
    axis.scatter(points[:, 0], points[:, 1], s=DOT, c=colours, linewidths=0)
    axis.set_aspect("equal")
    axis.set_axis_off()
