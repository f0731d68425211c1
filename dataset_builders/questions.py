"""Plans the 12 turns of a scene: what is asked of which points and objects, and the numbers that answer it.

Pure functions of (scene, seed): each turn draws from its own `random.Random`, so that one turn never shifts another.
1-5 pixel level, 6-9 object level, 10 scene level, 11-12 captions. Nothing undecidable is asked: a comparison whose
answer a few centimetres of noise would flip is replaced by another one. The wording is added by `dialogue.py`.
"""

import math
import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import combinations, islice, zip_longest

import numpy as np

from dataset_builders.facts import RecordFacts, Row, position_text
from dataset_builders.geometry import format_length, surface_distance, to_millimetre, valid_depth
from dataset_builders.mentions import coordinates
from dataset_builders.objects import MeasuredObject
from dataset_builders.pointing import point_at, point_on, rounded, steady_points
from dataset_builders.scene import Scene

RELATION_KINDS = ("left_right", "front_behind", "above_below", "taller_shorter", "bigger_smaller")
SINGLE_KINDS = ("longest_side", "object_depth", "object_range")
NEAREST_FRAME_M = 0.1  # a point this little in front of another camera has no useful depth there
MAX_PAIRS = 16


@dataclass(frozen=True)
class Ground:
    """Everything that turns are planned from."""

    scene: Scene
    facts: RecordFacts
    measured: dict[int, MeasuredObject]
    seed: int

    def rng(self, purpose: object) -> random.Random:
        """The random numbers of one purpose, the same wherever and whenever they are drawn."""
        return random.Random(f"{self.seed}:{self.scene.id}:{purpose}")

    def usable(self) -> list[int]:
        """Ids of the objects that may be asked about."""
        return [row["id"] for row in self.facts.objects.values() if row["usable"]]

    def pinned(self, point: Row, frame: int) -> Row:
        """A point with its position in the camera frame of `frame`."""
        return point | {"position_m": rounded(self.facts.position(point, frame))}


@dataclass(frozen=True)
class Turn:
    """One planned question. The fields up to `witness` are the columns of `schema.features()["turns"]`.

    `asked` is the sign that a comparison asks for ("is A left of B?" asks for +1), `truth` the sign that holds.
    `owners` maps a point's (view, x, y) to the object that it lies on.
    """

    index: int
    kind: str
    frame: int
    answer: str
    value: float | None = None
    margin: float | None = None
    points: tuple[Row, ...] = ()
    object_ids: tuple[int, ...] = ()
    witness: tuple[list[float], ...] = ()
    asked: int = 0
    truth: int = 0
    owners: dict[tuple[int, float, float], int] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """Two objects that a view shows clearly together, and how they relate there."""

    first: int
    second: int
    frame: int
    relations: dict[str, tuple[int, float]]  # kind -> (sign, difference), decidable ones only


def plan_turns(ground: Ground) -> list[Turn]:
    """All turns that can be asked of a scene, in forward order; at most 12."""
    pairs = object_pairs(ground)
    primary = max(pairs[:8], key=lambda pair: min(len(pair.relations), 2)) if pairs else None
    points, owners = candidate_points(ground, primary)
    turns = pixel_turns(ground, points)
    if primary is not None:
        turns += object_turns(ground, [primary] + [pair for pair in pairs if pair is not primary])
        turns.append(distance_turn(ground, primary))
    elif len(points) > 1:
        turns.append(point_distance_turn(ground, points))
    turns += caption_turns(ground, primary, points)
    return [replace(turn, owners=owners) for turn in turns]


