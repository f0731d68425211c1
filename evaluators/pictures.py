"""One picture per dense task: image, truth, base and boosted in a row."""

from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from evaluators.metrics import IGNORED_CLASS

COLUMNS = ("image", "truth", "base", "boosted")
MISSING_GREY = (0.85, 0.85, 0.85, 1.0)


def save_picture(
    file: Path,
    base_examples: list[dict[str, np.ndarray]],
    boosted_examples: list[dict[str, np.ndarray]],
    class_names: list[str] | None,
) -> None:
    """Draw the examples of both encoders; depth in metres without `class_names`, classes with them."""
    figure = Figure(figsize=(2.6 * len(COLUMNS) + 1.6, 2.5 * len(base_examples)), layout="constrained")
    axes = figure.subplots(len(base_examples), len(COLUMNS), squeeze=False)
    for row, (base, boosted) in enumerate(zip(base_examples, boosted_examples)):
        maps = (base["truth"], base["prediction"], boosted["prediction"])
        axes[row, 0].imshow(base["image"])
        if class_names is None:
            shown = _draw_depth(axes[row, 1:], maps)
            figure.colorbar(shown, ax=axes[row, -1], label="m")
        else:
            _draw_classes(axes[row, 1:], maps, len(class_names))
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, title in zip(axes[0], COLUMNS):
        axis.set_title(title)
    if class_names is not None:
        examples = [*base_examples, *boosted_examples]
        present = np.unique(np.concatenate([np.unique(e[key]) for e in examples for key in ("truth", "prediction")]))
        colours = _palette(len(class_names))
        handles = [Patch(color=colours[k], label=class_names[k]) for k in present if k != IGNORED_CLASS]
        handles += [Patch(color=MISSING_GREY, label="ignored")] if IGNORED_CLASS in present else []
        figure.legend(handles=handles, loc="outside right upper", frameon=False, fontsize="small")
    figure.savefig(file, dpi=100)


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


def _draw_classes(axes: Any, maps: tuple[np.ndarray, ...], num_classes: int) -> None:
    """Draw class maps in one palette; ignored pixels are grey."""
    colours = np.vstack([_palette(num_classes), np.tile(MISSING_GREY, (IGNORED_CLASS + 1 - num_classes, 1))])
    for axis, class_ids in zip(axes, maps):
        axis.imshow(colours[class_ids], interpolation="nearest")


def _palette(num_classes: int) -> np.ndarray:
    """Return (K, 4) colours, repeating after twenty."""
    return colormaps["tab10" if num_classes <= 10 else "tab20"](np.arange(num_classes) % 20)
