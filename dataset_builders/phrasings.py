"""The wording of the dialogue as data: every template, every relation phrase and the little grammar they need.

Two rules let `verification.py` read the texts back: a number stands after the point or object that it describes, and
a relation is written `<one> is <phrase> <other>` (in a question also `is <one> <phrase> <other>`).

Slots: `{p}` `{q}` points, `{a}` `{b}` objects, `{is}` "is" or "are" after `{a}`, `{camera}`, `{seen}` " for the camera
of image 2" where there are several cameras, `{phrase}` and `{opposite}` of a relation, `{evidence}` the geometry that
decides, `{cited}` sentences that recall earlier turns, `{value}` the answer as a number.
"""

import re

PREAMBLE = (
    "Image coordinates are written (x, y), from (0, 0) in the top left corner to (1, 1) in the bottom right corner. "
    "Depth is measured along the viewing direction of the camera."
)

# kind -> phrases that hold when `geometry.compare` says +1, and when it says -1
RELATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "left_right": (("to the left of", "on the left side of"), ("to the right of", "on the right side of")),
    "front_behind": (("in front of", "closer to {camera} than"), ("behind", "farther from {camera} than")),
    "above_below": (("above", "higher up than"), ("below", "lower down than")),
    "taller_shorter": (("taller than",), ("shorter than",)),
    "bigger_smaller": (("bigger than", "larger than"), ("smaller than",)),
    "closer_point": (("closer to {camera} than",), ("farther from {camera} than",)),
}

_VIEWPOINT_QUESTIONS = (
    "From the viewpoint of {camera}, {is} {a} {phrase} {b}?",
    "As seen by {camera}, {is} {a} {phrase} {b}?",
    "{is} {a} {phrase} {b} when viewed from {camera}?",
    "Looking out from {camera}, would you say that {a} {is} {phrase} {b}?",
    "Is it true that, seen from {camera}, {a} {is} {phrase} {b}?",
)
_PLAIN_QUESTIONS = (
    "{is} {a} {phrase} {b}?",
    "Would you say that {a} {is} {phrase} {b}?",
    "Is it true that {a} {is} {phrase} {b}?",
    "Looking at the whole scene, {is} {a} {phrase} {b}?",
)
_YES_ANSWERS = (
    "Yes, {a} {is} {phrase} {b}. {cited}{evidence}.",
    "Yes. {cited}{evidence}, so {a} {is} {phrase} {b}.",
    "{cited}{evidence}, so yes, {a} {is} {phrase} {b}.",
    "{cited}{evidence}. Yes, {a} {is} {phrase} {b}.",
)
_NO_ANSWERS = (
    "No, {a} {is} {opposite} {b}. {cited}{evidence}.",
    "No. {cited}{evidence}, so {a} {is} not {phrase} {b}.",
    "{cited}{evidence}, so no, {a} {is} {opposite} {b}.",
    "{cited}{evidence}. No, it is the other way round: {a} {is} {opposite} {b}.",
)