def object_pairs(ground: Ground) -> list[Pair]:
    """Pairs of usable objects that share a view, in random order, with their decidable relations."""
    rng = ground.rng("pairs")
    pairs = list(combinations(ground.usable(), 2))
    rng.shuffle(pairs)
    found = []
    for first, second in pairs:
        if rng.random() < 0.5:
            first, second = second, first
        rows = ground.facts.objects
        shared = [view for view in rows[first]["visible_in"] if view in rows[second]["visible_in"]]
        if not shared:
            continue
        frame = rng.choice(shared)
        relations = {kind: ground.facts.relation(kind, first, second, frame) for kind in RELATION_KINDS}
        found.append(Pair(first, second, frame, {kind: both for kind, both in relations.items() if both[0]}))
        if len(found) == MAX_PAIRS:
            break
    return found


def candidate_points(ground: Ground, pair: Pair | None) -> tuple[list[Row], dict[tuple[int, float, float], int]]:
    """The points that pixel turns speak of, those on the primary pair first, and which object owns which."""
    rng, scene = ground.rng("points"), ground.scene
    found: list[tuple[Row, int | None]] = []
    if pair is not None:
        others = [name for name in ground.usable() if name not in (pair.first, pair.second)]
        found += [(anchor(ground, name), name) for name in (pair.first, pair.second)]
        found += [
            (point_on(scene, ground.measured[name].best, rng), name)
            for name in rng.sample(others, min(2, len(others)))
        ]
    views = list(range(len(scene.views)))
    rng.shuffle(views)
    loose = [steady_points(scene, view, rng, 6 if len(views) == 1 else 2) for view in views[:4]]
    found += [(point, None) for together in zip_longest(*loose) for point in together if point is not None]
    if pair is not None:
        found += [(point_on(scene, ground.measured[name].best, rng), name) for name in (pair.first, pair.second)]
    points: dict[str, Row] = {}
    owners = {}
    for point, owner in found:
        text = coordinates(point, 1)
        if text not in points:
            points[text] = point
            if owner is not None:
                owners[point["view"], point["x"], point["y"]] = owner
    return list(points.values()), owners


def anchor(ground: Ground, name: int) -> Row:
    """The point that an object's row names, with the depth there."""
    row = ground.facts.objects[name]
    point = point_at(ground.scene.views[row["view"]], row["view"], *ground.facts.pixel(row))
    if point is None:
        raise ValueError(f"scene {ground.scene.id!r}: object {name} is marked where there is no depth")
    return point


def pixel_turns(ground: Ground, points: list[Row]) -> list[Turn]:
    """Turns 1-5: depth, position, order, difference, and a further depth; fewer where points are few."""
    if len(points) < 3:
        return [_point_depth(ground, index, point) for index, point in enumerate(points, start=1)]
    rng = ground.rng("pixel")
    first, second, third = points[:3]
    apart = list(islice(_decidable_points(ground, points, rng), 12))
    main = [one for one in apart if one[0] in (first, second) or one[1] in (first, second)]
    order = _closer_point(ground, *rng.choice(main or apart)) if apart else _point_depth(ground, 3, points[-1])
    both = list(_decidable_points(ground, [first, second], rng))
    difference = (both or main or apart or [(first, second, first["view"])])[0]
    return [
        _point_depth(ground, 1, first),
        _point_position(ground, second, rng),
        order,
        _depth_difference(ground, *difference),
        _depth_across_views(ground, points, rng) or _point_depth(ground, 5, third),
    ]


def _decidable_points(ground: Ground, points: list[Row], rng: random.Random) -> Iterator[tuple[Row, Row, int]]:
    """Pairs of points with a frame in which one is nearer beyond doubt, in random order."""
    pairs = list(combinations(points, 2))
    rng.shuffle(pairs)
    for first, second in pairs:
        if rng.random() < 0.5:
            first, second = second, first
        pinned = [ground.pinned(point, first["view"]) for point in (first, second)]
        if pinned[1]["position_m"][2] > NEAREST_FRAME_M and ground.facts.closer(*pinned)[0]:
            yield first, second, first["view"]


