"""Answers against exact truth, on rendered rooms: as they are, and degraded as real depth and masks are.

python -m benchmarks.truth --smallest         # half a minute on one core; the test runs this
python -m benchmarks.truth                    # 3 x 40 rooms, some minutes

Three inputs: `exact` depth that says so; `clean`, the same depth taken for a sensor's, so that it is cleaned and
judged as such; and `degraded` (see benchmarks/degrade.py). The truth comes from the solids that rooms are made of,
hidden parts included; only the distance between two things is, as the text says, that of their visible surfaces.
Relations, sizes and distances are counted for all things and pairs that may be asked about, not for those drawn only.
"""

import argparse
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations
from random import Random

import numpy as np
from scipy.spatial import ConvexHull, cKDTree
from tqdm import tqdm

from benchmarks.degrade import degrade
from dataset_builders.facts import RecordFacts, Row
from dataset_builders.geometry import format_length, surface_distance, transform, view_points
from dataset_builders.objects import measure_objects
from dataset_builders.phrasings import ANSWERS, QUESTIONS
from dataset_builders.pointing import object_rows
from dataset_builders.questions import RELATION_KINDS
from dataset_builders.scene import DropItem, Scene
from dataset_builders.schema import validate
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources.ray_caster import BOX_SIGNS, Primitive
from dataset_builders.sources.synthetic_rooms import furnish
from dataset_builders.spatial_reasoning import base_record, build_record

Array = np.ndarray
INPUTS = ("exact", "clean", "degraded")
CLEAN_NOISE = 0.01
AMBIGUOUS_PLACE = 0.02  # of the mean distance from the camera: a lesser difference in place is undecidable
AMBIGUOUS_SIZE = 0.05  # of the larger of two lengths: a lesser difference in length is undecidable
UPRIGHT = 0.9  # cosine between a side and the vertical, of a side that stands
FAR_OFF = 0.2  # relative error of a length
LENGTHS = ("longest side", "any side", "height", "distance")


@dataclass(frozen=True)
class TrueObject:
    """A thing as it is: centre (3,) of its upright box in world axes, sides on the ground (longest first), height."""

    centre: Array
    ground_m: Array
    height_m: float

    @property
    def dimensions(self) -> Array:
        """The three sides (3,), longest first."""
        return np.sort([*self.ground_m, self.height_m])[::-1]


@dataclass
class Tally:
    """What was counted for one kind of input."""

    relations: Counter[str] = field(default_factory=Counter)  # kind -> answered
    wrong: Counter[str] = field(default_factory=Counter)  # kind -> clear-cut, and answered wrong
    undecidable: Counter[str] = field(default_factory=Counter)  # kind -> answered although undecidable
    errors: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))  # signed, relative
    problems: list[str] = field(default_factory=list)
    records: int = 0
    templates: set[str] = field(default_factory=set)
    seconds: float = 0.0