QUESTIONS: dict[str, tuple[str, ...]] = {
    "point_depth": (
        "What is the depth at {p}?",
        "How deep is the scene at {p}?",
        "Give the depth value at {p}.",
        "How far away, along the viewing direction, is the surface at {p}?",
    ),
    "depth_across_views": (
        "What is the depth of {p} for {camera}?",
        "Seen from {camera}, how deep is {p}?",
        "Give the depth of {p} in the frame of {camera}.",
        "How far along the viewing direction of {camera} is {p}?",
    ),
    "point_position": (
        "Where is {p} in the frame of {camera}: how far right or left, down or up, and forward?",
        "What is the 3D position of {p} in the frame of {camera}?",
        "Give the 3D position of {p} relative to {camera}, along its right, down and forward axes.",
        "Relative to {camera} and its axes, where in space does {p} lie?",
    ),
    "closer_point": (
        "Which is closer to {camera}, {p} or {q}?",
        "Of {p} and {q}, which has the smaller depth{seen}?",
        "Compare the depths of {p} and {q}{seen}: which is the smaller one?",
        "Is it {p} or {q} that lies nearer to {camera}?",
    ),
    "depth_difference": (
        "What is the difference in depth between {p} and {q}{seen}?",
        "How much do the depths of {p} and {q} differ{seen}?",
        "By how much does the depth change from {p} to {q}{seen}?",
        "How far apart in depth are {p} and {q}{seen}?",
    ),
    "left_right": _VIEWPOINT_QUESTIONS,
    "front_behind": _VIEWPOINT_QUESTIONS,
    "nearer_farther": _PLAIN_QUESTIONS,  # front_behind, where the phrase names the camera
    "above_below": _PLAIN_QUESTIONS,
    "taller_shorter": _PLAIN_QUESTIONS,
    "bigger_smaller": _PLAIN_QUESTIONS,
    "longest_side": (
        "How long is the longest side of {a}?",
        "What is the length of {a} along the longest side?",
        "What is the longest side of {a}, in length?",
        "Give the length of the longest side of the 3D box around {a}.",
    ),
    "object_depth": (
        "At what depth {is} {a}{seen}?",
        "What is the median depth of {a}{seen}?",
        "How deep in the scene {is} {a}{seen}?",
        "How far along the viewing direction of {camera} {is} {a}?",
    ),
    "object_range": (
        "How far is the centre of {a} from {camera} in a straight line?",
        "What is the straight-line distance from {camera} to the centre of {a}?",
        "How long is the straight line from {camera} to the centre of the 3D box around {a}?",
        "Give the distance in space between {camera} and the centre of {a}.",
    ),
    "surface_distance": (
        "How far {is} {a} from {b}, measured between the nearest points of their visible surfaces?",
        "What is the shortest distance between the visible surfaces of {a} and {b}?",
        "From visible surface to visible surface, how large is the gap between {a} and {b}?",
        "Measured between their closest visible points, how far apart are {a} and {b}?",
    ),
    "point_distance": (
        "How far is {p} from {q} in space?",
        "What is the straight-line distance in space between {p} and {q}?",
        "How far apart are {p} and {q} in 3D?",
        "Give the 3D distance between {p} and {q}.",
    ),
    "caption": (
        "Describe the scene.",
        "What do you see?",
        "Give a short description of what is shown.",
        "Please write a caption for this scene.",
    ),
    "layout_caption": (
        "Summarise how the scene is laid out in space.",
        "Describe the spatial layout in a few words.",
        "How are things arranged in space here?",
        "Write a caption that says where things are.",
    ),
}

ANSWERS: dict[str, tuple[str, ...]] = {
    "point_depth": (
        "The depth at {p} is {value}.",
        "At {p} the depth is {value}.",
        "The surface at {p} is at a depth of {value}.",
        "{value}.",
    ),
    "depth_across_views": (
        "{cited}For {camera}, the depth of {p} is {value}.",
        "{cited}Seen from {camera}, {p} is at a depth of {value}.",
        "{cited}The depth of {p} in the frame of {camera} is {value}.",
        "{cited}In the frame of {camera}, {p} has a depth of {value}.",
    ),
    "point_position": (
        "In the frame of {camera}, {p} is {value}.",
        "{p} is {value} of {camera}.",
        "Relative to {camera}, {p} lies {value}.",
        "Measured from {camera}, the position of {p} is {value}.",
    ),
    "closer_point": (
        "{cited}{evidence}, so {near} is {phrase} {far}.",
        "{cited}{evidence}. This means that {near} is {phrase} {far}.",
        "{cited}{evidence}; hence {near} is {phrase} {far}.",
        "{near} is {phrase} {far}. {cited}{evidence}.",
    ),
    "depth_difference": (
        "{cited}{evidence}, a difference of {value}.",
        "{cited}{evidence}, so the depths differ by {value}.",
        "{cited}{evidence}. The difference in depth is {value}.",
        "{cited}{evidence}; they are {value} apart in depth.",
    ),
    "yes": _YES_ANSWERS,
    "no": _NO_ANSWERS,
    "longest_side": (
        "{cited}{evidence}, so the longest side is {value}.",
        "{cited}{evidence}. The longest side is therefore {value}.",
        "{cited}{evidence}, which makes the longest side {value}.",
        "{cited}{evidence}; the longest of these is {value}.",
    ),
    "object_depth": (
        "{cited}The median depth of {a} is {value}.",
        "{cited}{a} {is} at a median depth of {value}.",
        "{cited}{a} {is} at a depth of {value}, taking the median over what is visible.",
        "{cited}Over its visible surface, the median depth of {a} is {value}.",
    ),
    "object_range": (
        "{cited}The centre of {a} is {value} away from {camera}.",
        "{cited}In a straight line, the centre of {a} is {value} from {camera}.",
        "{cited}The straight line to the centre of {a} measures {value}.",
        "{cited}From {camera} to the centre of {a} it is {value}.",
    ),
    "surface_distance": (
        "{cited}{evidence}, and the gap between their nearest visible surfaces is {value}.",
        "{cited}{evidence}, while their nearest visible points are {value} apart.",
        "{cited}{evidence}. Between the nearest points of their visible surfaces the distance is {value}.",
        "{cited}{evidence}; measured between the closest visible points it is {value}.",
    ),
    "point_distance": (
        "{cited}{evidence}. The straight-line distance is {value}.",
        "{cited}{evidence}, so they are {value} apart.",
        "{cited}{evidence}, which puts them {value} apart.",
        "{cited}{evidence}; the distance between them is {value}.",
    ),
    "caption": (
        "{shows} {things}{place}.",
        "{things} can be seen here{place}.",
        "Here we see {things}{place}.",
        "There {there_is} {things}{place}.",
    ),
    "views_caption": (
        "{shows} one place; the cameras of image 1 and image {last} are {value} apart.",
        "{shows} the same place, and the cameras of image 1 and image {last} stand {value} apart.",
    ),
    "points_caption": ("{evidence}.",),
    "layout_caption": ("{evidence}.",),
}

