"""Two page elements of our own: images to mark by click, drag or keyboard, and depth maps under a slider.

Their values are JSON; nothing that a visitor or a model wrote is put into a page as markup.
"""

import base64
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from spatialboost_space.pictures import COLOUR_MAP
from spatialboost_space.uploads import as_data_url

FOLDER = Path(__file__).parent
GRID_SIDE_PX = 320  # of the depth that travels to the page


def _read(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def mark_board(label: str, elem_id: str, help_text: str, readonly: bool = False) -> gr.HTML:
    """Images with marks. `value` holds the visitor's marks; `pictures` and `spoken` are what the server shows.
    With a `grid` [columns, rows], marks are put on centres of its pixels.

    Events: `mark` after a click or drag, with the marks in the value.
    """
    return gr.HTML(
        value=[],
        label=label,
        html_template="<div class='board'></div>",
        css_template=_read("board.css"),
        js_on_load=_read("board.js"),
        elem_id=elem_id,
        pictures=[],
        spoken=[],
        grid=None,
        help=help_text,
        readonly=readonly,
        name=label,
    )


def pictures_of(images: list[Image.Image]) -> list[dict[str, Any]]:
    """What `mark_board` shows: a small copy of each image."""
    return [
        {"src": as_data_url(image), "alt": f"image {number} of {len(images)}"}
        for number, image in enumerate(images, start=1)
    ]


def depth_view(elem_id: str) -> gr.HTML:
    """Base depth beside boosted depth under a slider, with metres under the pointer. `value` is of `depth_value`."""
    return gr.HTML(
        value=None,
        label="Depth in metres",
        html_template="<div class='depth-view'></div>",
        css_template=_read("depth_view.css"),
        js_on_load=_read("depth_view.js"),
        elem_id=elem_id,
        colours=COLOUR_MAP.tolist(),
    )


def depth_value(maps_m: dict[str, np.ndarray], low_m: float, high_m: float) -> dict[str, Any]:
    """JSON of `depth_view`: named (H, W) depth maps of one size, as little-endian millimetres."""
    height, width = next(iter(maps_m.values())).shape
    step = max(1, -(-max(height, width) // GRID_SIDE_PX))
    small = {name: np.clip(depth[::step, ::step] * 1000, 0, 65535).astype("<u2") for name, depth in maps_m.items()}
    rows, columns = next(iter(small.values())).shape
    return {
        "width": columns,
        "height": rows,
        "aspect": width / height,
        "low_m": low_m,
        "high_m": high_m,
        "maps": [
            {"name": name, "millimetres": base64.b64encode(grid.tobytes()).decode()} for name, grid in small.items()
        ],
    }
