"""Puts planned turns into words: templates filled with numbers, and the rationale of the turns that came before."""

import random
from collections import Counter
from dataclasses import dataclass

from dataset_builders.facts import Row, position_text, sideways
from dataset_builders.geometry import format_length, is_level
from dataset_builders.grammar import COUNT_WORDS, be, counted, listed, sentences, there_be
from dataset_builders.mentions import ANCHORED_KINDS, coordinates, mention_in_turn
from dataset_builders.phrasings import ANSWERS, EVIDENCE, QUESTIONS, RECALL, RELATIONS
from dataset_builders.questions import RELATION_KINDS, Ground, Turn

MAX_NAMES = 6


@dataclass(frozen=True)
class Spoken:
    """A turn in words, and its `template`: "list of questions.number.list of answers.number"."""

    turn: Turn
    question: str
    answer: str
    template: str


def speak(ground: Ground, turn: Turn, earlier: list[Turn]) -> Spoken:
    """Word one turn; the answer may recall any of the `earlier` turns, and no other."""
    rng = ground.rng(turn.index)
    questions, answers, slots = _wording(ground, turn, earlier, rng)
    numbers = rng.randrange(len(QUESTIONS[questions])), rng.randrange(len(ANSWERS[answers]))
    question = QUESTIONS[questions][numbers[0]].format_map(slots)
    answer = ANSWERS[answers][numbers[1]].format_map(slots)
    template = f"{questions}.{numbers[0]}.{answers}.{numbers[1]}"
    return Spoken(turn, sentences(question), sentences(answer), template)


def _wording(ground: Ground, turn: Turn, earlier: list[Turn], rng: random.Random) -> tuple[str, str, dict[str, str]]:
    """The lists of templates for a turn's question and answer, and what fills their slots."""
    camera = _camera(ground, turn.frame)
    slots = {"camera": camera, "value": turn.answer, "cited": "", "evidence": ""}
    slots["seen"] = f" for {camera}" if len(ground.scene.views) > 1 else ""
    slots |= {name: _point(ground, point) for name, point in zip("pq", turn.points)}
    calls = _calls(ground, turn, earlier)
    slots |= {name: calls[ids] for name, ids in zip("ab", turn.object_ids)}
    if turn.kind == "caption":
        return _caption_wording(ground, turn, calls, slots)
    if turn.kind in ("closer_point", "depth_difference"):
        slots |= _depth_evidence(ground, turn, earlier, rng)
    elif turn.kind == "point_distance":
        slots["evidence"] = " and ".join(_point_fact(ground, "position", point, turn.frame) for point in turn.points)
    elif turn.object_ids:
        slots["is"] = _be(ground, turn.object_ids[0])
        slots["evidence"] = _object_evidence(ground, turn, slots)
        slots["cited"] = _recalled(ground, turn, calls, earlier, rng)
    if turn.kind == "closer_point":
        near, far = ("p", "q") if turn.truth > 0 else ("q", "p")
        slots |= {"near": slots[near], "far": slots[far], "phrase": _phrase(ground, turn.kind, 1, turn.frame, rng)}
    if turn.kind not in RELATION_KINDS:
        return turn.kind, turn.kind, slots
    for name, sign in (("phrase", turn.asked), ("opposite", -turn.asked)):
        slots[name] = _phrase(ground, turn.kind, sign, turn.frame, rng)
    return "nearer_farther" if "camera" in slots["phrase"] else turn.kind, turn.answer, slots


def _camera(ground: Ground, view: int) -> str:
    return "the camera" if len(ground.scene.views) == 1 else f"the camera of image {view + 1}"


def _point(ground: Ground, point: Row) -> str:
    return f"the point {coordinates(point, len(ground.scene.views))}"


def _calls(ground: Ground, turn: Turn, earlier: list[Turn]) -> dict[int, str]:
    """What a turn calls each of its objects; not by the very relations that it asks for or recalls."""
    kinds = {one.kind for one in (turn, *(earlier if turn.index == 10 else ())) if one.object_ids}
    kinds |= set(ANCHORED_KINDS) if turn.kind == "caption" else set()
    ids, facts = turn.object_ids, ground.facts
    return {one: mention_in_turn(facts, facts.objects[one], kinds, set(ids) - {one}) for one in ids}


