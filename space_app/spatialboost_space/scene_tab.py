"""The scene in 3D: a point cloud from predicted depth, boxes around picked objects, distances between them."""

import math
from typing import Any

import gradio as gr
import numpy as np
import pandas
from PIL import Image

from spatialboost_space import models
from spatialboost_space.board import mark_board, pictures_of
from spatialboost_space.errors import Refusal, endpoint, friendly, missing
from spatialboost_space.examples import examples
from spatialboost_space.marks import read_marks
from spatialboost_space.point_cloud import Found, distance_m, find_object, find_point, save_glb, unproject
from spatialboost_space.uploads import image_input, needed

HELP = "Click a point or drag a box around an object. Keyboard: arrow keys and Enter, or R at two corners."
ENCODERS = {"boosted": "depth_boosted", "base": "depth_base"}
FIELD_OF_VIEW_DEGREES = 65.0
MAX_THINGS = 20
COLUMNS = ["thing", "distance to the camera (m)", "width (m)", "height (m)", "depth (m)"]


def reconstruct(
    image: Image.Image, encoder: str, field_of_view_degrees: float, things: list[dict[str, Any]]
) -> tuple[str, list[Found]]:
    """A glTF file of the scene and what was found at each thing.

    Args:
        image: RGB.
        encoder: "base" or "boosted".
        field_of_view_degrees: horizontal, of the camera.
        things: `name` and `region` (left, top, right, bottom) or `point` (x, y), normalised.

    Raises:
        Refusal: an impossible angle, too many or malformed things.
    """
    if not isinstance(field_of_view_degrees, int | float) or not 5 <= field_of_view_degrees <= 150:
        raise Refusal(f"A field of view of {field_of_view_degrees} degrees: it goes from 5 to 150.")
    if encoder not in ENCODERS:
        raise Refusal(f"There is no such encoder: choose {' or '.join(ENCODERS)}.")
    part = ENCODERS[encoder]
    points_m = unproject(models.depth_m(part, image), float(field_of_view_degrees))
    found = []
    for thing in checked_things(things):
        if "region" in thing:
            found.append(find_object(points_m, thing["name"], thing["region"]))
        else:
            found.append(find_point(points_m, thing["name"], *thing["point"]))
    return save_glb(points_m, np.asarray(image), found), found


def checked_things(things: Any) -> list[dict[str, Any]]:
    """Things from a stranger, each with a name and numbers inside the image."""
    if not isinstance(things, list) or len(things) > MAX_THINGS:
        raise Refusal(f"Things are a list of at most {MAX_THINGS}, each with a name and a region or a point.")
    checked: list[dict[str, Any]] = []
    for thing in things:
        kind = next((key for key in ("region", "point") if isinstance(thing, dict) and key in thing), "")
        numbers = thing[kind] if kind else None
        expected = {"region": 4, "point": 2}.get(kind, 0)
        if (
            not isinstance(numbers, list | tuple)
            or len(numbers) != expected
            or not all(isinstance(number, int | float) and 0 <= number <= 1 for number in numbers)
        ):
            raise Refusal("A thing has a region [left, top, right, bottom] or a point [x, y], all from 0 to 1.")
        checked.append({"name": str(thing.get("name", len(checked) + 1))[:60], kind: list(numbers)})
    return checked


def marked_things(marks: Any) -> list[dict[str, Any]]:
    """Things from the board: regions A, B, ... and points 1, 2, ..."""
    things: list[dict[str, Any]] = []
    for number, mark in enumerate(read_marks(marks, 1), start=1):
        if mark["x1"] is None:
            things.append({"name": f"point {number}", "point": [mark["x"], mark["y"]]})
        else:
            region = [mark["x"], mark["y"], mark["x1"], mark["y1"]]
            things.append({"name": f"[{mark['label']}]", "region": region})
    return things


def tables(found: list[Found]) -> tuple[pandas.DataFrame, pandas.DataFrame]:
    """What was found, and the distance from each thing to each other, as tables for the page."""
    rows = [[one.name, math.hypot(*one.centre_m), *(side or math.nan for side in one.size_m)] for one in found]
    names = [one.name for one in found]
    between = [[one.name, *(distance_m(one, other) for other in found)] for one in found]
    return (
        pandas.DataFrame(rows, columns=COLUMNS).round(2),
        pandas.DataFrame(between, columns=["metres between", *names]).round(2),
    )