def _point_depth(ground: Ground, index: int, point: Row) -> Turn:
    pinned, value = ground.pinned(point, point["view"]), point["depth_m"]
    return Turn(index, "point_depth", point["view"], format_length(value), value=value, points=(pinned,))


def _point_position(ground: Ground, point: Row, rng: random.Random) -> Turn:
    """Turn 2, in the frame of another view where there is one that has the point ahead."""
    frames = [view for view in range(len(ground.scene.views)) if view != point["view"]]
    frames = [view for view in frames if ground.facts.position(point, view)[2] > NEAREST_FRAME_M]
    frame = rng.choice(frames) if frames else point["view"]
    pinned = ground.pinned(point, frame)
    return Turn(2, "point_position", frame, position_text(pinned["position_m"]), points=(pinned,))


def _closer_point(ground: Ground, first: Row, second: Row, frame: int) -> Turn:
    pinned = ground.pinned(first, frame), ground.pinned(second, frame)
    sign, difference = ground.facts.closer(*pinned)
    answer = coordinates(pinned[0 if sign > 0 else 1], len(ground.scene.views))
    return Turn(3, "closer_point", frame, answer, points=pinned, margin=abs(difference), truth=sign)


def _depth_difference(ground: Ground, first: Row, second: Row, frame: int) -> Turn:
    pinned = ground.pinned(first, frame), ground.pinned(second, frame)
    value = to_millimetre(abs(ground.facts.closer(*pinned)[1]))
    return Turn(4, "depth_difference", frame, format_length(value), value=value, points=pinned)


def _depth_across_views(ground: Ground, points: list[Row], rng: random.Random) -> Turn | None:
    """Turn 5 of a multi-view scene: the depth for one camera of a point shown in another image, seen by both."""
    options = [(point, view) for point in points for view in range(len(ground.scene.views)) if view != point["view"]]
    rng.shuffle(options)
    for point, frame in options:
        pinned = ground.pinned(point, frame)
        if _is_seen(ground.scene, pinned["position_m"], frame):
            value = pinned["position_m"][2]
            return Turn(5, "depth_across_views", frame, format_length(value), value=value, points=(pinned,))
    return None


def _is_seen(scene: Scene, position_m: list[float], frame: int) -> bool:
    """Whether a point in the camera frame of a view falls on a reading of that view that agrees with it."""
    view = scene.views[frame]
    x, y, z = position_m
    if z < NEAREST_FRAME_M:
        return False
    u = round(view.intrinsics.fx * x / z + view.intrinsics.cx)
    v = round(view.intrinsics.fy * y / z + view.intrinsics.cy)
    if not (0 <= v < view.depth_m.shape[0] and 0 <= u < view.depth_m.shape[1]):
        return False
    depth_m = view.depth_m[v, u]
    return bool(valid_depth(depth_m)) and abs(depth_m - z) < max(0.02, 3 * scene.depth_noise) * z


def object_turns(ground: Ground, pairs: list[Pair]) -> list[Turn]:
    """Turns 6-9: relations of object pairs (the primary pair first), then sizes and depths of single objects."""
    rng = ground.rng("objects")
    height, size = ["above_below", "taller_shorter"], ["bigger_smaller", "longest_side"]
    rng.shuffle(height)
    rng.shuffle(size)
    wishes = [["left_right"], ["front_behind"], height, size]
    used: set[tuple[str, frozenset[int]]] = set()
    turns: list[Turn] = []
    for index, wish in enumerate(wishes, start=6):
        later = [kind for kind in (*RELATION_KINDS, *SINGLE_KINDS) if kind not in wish]
        turn = _first_unused(ground, index, [*wish, *later], pairs, used)
        if turn is not None:
            used.add((turn.kind, frozenset(turn.object_ids)))
            turns.append(turn)
    return turns