def _be(ground: Ground, object_id: int) -> str:
    return be(ground.facts.objects[object_id]["name"])


def _phrase(ground: Ground, kind: str, sign: int, frame: int, rng: random.Random) -> str:
    """Words for a relation; a camera that looks down, or may, has nothing "in front of" or "behind"."""
    phrases = RELATIONS[kind][0 if sign > 0 else 1]
    if kind == "front_behind" and not is_level(ground.facts.poses[frame], ground.facts.up_world):
        phrases = phrases[1:]
    return rng.choice(phrases).format(camera=_camera(ground, frame))


def _point_fact(ground: Ground, name: str, point: Row, frame: int, owner: str = "") -> str:
    """What an earlier or the present turn knows of a point, in words."""
    if name == "depth" and point["view"] != frame:
        name = "depth_across_views"
    value = position_text(point["position_m"]) if name == "position" else format_length(point["position_m"][2])
    words = _point(ground, point)
    if owner and coordinates(point, 1) not in owner:
        words += f" on {owner}"
    return EVIDENCE[name].format(p=words, p_value=value, camera=_camera(ground, frame))


def _key(point: Row) -> tuple[int, float, float]:
    return point["view"], point["x"], point["y"]


def _known(earlier: list[Turn], frame: int) -> dict[tuple[int, float, float], tuple[str, Row]]:
    """Points whose depth or position in a frame an earlier turn gave; a position, which says more, wins."""
    known: dict[tuple[int, float, float], tuple[str, Row]] = {}
    for turn in earlier:
        for point in turn.points if turn.frame == frame else ():
            if turn.kind == "point_position":
                known[_key(point)] = ("position", point)
            elif turn.kind in ("point_depth", "depth_across_views", "closer_point", "depth_difference"):
                known.setdefault(_key(point), ("depth", point))
    return known


def _depth_evidence(ground: Ground, turn: Turn, earlier: list[Turn], rng: random.Random) -> dict[str, str]:
    """The depths of two points, those that were found before recalled as such."""
    known = _known(earlier, turn.frame)
    facts = {_key(point): _point_fact(ground, "depth", point, turn.frame) for point in turn.points}
    old = [text for key, text in facts.items() if key in known]
    new = [text for key, text in facts.items() if key not in known]
    recall = rng.choice(RECALL)
    if not new:
        return {"evidence": recall + " and ".join(old)}
    return {"cited": f"{recall}{old[0]}. " if old else "", "evidence": " and ".join(new)}


def _object_evidence(ground: Ground, turn: Turn, slots: dict[str, str]) -> str:
    """The numbers that decide an object- or scene-level turn."""
    facts, kind = ground.facts, turn.kind
    if kind in ("object_depth", "object_range"):
        return ""
    values = {}
    if kind == "surface_distance":
        values["a_value"] = format_length(facts.centre_distance(*turn.object_ids))
    for name, object_id in zip("ab", turn.object_ids if kind != "surface_distance" else ()):
        row = facts.objects[object_id]
        x, y, _ = centre = facts.placed(row, turn.frame).box.centre
        values[f"{name}_value"] = {
            "left_right": lambda x=x: sideways(x),
            "front_behind": lambda centre=centre: format_length(float((centre @ centre) ** 0.5)),
            "above_below": lambda y=y: f"{format_length(y)} {'lower' if y < 0 else 'higher'}",
            "taller_shorter": lambda row=row: format_length(row["size"][1]),
            "bigger_smaller": lambda row=row: facts.dimensions_text(row),
            "longest_side": lambda row=row: facts.dimensions_text(row),
        }[kind]()
    return EVIDENCE[kind].format(**slots, **values)