RECALL = ("As found above, ", "We already know that ", "Recall that ", "From before, ")

EVIDENCE: dict[str, str] = {
    "left_right": "the centre of {a} is {a_value} of {camera} and the centre of {b} is {b_value}",
    "front_behind": "the centre of {a} is {a_value} away from {camera} and the centre of {b} is {b_value} away",
    "above_below": "the centre of {a} is {a_value} than {camera} and the centre of {b} is {b_value}",
    "taller_shorter": "the visible part of {a} is {a_value} tall and that of {b} is {b_value} tall",
    "bigger_smaller": "the visible part of {a} measures {a_value} and that of {b} measures {b_value}",
    "longest_side": "the visible part of {a} measures {a_value}",
    "depth": "the depth at {p} is {p_value}",
    "depth_across_views": "the depth of {p} for {camera} is {p_value}",
    "position": "{p} is {p_value} of {camera}",
    "surface_distance": "the centres of {a} and {b} are {a_value} apart",
    "object_depth": "the median depth of {a} is {a_value} and that of {b} is {b_value}",
}

_IRREGULAR = {
    "person": "people", "man": "men", "woman": "women", "child": "children", "foot": "feet", "mouse": "mice",
    "knife": "knives", "shelf": "shelves", "leaf": "leaves", "loaf": "loaves", "tooth": "teeth",
}  # fmt: skip
_SINGULAR_IN_S = ("ss", "us", "is", "lens", "gas", "canvas", "atlas", "bias", "chess")
COUNT_WORDS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
RESERVED_NAMES = frozenset({"camera", "image", "point", "viewer", "scene"})  # they would confuse a reader of the text


def is_plural(name: str) -> bool:
    """Whether a class name is already plural ("scissors"), so that it takes "are" and no article."""
    last = name.lower().split()[-1]
    if last in _IRREGULAR.values():
        return True
    return last.endswith("s") and not last.endswith(_SINGULAR_IN_S)


def pluralise(name: str) -> str:
    """The plural of a class name, by its last word."""
    if is_plural(name):
        return name
    *rest, last = name.split()
    if last.lower() in _IRREGULAR:
        last = _IRREGULAR[last.lower()]
    elif re.search(r"(s|x|z|ch|sh)$", last):
        last += "es"
    elif re.search(r"[^aeiou]y$", last):
        last = last[:-1] + "ies"
    else:
        last += "s"
    return " ".join([*rest, last])


def counted(name: str, count: int) -> str:
    """A count and its noun: "a box", "an apple", "three boxes", "scissors"."""
    if count == 1:
        return name if is_plural(name) else f"{'an' if name[0].lower() in 'aeiou' else 'a'} {name}"
    number = COUNT_WORDS[count] if count < len(COUNT_WORDS) else str(count)
    return f"{number} {pluralise(name)}"


def listed(parts: list[str]) -> str:
    """Parts joined as in prose: "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def sentences(text: str) -> str:
    """Capitalise the beginning of each sentence."""
    return re.sub(r"(^|[.?!] )([a-z])", lambda match: match[1] + match[2].upper(), text)
