"""The example pictures of the Space, drawn by our own renderer, with what is known about them.

python -m experiments.demo_examples                # writes space_app/spatialboost_space/examples, the same bytes
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dataset_builders.scene import Scene, View
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.synthetic import SyntheticSource

FOLDER = Path(__file__).resolve().parent.parent / "space_app" / "spatialboost_space" / "examples"
SIZE = (360, 480)  # height, width in pixels
LEAST_PIXELS = 600  # smaller objects get no region
# room -> question; {0}, {1} are points on its two largest objects
ROOMS = {
    "synthetic-7-test-000015": "Which is closer to the camera, the point {0} or the point {1}?",
    "synthetic-7-test-000011": "How far apart are the point {0} and the point {1} in 3D?",
    "synthetic-7-test-000013": "What is the depth at the point {0}?",
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
    source = SyntheticSource(SourceOptions(num_scenes=100, image_size=SIZE, views=1, seed=7))
    rows = [_save(source.load(name), question, output) for name, question in ROOMS.items()]
    (output / "examples.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _save(scene: Scene, question: str, output: Path) -> dict[str, Any]:
    view = scene.views[0]
    file = f"room_{scene.id.rsplit('-', 1)[1].lstrip('0')}.png"
    Image.fromarray(view.image).quantize(256).save(output / file, optimize=True)
    counts = {item.id: int(view.mask_of(item.id).sum()) for item in scene.objects if not item.is_support}
    names = {item.id: item.name for item in scene.objects}
    seen = sorted((name for name, count in counts.items() if count >= LEAST_PIXELS), key=lambda name: -counts[name])
    points = [_point_on(view, name) for name in seen]
    return {
        "name": scene.id,
        "file": file,
        "alt": "A made-up room with " + ", ".join(names[name] for name in seen) + ".",
        "question": question.format(*(f"({x:.3f}, {y:.3f})" for x, y in points)),
        "field_of_view_degrees": round(math.degrees(2 * math.atan(SIZE[1] / 2 / view.intrinsics.fx)), 1),
        "objects": [{"name": names[name], "region": _region(view, name)} for name in seen],
    }


def _point_on(view: View, name: int) -> tuple[float, float]:
    """A pixel of the object that is nearest to its middle, normalised."""
    rows, columns = np.nonzero(view.mask_of(name))
    nearest = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
    return round((columns[nearest] + 0.5) / SIZE[1], 3), round((rows[nearest] + 0.5) / SIZE[0], 3)


def _region(view: View, name: int) -> list[float]:
    """Left, top, right and bottom of the visible part, normalised."""
    rows, columns = np.nonzero(view.mask_of(name))
    edges = columns.min() / SIZE[1], rows.min() / SIZE[0], (columns.max() + 1) / SIZE[1], (rows.max() + 1) / SIZE[0]
    return [round(float(edge), 3) for edge in edges]


if __name__ == "__main__":
    raise SystemExit(main())