def _recalled(ground: Ground, turn: Turn, calls: dict[int, str], earlier: list[Turn], rng: random.Random) -> str:
    """Sentences that recall what earlier turns found about the objects of this one."""
    parts = []
    known = _known(earlier, turn.frame).items()
    name = "position" if turn.kind in ("left_right", "above_below") else "depth"
    for object_id in turn.object_ids:
        on_it = [both for key, both in known if turn.owners.get(key) == object_id]
        told = [point for what, point in on_it if what in (name, "position")]  # a position holds the depth, too
        parts += [_point_fact(ground, name, point, turn.frame, calls[object_id]) for point in told[:1]]
    if turn.index == 10:
        for one in earlier:
            if one.kind in RELATION_KINDS and set(one.object_ids) == set(turn.object_ids):
                parts.append(_claim(ground, one.kind, one.truth, one, calls, rng))
    return f"{rng.choice(RECALL)}{listed(parts)}. " if parts else ""


def _claim(ground: Ground, kind: str, sign: int, turn: Turn, calls: dict[int, str], rng: random.Random) -> str:
    """A relation between the two objects of a turn, as a clause."""
    first, second = (calls[name] for name in turn.object_ids)
    return f"{first} {_be(ground, turn.object_ids[0])} {_phrase(ground, kind, sign, turn.frame, rng)} {second}"


def _caption_wording(
    ground: Ground, turn: Turn, calls: dict[int, str], slots: dict[str, str]
) -> tuple[str, str, dict[str, str]]:
    """Captions composed from the facts: 11 lists what there is, 12 says how it is laid out."""
    rng, views = ground.rng(f"{turn.index} facts"), len(ground.scene.views)
    slots["shows"] = "the image shows" if views == 1 else f"the {_number(views)} images show"
    questions = "caption" if turn.index == 11 else "layout_caption"
    if turn.points or (turn.index == 12 and not turn.object_ids):
        name = "depth" if turn.index == 11 else "position"
        slots["evidence"] = " and ".join(_point_fact(ground, name, point, turn.frame) for point in turn.points)
        return "layout_caption", "points_caption", slots
    if turn.index == 12:
        slots["evidence"] = _layout(ground, turn, calls, rng)
        return questions, "layout_caption", slots
    if not turn.object_ids:
        slots |= {"value": format_length(turn.value or 0.0), "last": str(views)}
        return questions, "views_caption", slots
    rows = [ground.facts.objects[name] for name in turn.object_ids]
    things = _names([row["name"] for row in rows if not row["is_support"]])
    supports = _names([row["name"] for row in rows if row["is_support"]])
    slots["place"] = f", together with {listed(supports)}" if supports and things else ""
    things = things or supports
    slots["there_is"] = there_be(things)
    slots["things"] = listed(things)
    return questions, "caption", slots


def _number(count: int) -> str:
    return COUNT_WORDS[count] if count < len(COUNT_WORDS) else str(count)


def _names(names: list[str]) -> list[str]:
    """Counted nouns, most frequent first, the rest of a long list as "other things"."""
    counts = Counter(name.lower() for name in names)
    nouns = [counted(name, count) for name, count in counts.most_common(MAX_NAMES)]
    return nouns + (["other things"] if len(counts) > MAX_NAMES else [])


def _layout(ground: Ground, turn: Turn, calls: dict[int, str], rng: random.Random) -> str:
    """What holds between the two main objects in one view, and how deep they are."""
    claims = []
    for kind in RELATION_KINDS[:3]:
        sign, _ = ground.facts.relation(kind, turn.object_ids[0], turn.object_ids[1], turn.frame)
        if sign:
            claims.append(_claim(ground, kind, sign, turn, calls, rng))
    rows = [ground.facts.objects[name] for name in turn.object_ids]
    if all(row["view"] == turn.frame for row in rows) or not claims:
        slots = {name: calls[row["id"]] for name, row in zip("ab", rows)}
        values = {f"{name}_value": format_length(row["depth_m"]) for name, row in zip("ab", rows)}
        depths = EVIDENCE["object_depth"].format(**slots, **values)
    else:
        depths = ""
    where = "" if len(ground.scene.views) == 1 else f"in image {turn.frame + 1}, "
    relations = where + listed(claims) if claims else ""
    return ". ".join(part for part in (relations, depths) if part)