def make_parser() -> argparse.ArgumentParser:
    """Arguments of the audit."""
    parser = argparse.ArgumentParser(prog="benchmarks.truth", description=__doc__.split("\n")[0])
    parser.add_argument("--rooms", type=int, default=40, help="rooms per seed")
    parser.add_argument("--seeds", type=int, default=3, help="seeds of rooms, noise and questions")
    parser.add_argument(
        "--records",
        type=int,
        default=6,
        help="dialogues per room that are read back, with one view and two, with and without things",
    )
    parser.add_argument("--smallest", action="store_true", help="2 rooms per seed, 2 dialogues each")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Audit and print."""
    arguments = make_parser().parse_args(argv)
    rooms, records = (2, 2) if arguments.smallest else (arguments.rooms, arguments.records)
    tallies = audit(rooms, range(arguments.seeds), records)
    print(report(tallies))
    return 0


def audit(rooms: int, seeds: range, records: int) -> dict[str, Tally]:
    """Everything that can be said of rendered rooms, against the truth.

    Args:
        rooms: per seed.
        seeds: of the rooms, of their degradation and of the questions.
        records: dialogues per room whose texts are checked.

    Returns:
        One tally per name in `INPUTS`.
    """
    tallies = {name: Tally() for name in INPUTS}
    for seed in seeds:
        source = open_source("synthetic", SourceOptions(seed=seed, num_scenes=rooms, views=2, image_size=(480, 640)))
        for item in tqdm(source.list_items(), desc=f"seed {seed}", disable=None):
            exact, truth = source.load(item), true_objects(item)
            for name, tally in tallies.items():
                scene = exact
                if name == "clean":
                    scene = replace(exact, depth_noise=CLEAN_NOISE)
                elif name == "degraded":
                    scene = degrade(exact, seed)
                count_statements(tally, first_view(scene), exact, truth)
                for number in range(records):
                    asked = scene if number % 2 else first_view(scene)
                    if number % 4 > 1:  # what is asked of points alone
                        asked = replace(asked, objects=())
                    count_record(tally, asked, seed=records * seed + number)
    return tallies


def first_view(scene: Scene) -> Scene:
    """The scene with its first view alone."""
    return replace(scene, views=scene.views[:1])


def true_objects(item: str) -> dict[int, TrueObject]:
    """The things of the synthetic room called `item`, by id, measured on their solids."""
    corners: dict[int, list[Array]] = defaultdict(list)
    for primitive in furnish(Random(item)).room.primitives:
        corners[primitive.instance].append(outer_points(primitive))
    return {name: measured_exactly(np.concatenate(points)) for name, points in corners.items()}


def outer_points(primitive: Primitive) -> Array:
    """Points (N, 3) in world axes of which the convex hull is, to a thousandth, that of a solid."""
    angles = np.linspace(0, 2 * np.pi, 96, endpoint=False)
    circle = np.stack([np.cos(angles), np.sin(angles), np.zeros(96)], axis=1)
    if primitive.shape == "box":
        unit = BOX_SIGNS.astype(np.float64)
    elif primitive.shape == "frustum":
        taper = (primitive.taper, primitive.taper, 1)
        unit = np.concatenate([circle - (0, 0, 1), circle * taper + (0, 0, 1)])
    else:
        polar = np.linspace(-np.pi / 2, np.pi / 2, 49)[:, None, None]
        unit = (circle * np.cos(polar) + (0, 0, 1) * np.sin(polar)).reshape(-1, 3)
    x, y, z = (unit * primitive.half_size_m).T
    cosine, sine = np.cos(primitive.yaw_rad), np.sin(primitive.yaw_rad)
    return np.stack([cosine * x - sine * y, sine * x + cosine * y, z], axis=1) + primitive.centre_m


def measured_exactly(points: Array) -> TrueObject:
    """The upright box of the least ground area around points (N, 3); one of its sides lies along the hull."""
    outline = points[ConvexHull(points[:, :2]).vertices, :2]
    edges = np.diff(outline, axis=0, append=outline[:1])
    best: tuple[float, Array, Array] | None = None
    for edge in edges / np.linalg.norm(edges, axis=1, keepdims=True):
        axes = np.array([edge, (-edge[1], edge[0])])
        spread = outline @ axes.T
        low, high = spread.min(axis=0), spread.max(axis=0)
        area = float(np.prod(high - low))
        if best is None or area < best[0]:
            best = area, high - low, (low + high) / 2 @ axes
    assert best is not None, "a solid has an outline"
    bottom, top = points[:, 2].min(), points[:, 2].max()
    return TrueObject(np.array([*best[2], (bottom + top) / 2]), np.sort(best[1])[::-1], float(top - bottom))


def true_difference(kind: str, first: TrueObject, second: TrueObject, to_view: Array) -> tuple[float, float]:
    """How much `first` is more to the left, nearer, higher up, taller or bigger, and below what that is undecidable.

    Args:
        kind: of `RELATION_KINDS`.
        first: a thing.
        second: another one.
        to_view: (4, 4), world axes to the canonical frame of the view that is asked about.
    """
    centres = [transform(one.centre, to_view) for one in (first, second)]
    ranges = [float(np.linalg.norm(centre)) for centre in centres]
    place = AMBIGUOUS_PLACE * sum(ranges) / 2
    if kind == "left_right":
        return centres[1][0] - centres[0][0], place
    if kind == "front_behind":
        return ranges[1] - ranges[0], place
    if kind == "above_below":
        return centres[0][1] - centres[1][1], place
    if kind == "taller_shorter":
        sizes = first.height_m, second.height_m
    else:  # the side of a cube of the same volume
        sizes = float(first.dimensions.prod() ** (1 / 3)), float(second.dimensions.prod() ** (1 / 3))
    return sizes[0] - sizes[1], AMBIGUOUS_SIZE * max(sizes)


def count_statements(tally: Tally, scene: Scene, exact: Scene, truth: dict[int, TrueObject]) -> None:
    """Every relation that may be asked of a scene, and every length that may be stated or asked."""
    start = time.perf_counter()
    measured = measure_objects(scene)
    rows = object_rows(scene, measured, seed=0)
    facts = RecordFacts(base_record(scene, 0, "forward") | {"objects": rows})
    tally.seconds += time.perf_counter() - start
    usable = [row["id"] for row in rows if row["usable"]]
    told_heights = set()
    for first, second in combinations(usable, 2):
        for kind in RELATION_KINDS:
            sign, _ = facts.relation(kind, first, second, 0)
            difference, margin = true_difference(kind, truth[first], truth[second], facts.canonical[0])
            tally.relations[kind] += sign != 0
            tally.undecidable[kind] += sign != 0 and abs(difference) < margin
            tally.wrong[kind] += abs(difference) >= margin and sign * difference < 0
            if kind == "taller_shorter" and sign:
                told_heights |= {first, second}
    for name in told_heights:
        told, true = facts.objects[name]["size"][1], truth[name].height_m
        tally.errors["height"].append(told / true - 1)
    for name in usable:
        row = facts.objects[name]
        if not (row["truncated"] or row["occluded"]):
            errors = list(side_errors(row, facts.dimensions_text(row), truth[name]))
            tally.errors["longest side"].append(row["dimensions"][0] / truth[name].dimensions[0] - 1)
            tally.errors["any side"] += errors
    dense = {one.item.id: one.dense_points(scene.views) for one in measured}
    visible = visible_surfaces(exact, usable)
    for first, second in combinations(usable, 2):
        told, _ = surface_distance(dense[first], dense[second])
        true = float(visible[first].query(visible[second].data)[0].min())
        tally.errors["distance"].append(told / true - 1)


def side_errors(row: Row, text: str, truth: TrueObject) -> Iterator[float]:
    """Relative error of each side that a text tells: an upright one against the height, others against the plan."""
    upright = np.abs(np.array(row["box_rotation"]).reshape(3, 3)[:, 1]) > UPRIGHT
    ground, told = iter(truth.ground_m), text.split(" by ")
    for place, (side, stands) in enumerate(zip(row["dimensions"], upright)):
        true = truth.dimensions[place]  # of a box that leans
        if upright.sum() == 1:
            true = truth.height_m if stands else next(ground)
        if told and told[0] == format_length(side):
            told.pop(0)
            yield side / true - 1


def visible_surfaces(exact: Scene, names: list[int]) -> dict[int, cKDTree]:
    """All points of the first view that lie on each thing, exact."""
    view = exact.views[0]
    assert view.instances is not None, "a rendered view has masks"
    return {name: cKDTree(view_points(view, *np.nonzero(view.instances == name)[::-1])) for name in names}


def count_record(tally: Tally, scene: Scene, seed: int) -> None:
    """Read the texts of a dialogue back, and note which templates it uses."""
    try:
        record = build_record(scene, seed=seed, allow_partial=True)
    except DropItem:
        return
    tally.records += 1
    tally.problems += [f"{scene.id} seed {seed}: {problem}" for problem in validate(record)]
    for turn in record["turns"]:
        question, question_number, answer, answer_number = turn["template"].split(".")
        tally.templates |= {f"question {question}.{question_number}", f"answer {answer}.{answer_number}"}


def report(tallies: dict[str, Tally]) -> str:
    """Two tables in Markdown, and what the reading found."""
    lines = [
        "| input | relations answered | clear-cut wrong | undecidable asked | dialogues | contradictions | templates |"
    ]
    lines += ["|---|---|---|---|---|---|---|"]
    known = all_templates()
    for name, tally in tallies.items():
        asked = tally.relations.total()
        lines.append(
            f"| {name} | {asked} | {share(tally.wrong.total(), asked)} | {share(tally.undecidable.total(), asked)} "
            f"| {tally.records} | {len(tally.problems)} | {len(tally.templates & known)} of {len(known)} |"
        )
    lines += ["", "| input | length | stated | median error | > 20 % off | bias |", "|---|---|---|---|---|---|"]
    for name, tally in tallies.items():
        for length in LENGTHS:
            errors = np.array(tally.errors[length])
            lines.append(
                f"| {name} | {length} | {len(errors)} | {np.median(np.abs(errors)):.1%} "
                f"| {np.mean(np.abs(errors) > FAR_OFF):.1%} | {np.median(errors):+.1%} |"
            )
    seen = set().union(*(tally.templates for tally in tallies.values()))
    lines += ["", f"Not seen: {', '.join(sorted(known - seen)) or 'no template'}."]
    lines += [f"Contradiction: {problem}" for tally in tallies.values() for problem in tally.problems]
    return "\n".join(lines)


def all_templates() -> set[str]:
    """Names of all templates of dialogues, as `count_record` notes them."""
    lists = {"question": QUESTIONS, "answer": ANSWERS}
    return {
        f"{what} {name}.{k}" for what, one in lists.items() for name, some in one.items() for k in range(len(some))
    }


def share(part: int, whole: int) -> str:
    """A share in percent."""
    return f"{part / max(whole, 1):.2%}"


if __name__ == "__main__":
    raise SystemExit(main())
