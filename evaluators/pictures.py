"""One picture per dense task: image, truth, both predictions and both encoders' patch features in a row."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from evaluators.metrics import IGNORED_CLASS

COLUMNS = ("image", "truth", "base", "boosted", "features, base", "features, boosted")
MAPS = ("truth", "prediction")
MISSING_GREY = (0.85, 0.85, 0.85, 1.0)
PERCENTILES = (2, 98)  # of a component: what becomes dark and bright
FEATURES_NOTE = {
    True: "Features: the three main directions (PCA) of both encoders' patches together as red, green and blue; the "
    "same colour means the same feature.",
    False: "Features: the three main directions (PCA) of each encoder's own patches as red, green and blue; their "
    "widths differ, so colours of base and boosted cannot be compared.",
}


def save_picture(
    file: Path,
    base_examples: list[dict[str, np.ndarray]],
    boosted_examples: list[dict[str, np.ndarray]],
    class_names: list[str] | None,
) -> None:
    """Draw the examples of both encoders; depth in metres without `class_names`, classes with them.

    Args:
        file: PNG.
        base_examples: per image `image` (H, W, 3), `truth` and `prediction` (H, W), `features` (C, h, w).
        boosted_examples: of the same images.
        class_names: by class id.
    """
    tallest = max(np.divide(*example["image"].shape[:2]) for example in base_examples)
    size = 2.6 * len(COLUMNS) + 1.6, max(1.0, min(2.5, 2.6 * tallest)) * len(base_examples) + 0.6  # inches
    figure = Figure(figsize=size, layout="constrained")
    sides = base_examples, boosted_examples
    colours, together = feature_colours([[example["features"] for example in side] for side in sides])
    axes = figure.subplots(len(base_examples), len(COLUMNS), squeeze=False)
    palette = _palette([*base_examples, *boosted_examples]) if class_names is not None else np.empty(0)
    for row, (base, boosted) in enumerate(zip(base_examples, boosted_examples)):
        maps = (base["truth"], base["prediction"], boosted["prediction"])
        axes[row, 0].imshow(base["image"])
        if class_names is None:
            shown = _draw_depth(axes[row, 1:4], maps)
            figure.colorbar(shown, ax=axes[row, 3], label="m")
        else:
            for axis, class_ids in zip(axes[row, 1:4], maps):
                axis.imshow(palette[class_ids], interpolation="nearest")
        height, width = base["image"].shape[:2]
        for axis, side in zip(axes[row, 4:], colours):
            axis.imshow(side[row], extent=(0, width, height, 0), interpolation="nearest")
    figure.supxlabel(FEATURES_NOTE[together], fontsize="small")
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], COLUMNS):
        axis.set_title(title)
    if class_names is not None:
        names = [*class_names, *[""] * (IGNORED_CLASS - len(class_names)), "ignored"]
        handles = [Patch(color=palette[k], label=names[k]) for k in np.flatnonzero(palette.any(1))]
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(file, dpi=100)


def feature_colours(sides: list[list[np.ndarray]]) -> tuple[list[list[np.ndarray]], bool]:
    """Turn patch features into colours by their three main directions.

    Args:
        sides: per encoder (C, h, w) of each image.

    Returns:
        Per encoder (h, w, 3) in [0, 1] of each image; and whether the encoders share directions and scale, which they
        do where their features are equally wide.
    """
    together = len({maps[0].shape[0] for maps in sides}) == 1
    if not together:
        return [feature_colours([maps])[0][0] for maps in sides], False
    images = [image for maps in sides for image in maps]
    tokens = np.concatenate([image.reshape(len(image), -1).T for image in images]).astype(np.float32)
    found = _main_directions(torch.from_numpy(tokens)).numpy()
    low, high = np.percentile(found, PERCENTILES, axis=0)
    scaled = ((found - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    ends = np.cumsum([image[0].size for image in images])[:-1]
    coloured = [part.reshape(*image.shape[1:], 3) for part, image in zip(np.split(scaled, ends), images)]
    count = len(sides[0])
    return [coloured[start : start + count] for start in range(0, len(coloured), count)], True


def _main_directions(tokens: torch.Tensor) -> torch.Tensor:
    """Return (N, 3) coordinates of (N, C) tokens along their main directions, zeros where there are fewer."""
    count = min(3, *tokens.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        _, _, directions = torch.pca_lowrank(tokens, count)
    found = torch.zeros(len(tokens), 3)
    found[:, :count] = (tokens - tokens.mean(0)) @ directions
    return found


def _draw_depth(axes: Any, maps: tuple[np.ndarray, ...]) -> Any:
    """Draw depth maps on the truth's scale; pixels without a reading are grey."""
    colours = colormaps["turbo"].with_extremes(bad=MISSING_GREY)
    truth_m = np.ma.masked_less_equal(maps[0], 0)
    low_m, high_m = (float(truth_m.min()), float(truth_m.max())) if truth_m.count() else (0.0, 1.0)
    shown = [
        axis.imshow(np.ma.masked_less_equal(depth_m, 0), cmap=colours, vmin=low_m, vmax=high_m)
        for axis, depth_m in zip(axes, maps)
    ]
    return shown[0]


def _palette(examples: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Return (256, 4) colours of the classes that are there, repeating after twenty; zeros for all others."""
    present = np.unique(np.concatenate([np.unique(example[key]) for example in examples for key in MAPS])).astype(int)
    colours = np.zeros((IGNORED_CLASS + 1, 4))
    colours[present] = colormaps["tab10" if len(present) <= 10 else "tab20"](np.arange(len(present)) % 20)
    if IGNORED_CLASS in present:
        colours[IGNORED_CLASS] = MISSING_GREY
    return colours
