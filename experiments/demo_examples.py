"""The example pictures of the Space: rooms of the kind that our small models know, drawn by our own renderer.

Their questions are those that the builders ask about these very rooms, at the small models' resolution.

python -m experiments.demo_examples                # writes space_app/spatialboost_space/examples, the same bytes
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset_builders import grounding, spatial_reasoning
from dataset_builders.scene import Scene, View
from dataset_builders.schema import message_text
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.synthetic import SyntheticSource

FOLDER = Path(__file__).resolve().parent.parent / "space_app" / "spatialboost_space" / "examples"
SIDE_PX = 384
ASKED_SIDE_PX = 64  # of the small models: points of the questions are centres of its pixels
SEED = 7  # no room that the small models were trained on
LEAST_PIXELS = 900  # smaller objects get no region
# room -> kinds of its questions, as `turns` names them
ROOMS = {
    "synthetic-rich-7-test-000000": ("thing_box", "closer_point", "caption"),
    "synthetic-rich-7-test-000003": ("pointed_thing", "point_depth", "left_right"),
    "synthetic-rich-7-test-000013": ("thing_box", "point_position", "front_behind"),
    "synthetic-rich-7-test-000019": ("pointed_thing", "depth_difference", "surface_distance"),
}


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `python -m experiments.demo_examples`."""
    parser = argparse.ArgumentParser(prog="python -m experiments.demo_examples", description=__doc__.split("\n")[0])
    parser.add_argument("--output", type=Path, default=FOLDER, help="folder of the pictures and examples.json")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Draw the rooms and write what is known about them."""
    output: Path = make_parser().parse_args(argv).output
    output.mkdir(parents=True, exist_ok=True)
    shown, asked = (_rooms(side_px) for side_px in (SIDE_PX, ASKED_SIDE_PX))
    rows = [_save(shown.load(name), questions(asked.load(name), kinds), output) for name, kinds in ROOMS.items()]
    (output / "examples.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _rooms(side_px: int) -> SyntheticSource:
    size = (side_px, side_px)
    return SyntheticSource(SourceOptions(num_scenes=100, image_size=size, views=1, seed=SEED, variety="rich"))


def questions(scene: Scene, kinds: tuple[str, ...]) -> list[str]:
    """What the builders of the data set ask about a room, the first question of each kind."""
    asked: dict[str, str] = {}
    for builder in (grounding, spatial_reasoning):
        record = builder.build_record(scene, seed=SEED)
        for turn, message in zip(record["turns"], record["messages"][::2]):
            asked.setdefault(turn["kind"], message_text(message).rpartition("\n")[2])
    return [asked[kind] for kind in kinds]


def _save(scene: Scene, asked: list[str], output: Path) -> dict[str, Any]:
    view = scene.views[0]
    file = f"room_{scene.id.rsplit('-', 1)[1].lstrip('0') or '0'}.png"
    Image.fromarray(view.image).quantize(256).save(output / file, optimize=True)
    counts = {item.id: int(view.mask_of(item.id).sum()) for item in scene.objects if not item.is_support}
    names = {item.id: item.name for item in scene.objects}
    seen = sorted((name for name, count in counts.items() if count >= LEAST_PIXELS), key=lambda name: -counts[name])
    return {
        "name": scene.id,
        "file": file,
        "alt": "A made-up room with " + ", ".join(names[name] for name in seen) + ".",
        "questions": asked,
        "field_of_view_degrees": round(math.degrees(2 * math.atan(SIDE_PX / 2 / view.intrinsics.fx)), 1),
        "objects": [{"name": names[name], "region": _region(view, name)} for name in seen],
    }


def _region(view: View, name: int) -> list[float]:
    """Left, top, right and bottom of the visible part, normalised."""
    rows, columns = np.nonzero(view.mask_of(name))
    edges = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    return [round(float(edge) / SIDE_PX, 3) for edge in edges]


if __name__ == "__main__":
    raise SystemExit(main())