def show_scene(
    image: str | None, encoder: str, field_of_view_degrees: float, marks: Any, known: list[dict[str, Any]]
) -> tuple[str, pandas.DataFrame, pandas.DataFrame]:
    """What the page shows: the scene, what was found, and the distances."""
    things = [*(known or []), *marked_things(marks)]
    path, found = reconstruct(needed(image), encoder, field_of_view_degrees, things[:MAX_THINGS])
    return (path, *tables(found))


def show_image(image: str | None, known: list[dict[str, Any]]) -> Any:
    """Put a new image on the board, with the objects that an example knows."""
    pictures = [] if image is None else pictures_of([needed(image)])
    spoken = [
        {"image": 0, **dict(zip(("x", "y", "x1", "y1"), thing["region"], strict=True)), "label": thing["name"]}
        for thing in checked_things(known or [])
        if "region" in thing
    ]
    return gr.HTML(value=[], pictures=pictures, spoken=spoken if pictures else [])


def scene(
    image: str | None,
    encoder: str = "boosted",
    field_of_view_degrees: float = FIELD_OF_VIEW_DEGREES,
    things: list[dict[str, Any]] | None = None,
) -> tuple[str, dict[str, Any]]:
    """A 3D scene from one image, with boxes around objects and the distances between them.

    Args:
        image: a PNG, JPEG or WebP.
        encoder: "boosted" or "base".
        field_of_view_degrees: horizontal, of the camera that took the image.
        things: each with a `name` and a `region` [left, top, right, bottom] or a `point` [x, y], from 0 to 1.

    Returns:
        A binary glTF file of points; and centre and size in metres of each thing (x right, y down, z forward), with
        the distances between all of them.
    """
    path, found = reconstruct(needed(image), encoder, field_of_view_degrees, things or [])
    numbers = {
        "things": [
            {"name": one.name, "centre_m": one.centre_m.round(3).tolist(), "size_m": one.size_m.round(3).tolist()}
            for one in found
        ],
        "distances_m": [
            {"from": one.name, "to": other.name, "metres": round(distance_m(one, other), 3)}
            for place, one in enumerate(found)
            for other in found[:place]
        ],
    }
    return path, numbers


def build() -> None:
    """Lay out the tab."""
    missing("depth_base", "depth_boosted")
    gr.Markdown(
        "A point cloud from predicted depth. Pick objects and points on the image: their boxes appear in the scene, "
        "their distances below it."
    )
    known: Any = gr.JSON([], visible=False)
    with gr.Row(equal_height=False):
        with gr.Column(min_width=280):
            image = image_input(label="Image", elem_id="scene_image", height=240)
            board = mark_board("Scene", "scene_board", HELP)
            encoder = gr.Radio(list(ENCODERS), value="boosted", label="Encoder", elem_id="scene_encoder")
            angle = gr.Slider(
                20,
                120,
                FIELD_OF_VIEW_DEGREES,
                step=0.1,
                label="Horizontal field of view (degrees)",
                elem_id="scene_angle",
            )
            run = gr.Button("Build the scene", variant="primary", elem_id="scene_run")
            gr.Examples(
                [[row["file"], row["field_of_view_degrees"], row["objects"]] for row in examples()],
                [image, angle, known],
                label="Examples",
                elem_id="scene_examples",
                example_labels=[", ".join(thing["name"] for thing in row["objects"][:3]) for row in examples()],
            )
        with gr.Column(min_width=280, scale=2):
            model = gr.Model3D(
                label="Point cloud",
                display_mode="solid",
                clear_color=(0.5, 0.5, 0.5, 0.0),
                height=420,
                elem_id="scene_model",
            )
            gr.Markdown("Rotate: drag, or arrow keys. Zoom: scroll, pinch, or Alt with the arrow keys up and down.")
            objects = gr.Dataframe(
                label="What was picked", headers=COLUMNS, interactive=False, elem_id="scene_objects"
            )
            between = gr.Dataframe(label="Distances", interactive=False, elem_id="scene_distances")
    private: dict[str, Any] = {"api_visibility": "private"}
    inputs, outputs = [image, encoder, angle, board, known], [model, objects, between]
    image.upload(list, None, [known], queue=False, **private)  # an example's objects are not those of another image
    image.change(friendly(show_image), [image, known], [board], show_progress="hidden", **private)
    compute: dict[str, Any] = {"concurrency_id": "compute", **private}
    run.click(friendly(show_scene), inputs, outputs, **compute)
    board.mark(friendly(show_scene), inputs, outputs, **compute)
    with gr.Column(visible=False):
        things = gr.JSON([], label="things")
        results = [gr.File(label="scene"), gr.JSON(label="numbers")]
        endpoint(scene, [image, encoder, angle, things], results, "scene")
