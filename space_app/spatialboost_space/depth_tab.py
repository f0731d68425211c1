"""Metric depth of an image, base beside boosted."""

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from spatialboost_space import models
from spatialboost_space.board import depth_value, depth_view
from spatialboost_space.errors import Refusal, endpoint, friendly, missing
from spatialboost_space.examples import files
from spatialboost_space.pictures import depth_range_m, save_depth_png
from spatialboost_space.uploads import image_input, needed

NAMES = {"depth_base": "base", "depth_boosted": "boosted"}


def depth_maps_m(image: Image.Image) -> dict[str, np.ndarray]:
    """(H, W) metres by "base" and "boosted", as far as they are set.

    Raises:
        Unavailable: neither is.
    """
    available = [part for part in NAMES if models.is_set(part)] or ["depth_boosted"]
    return {NAMES[part]: models.depth_m(part, image) for part in available}


def show_depth(image: str | None) -> tuple[dict[str, Any], list[str], str]:
    """What the page shows: the value of the depth view, the files, and a sentence."""
    maps_m = depth_maps_m(needed(image))
    low_m, high_m = depth_range_m(*maps_m.values())
    saved = [save_depth_png(depth, f"depth_{name}_millimetres") for name, depth in maps_m.items()]
    return depth_value(maps_m, low_m, high_m), saved, _summary(maps_m)


def follow_image(image: str | None) -> tuple[Any, Any, str]:
    """`show_depth` of a new image, nothing where it was taken away."""
    return (None, None, "") if image is None else show_depth(image)


def _summary(maps_m: dict[str, np.ndarray]) -> str:
    sentence = "; ".join(
        f"{name}: {depth.min():.2f} to {depth.max():.2f} m, median {np.median(depth):.2f} m"
        for name, depth in maps_m.items()
    )
    return f"{sentence}." if len(maps_m) > 1 else f"{sentence}. The other depth model is not set in this Space."


def depth(image: str | None) -> tuple[dict[str, Any], list[str]]:
    """Metric depth of an image by the base and by the boosted encoder.

    Args:
        image: a PNG, JPEG or WebP.

    Returns:
        Nearest, median and farthest depth in metres of each encoder; and a 16-bit PNG of millimetres for each.
    """
    maps_m = depth_maps_m(needed(image))
    numbers = {
        name: {
            "nearest_m": round(float(depth.min()), 3),
            "median_m": round(float(np.median(depth)), 3),
            "farthest_m": round(float(depth.max()), 3),
        }
        for name, depth in maps_m.items()
    }
    return numbers, [save_depth_png(depth, f"depth_{name}_millimetres") for name, depth in maps_m.items()]


def depth_at_point(image: str | None, x: float, y: float) -> dict[str, float]:
    """Depth in metres of one point of an image, by the base and by the boosted encoder.

    Args:
        image: a PNG, JPEG or WebP.
        x: from 0 at the left edge to 1 at the right edge.
        y: from 0 at the top to 1 at the bottom.

    Returns:
        Metres along the viewing direction, by encoder.
    """
    if x is None or y is None or not (0 <= x <= 1 and 0 <= y <= 1):
        raise Refusal(f"The point ({x}, {y}) is outside the image: both numbers go from 0 to 1.")
    opened = needed(image)
    column, row = min(int(x * opened.width), opened.width - 1), min(int(y * opened.height), opened.height - 1)
    return {name: round(float(depth[row, column]), 3) for name, depth in depth_maps_m(opened).items()}


def build() -> None:
    """Lay out the tab."""
    missing("depth_base", "depth_boosted")
    gr.Markdown(
        "Metric depth from one linear layer on frozen patch features: the base encoder beside the boosted one."
    )
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            image = image_input(
                label="Image", sources=["upload", "webcam", "clipboard"], elem_id="depth_image", height=320
            )
            run = gr.Button("Estimate depth", variant="primary", elem_id="depth_run")
            gr.Examples([[file] for file in files()], [image], label="Examples", elem_id="depth_examples")
        with gr.Column(min_width=280, scale=2):
            view = depth_view("depth_view")
            summary = gr.Markdown(elem_id="depth_summary")
            saved = gr.File(
                label="16-bit PNG, millimetres", file_count="multiple", interactive=False, elem_id="depth_files"
            )
    shown = [view, saved, summary]
    run.click(friendly(show_depth), [image], shown, api_visibility="private", concurrency_id="compute")
    image.change(friendly(follow_image), [image], shown, api_visibility="private", concurrency_id="compute")
    with gr.Column(visible=False):
        x, y, numbers = gr.Number(0.5, label="x"), gr.Number(0.5, label="y"), gr.JSON(label="metres")
        maps = gr.File(label="16-bit PNG", file_count="multiple")
        endpoint(depth, [image], [numbers, maps], "depth")
        endpoint(depth_at_point, [image, x, y], [numbers], "depth_at_point")