def _first_unused(
    ground: Ground, index: int, kinds: Iterable[str], pairs: list[Pair], used: set[tuple[str, frozenset[int]]]
) -> Turn | None:
    """The first turn, by kind and then by pair, that can be asked and has not been."""
    for kind in kinds:
        for pair in pairs:
            if kind in RELATION_KINDS:
                if kind in pair.relations and (kind, frozenset((pair.first, pair.second))) not in used:
                    return _relation(ground, index, kind, pair)
                continue
            for name in (pair.first, pair.second):
                row = ground.facts.objects[name]
                complete = not row["truncated"] and not row["occluded"]
                if (kind, frozenset((name,))) not in used and (complete or kind != "longest_side"):
                    return _single(ground, index, kind, row, pair.frame)
    return None


def _relation(ground: Ground, index: int, kind: str, pair: Pair) -> Turn:
    """A yes/no question; the seed decides whether it asks for what holds or for the opposite."""
    sign, difference = pair.relations[kind]
    asked = ground.rng(f"{index} direction").choice((1, -1))
    ids = (pair.first, pair.second)
    answer = "yes" if asked == sign else "no"
    return Turn(index, kind, pair.frame, answer, object_ids=ids, margin=abs(difference), asked=asked, truth=sign)


def _single(ground: Ground, index: int, kind: str, row: Row, frame: int) -> Turn:
    """A length of one object: in the view that sees it best, but its range from the camera of `frame`."""
    if kind == "object_range":
        value = float(np.linalg.norm(ground.facts.box(row, frame).centre))
        return Turn(index, kind, frame, format_length(value), value=value, object_ids=(row["id"],))
    value = row["dimensions"][0] if kind == "longest_side" else row["depth_m"]
    return Turn(index, kind, row["view"], format_length(value), value=value, object_ids=(row["id"],))


def distance_turn(ground: Ground, primary: Pair) -> Turn:
    """Turn 10: the distance between two objects; in half of the multi-view scenes two that no view shows together."""
    rng, rows = ground.rng(10), ground.facts.objects
    ids = (primary.first, primary.second)
    apart = [
        pair
        for pair in combinations(ground.usable(), 2)
        if not set(rows[pair[0]]["visible_in"]) & set(rows[pair[1]]["visible_in"])
    ]
    if apart and rng.random() < 0.5:
        ids = rng.choice(apart)
    _, witness = surface_distance(*(ground.measured[name].dense_points(ground.scene.views) for name in ids))
    ends = tuple(rounded(end) for end in witness)
    value = math.dist(*ends)
    return Turn(
        10, "surface_distance", primary.frame, format_length(value), value=value, object_ids=ids,
        witness=ends,
    )  # fmt: skip


def point_distance_turn(ground: Ground, points: list[Row]) -> Turn:
    """Turn 10 of a scene without two objects: the distance between two marked points, of two views if there are."""
    first = points[0]
    second = next((point for point in points[1:] if point["view"] != first["view"]), points[1])
    pinned = ground.pinned(first, first["view"]), ground.pinned(second, first["view"])
    value = math.dist(*(point["position_m"] for point in pinned))
    return Turn(10, "point_distance", first["view"], format_length(value), value=value, points=pinned)


def caption_turns(ground: Ground, primary: Pair | None, points: list[Row]) -> list[Turn]:
    """Turns 11 and 12: what there is, and how it is laid out."""
    frame = primary.frame if primary else 0
    views = len(ground.scene.views)
    present = tuple(ground.facts.objects)
    if present:
        first = Turn(11, "caption", frame, "", object_ids=present)
    elif views > 1:
        value = ground.facts.camera_distance(0, views - 1)
        first = Turn(11, "caption", 0, "", value=value)
    else:
        first = Turn(11, "caption", 0, "", points=tuple(ground.pinned(point, 0) for point in points[:2]))
    if primary is not None:
        second = Turn(12, "caption", frame, "", object_ids=(primary.first, primary.second))
    else:
        second = Turn(12, "caption", frame, "", points=tuple(ground.pinned(point, frame) for point in points[-2:]))
    return [first, second]
