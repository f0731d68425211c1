"""What to call an object so that nobody can mistake it: its name, or what sets it apart, or a point on it.

"The box" where no other thing may be called a box; else, in a single view, a relation that holds of this box alone
beyond doubt ("the box that is to the left of the sofa", "the rightmost box"); else "the box at (0.310, 0.522)".
"""

import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from dataset_builders.facts import RecordFacts, Row
from dataset_builders.geometry import is_level
from dataset_builders.grammar import be
from dataset_builders.phrasings import RELATIONS, SUPERLATIVES
from dataset_builders.scene import Scene

ANCHORED_KINDS = ("left_right", "front_behind", "above_below")


@dataclass(frozen=True)
class Stated:
    """The relation that a mention states, towards `anchor` (an id), or towards every other thing of the name."""

    kind: str
    sign: int
    anchor: int | None


def coordinates(point: Row, num_views: int) -> str:
    """How the text writes a point: "(0.310, 0.522)", with its image where there are several."""
    where = f" in image {point['view'] + 1}" if num_views > 1 else ""
    return f"({point['x']:.3f}, {point['y']:.3f}){where}"


def mention_by_point(row: Row, num_views: int) -> str:
    """An object named by a point on it, which is never ambiguous."""
    return f"the {row['name']} at {coordinates(row, num_views)}"


def may_be_called(name: str, other: str) -> bool:
    """Whether the name of one thing also fits another: a "red box" is a box, a box need not be a red one."""
    name, other = (" ".join(one.lower().split()) for one in (name, other))
    return other == name or other.endswith(f" {name}")


def namesakes(facts: RecordFacts, row: Row) -> list[Row]:
    """The other objects of a record that the name of one fits, too."""
    return [
        one for one in facts.objects.values() if one["id"] != row["id"] and may_be_called(row["name"], one["name"])
    ]


def stated(facts: RecordFacts, row: Row) -> Stated | None:
    """The relation that an object's mention states; None for a plain name or a point."""
    if row["mention"] == f"the {row['name']}" or row["mention"] == mention_by_point(row, len(facts.cameras)):
        return None
    return next((what for text, what in _forms(facts, row) if text == row["mention"]), None)


def holds_alone(facts: RecordFacts, row: Row, what: Stated) -> bool:
    """Whether a relation is true of an object and, beyond doubt, of no other that its name fits."""
    others = namesakes(facts, row)
    if row["is_support"] or any(one["is_support"] for one in others):
        return False
    if what.anchor is None:
        return all(facts.relation(what.kind, row["id"], one["id"], 0)[0] == what.sign for one in others)
    if what.kind == "front_behind" and not is_level(facts.poses[0], facts.up_world):
        return False  # a camera that looks down, or may, has nothing "in front of" or "behind"
    if facts.relation(what.kind, row["id"], what.anchor, 0)[0] != what.sign:
        return False
    return all(facts.relation(what.kind, one["id"], what.anchor, 0)[0] == -what.sign for one in others)


def _forms(facts: RecordFacts, row: Row) -> Iterator[tuple[str, Stated]]:
    """Every relational mention that could be made of an object of a single view, true or not."""
    if len(facts.cameras) > 1:
        return
    verb = be(row["name"])
    for kind, forms in SUPERLATIVES.items():
        for form, sign in zip(forms, (1, -1)):
            yield form.format(name=row["name"], **{"is": verb}), Stated(kind, sign, None)
    for anchor in facts.objects.values():
        if not anchor["usable"] or may_be_called(row["name"], anchor["name"]) or namesakes(facts, anchor):
            continue
        for kind in ANCHORED_KINDS:
            for phrases, sign in zip(RELATIONS[kind], (1, -1)):
                text = f"the {row['name']} that {verb} {phrases[0]} the {anchor['name']}"
                yield text, Stated(kind, sign, anchor["id"])


def name_objects(scene: Scene, rows: list[Row], seed: int) -> list[Row]:
    """Rows of objects with their final `mention`, which must be that of a point where a name fits two of them.

    In a single view, the point gives way to a relation where one holds; not for an object whose name fits another
    that the view shows but that is too small to be measured, and could be meant as well.
    """
    crowded = {row["name"] for row in rows if row["usable"] and row["mention"] != f"the {row['name']}"}
    measured = {row["id"] for row in rows}
    unmeasured = [one.name for one in scene.objects if crowded and one.id not in measured and shown(scene, one.id)]
    crowded = {name for name in crowded if not any(may_be_called(name, one) for one in unmeasured)}
    facts = RecordFacts(
        {
            "cameras": [{"camera_to_world": view.camera_to_world.ravel().tolist()} for view in scene.views],
            "up_world": scene.up_world,
            "depth_noise": scene.depth_noise,
            "objects": rows,
        }
    )
    named = []
    for row in rows:
        related = row["usable"] and row["name"] in crowded
        options = [text for text, what in _forms(facts, row) if holds_alone(facts, row, what)] if related else []
        rng = random.Random(f"{seed}:{scene.id}:mention {row['id']}")
        named.append(row | {"mention": rng.choice(options)} if options else row)
    return named


def shown(scene: Scene, object_id: int) -> bool:
    """Whether any pixel of any view shows an object."""
    return any(view.instances is not None and bool((view.instances == object_id).any()) for view in scene.views)


def mention_in_turn(facts: RecordFacts, row: Row, kinds: Collection[str], others: Collection[int]) -> str:
    """What a turn calls an object: never by a relation of the kinds that it speaks of, nor by one to its other object.

    "Is the box that is to the left of the sofa to the left of the sofa?" would give its answer away.
    """
    what = stated(facts, row)
    if what is None or not (what.kind in kinds or what.anchor in others):
        return row["mention"]
    return mention_by_point(row, len(facts.cameras))
