"""The world of the miniature: rich rooms as training data, things to classify, places to find again.

    from experiments.world import WorldSize, make_world
    world = make_world(Path("outputs/world"), WorldSize(num_scenes=200, views=4, image_size_px=64, workers=2), seed=0)

`spatialboost evaluate` reads them with `--data rooms=DATA folder=OBJECTS roxford=PLACES`, and docs/miniature.md tells
what is in them.
"""

import hashlib
import json
import shlex
from dataclasses import dataclass
from pathlib import Path

from dataset_builders import build
from dataset_builders.sources.synthetic_variety import RICH
from experiments.world_files import make_objects, make_places

SHARD_SIZE = 32  # scenes: small shards keep many workers busy, and little is lost when a run is stopped
RECORD = "world.json"


@dataclass(frozen=True)
class WorldSize:
    """How much of the world is made.

    Attributes:
        num_scenes: rooms, a fifth of them for testing; pictures of things and of places grow with them.
        views: of each room, 2 to 8.
        image_size_px: height and width of every image.
        workers: processes; they change no byte.
    """

    num_scenes: int
    views: int
    image_size_px: int
    workers: int

    @property
    def objects_per_class(self) -> dict[str, int]:
        """Pictures of each class, by split."""
        return {"train": min(300, max(4, self.num_scenes // 10)), "val": min(100, max(2, self.num_scenes // 30))}

    @property
    def num_places(self) -> int:
        """Rooms to be found again; each has a decoy."""
        return min(250, max(3, self.num_scenes // 20))


@dataclass(frozen=True)
class World:
    """Where everything is.

    Attributes:
        data: for `load_dataset`: `alignment`, `grounding`, `single_view`, `multi_view`, `multi_view_vqa` and `dense`.
        objects: `train/CLASS/*.png` and `val/CLASS/*.png`, one thing each (data set `folder`).
        places: `jpg/*.jpg` and `gnd_roxford5k.json` (data set `roxford`).
    """

    data: Path
    objects: Path
    places: Path


def make_world(folder: Path, size: WorldSize, seed: int) -> World:
    """Make what is not there yet, and tell what is.

    Args:
        folder: for everything; a stopped run goes on in it.
        size: how much.
        seed: of everything; the same size and seed give the same bytes.

    Raises:
        ValueError: the folder holds another world, or the size is out of range.
    """
    _claim(folder, size, seed)
    world = World(folder / "data", folder / "objects", folder / "places")
    arguments = ["--source", "synthetic", "--variety", "rich", "--num-scenes", str(size.num_scenes)]
    arguments += ["--views", str(size.views), "--resolution", str(size.image_size_px), "--seed", str(seed)]
    arguments += ["--shard-size", str(SHARD_SIZE), "--min-kept", "0", "--workers", str(size.workers)]
    arguments += ["--output", str(world.data)]
    print(f"$ spatialboost build {shlex.join(arguments)}", flush=True)
    build.main(arguments)
    made = make_objects(world.objects, size.objects_per_class, size.image_size_px, seed, size.workers)
    _tell(made, sum(size.objects_per_class.values()), "pictures per class", world.objects)
    made = make_places(world.places, size.num_places, size.image_size_px, seed, size.workers)
    _tell(made, size.num_places, "places", world.places)
    return world


def _tell(made: int, count: int, what: str, folder: Path) -> None:
    print(f"{folder}: {count} {what}" + (f", {made} pictures made now" if made else ", all there already"), flush=True)


def _claim(folder: Path, size: WorldSize, seed: int) -> None:
    """Write down which world the folder holds; refuse another one."""
    if size.views < 2:
        raise ValueError(f"views {size.views} is too few: pass 2 to 8, for some questions compare views.")
    if size.workers < 1:
        raise ValueError(f"workers {size.workers} is too few: pass at least 1.")
    wanted = {
        "num_scenes": size.num_scenes,
        "views": size.views,
        "image_size_px": size.image_size_px,
        "seed": seed,
        "variety": hashlib.sha256(repr(RICH).encode()).hexdigest()[:16],
    }
    record = folder / RECORD
    if record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        different = [
            f"{name} {found.get(name)}, not {value}" for name, value in wanted.items() if found.get(name) != value
        ]
        if different:
            raise ValueError(f"folder {str(folder)!r} holds a world of {', '.join(different)}: choose another folder.")
        return  # another run may be reading it
    folder.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps(wanted, indent=1) + "\n", encoding="utf-8")
