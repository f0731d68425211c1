"""The wording of the dialogue as data: every template and every relation phrase.

Two rules let `verification.py` read the texts back: a number stands after the point or object that it describes, and
a relation is written `<one> is <phrase> <other>` (in a question also `is <one> <phrase> <other>`).

Slots: `{p}` `{q}` points, `{a}` `{b}` objects, `{is}` "is" or "are" after `{a}`, `{camera}`, `{seen}` " for the camera
of image 2" where there are several cameras, `{phrase}` and `{opposite}` of a relation, `{evidence}` the geometry that
decides, `{cited}` sentences that recall earlier turns, `{value}` the answer as a number.
"""

PREAMBLE = (
    "Image coordinates are written (x, y), from (0, 0) in the top left corner to (1, 1) in the bottom right corner. "
    "Depth is measured along the viewing direction of the camera."
)
RESERVED_NAMES = frozenset({"camera", "image", "point", "viewer", "scene"})  # they would confuse a reader of the text

# kind -> phrases that hold when `geometry.compare` says +1, and when it says -1
RELATIONS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "left_right": (
        ("to the left of", "on the left side of", "further left than"),
        ("to the right of", "on the right side of", "further right than"),
    ),
    "front_behind": (
        ("in front of", "closer to {camera} than", "nearer to {camera} than"),
        ("behind", "farther from {camera} than", "further away from {camera} than"),
    ),
    "above_below": (("above", "higher up than"), ("below", "lower down than")),
    "taller_shorter": (("taller than", "greater in height than"), ("shorter than", "smaller in height than")),
    "bigger_smaller": (("bigger than", "larger than"), ("smaller than",)),
    "closer_point": (
        ("closer to {camera} than", "nearer to {camera} than"),
        ("farther from {camera} than", "further away from {camera} than"),
    ),
}

# What alone among the things of its name stands at one end of a relation: with +1 towards all others, and with -1
SUPERLATIVES: dict[str, tuple[str, str]] = {
    "left_right": ("the leftmost {name}", "the rightmost {name}"),
    "front_behind": ("the {name} that {is} closest to the camera", "the {name} that {is} farthest from the camera"),
    "bigger_smaller": ("the largest {name}", "the smallest {name}"),
}

_VIEWPOINT_QUESTIONS = (
    "From the viewpoint of {camera}, {is} {a} {phrase} {b}?",
    "As seen by {camera}, {is} {a} {phrase} {b}?",
    "{is} {a} {phrase} {b} when viewed from {camera}?",
    "Looking out from {camera}, would you say that {a} {is} {phrase} {b}?",
    "Is it true that, seen from {camera}, {a} {is} {phrase} {b}?",
    "For a viewer who stands where {camera} is, {is} {a} {phrase} {b}?",
    "I think that {a} {is} {phrase} {b}, seen from {camera}. Is that correct?",
)
_PLAIN_QUESTIONS = (
    "{is} {a} {phrase} {b}?",
    "Would you say that {a} {is} {phrase} {b}?",
    "Is it true that {a} {is} {phrase} {b}?",
    "Looking at the whole scene, {is} {a} {phrase} {b}?",
    "I think that {a} {is} {phrase} {b}. Is that correct?",
    "Can one say that {a} {is} {phrase} {b}?",
    "Tell me whether {a} {is} {phrase} {b}.",
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
        "Estimate the depth of what is seen at {p}.",
        "Tell me how deep the surface at {p} lies.",
    ),
    "depth_across_views": (
        "What is the depth of {p} for {camera}?",
        "Seen from {camera}, how deep is {p}?",
        "Give the depth of {p} in the frame of {camera}.",
        "How far along the viewing direction of {camera} is {p}?",
        "If the same spot were measured by {camera}, what depth would {p} have?",
        "Which depth does {p} have for {camera}?",
    ),
    "point_position": (
        "Where is {p} in the frame of {camera}: how far right or left, down or up, and forward?",
        "What is the 3D position of {p} in the frame of {camera}?",
        "Give the 3D position of {p} relative to {camera}, along its right, down and forward axes.",
        "Relative to {camera} and its axes, where in space does {p} lie?",
        "How far to the side, how far down or up and how far ahead of {camera} is {p}?",
        "Locate {p} in space, as an offset from {camera} along its axes.",
    ),
    "closer_point": (
        "Which is closer to {camera}, {p} or {q}?",
        "Of {p} and {q}, which has the smaller depth{seen}?",
        "Compare the depths of {p} and {q}{seen}: which is the smaller one?",
        "Is it {p} or {q} that lies nearer to {camera}?",
        "Between {p} and {q}, which one is less deep{seen}?",
        "Looking from {camera}, which do you meet first in depth, {p} or {q}?",
    ),
    "depth_difference": (
        "What is the difference in depth between {p} and {q}{seen}?",
        "How much do the depths of {p} and {q} differ{seen}?",
        "By how much does the depth change from {p} to {q}{seen}?",
        "How far apart in depth are {p} and {q}{seen}?",
        "Compare {p} with {q}: how large is the gap in depth{seen}?",
        "Give the difference between the depths at {p} and {q}{seen}.",
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
        "Measured along the longest side, how long {is} {a}?",
        "What do you measure along the longest side of {a}?",
    ),
    "object_depth": (
        "At what depth {is} {a}{seen}?",
        "What is the median depth of {a}{seen}?",
        "How deep in the scene {is} {a}{seen}?",
        "How far along the viewing direction of {camera} {is} {a}?",
        "Give the median depth of the visible part of {a}{seen}.",
        "Estimate how deep in the scene {a} {is}{seen}.",
    ),
    "object_range": (
        "How far is the centre of {a} from {camera} in a straight line?",
        "What is the straight-line distance from {camera} to the centre of {a}?",
        "How long is the straight line from {camera} to the centre of the 3D box around {a}?",
        "Give the distance in space between {camera} and the centre of {a}.",
        "Stretch a line from {camera} to the centre of {a}: how long is it?",
        "In a straight line, how much space lies between {camera} and the centre of {a}?",
    ),
    "surface_distance": (
        "How far {is} {a} from {b}, measured between the nearest points of their visible surfaces?",
        "What is the shortest distance between the visible surfaces of {a} and {b}?",
        "From visible surface to visible surface, how large is the gap between {a} and {b}?",
        "Measured between their closest visible points, how far apart are {a} and {b}?",
        "How wide is the gap between {a} and {b} where their visible surfaces come closest?",
        "Give the smallest distance from the visible surface of {a} to that of {b}.",
    ),
    "point_distance": (
        "How far is {p} from {q} in space?",
        "What is the straight-line distance in space between {p} and {q}?",
        "How far apart are {p} and {q} in 3D?",
        "Give the 3D distance between {p} and {q}.",
        "Stretch a line in space from {p} to {q}: how long is it?",
        "Estimate how far {p} and {q} lie from each other in space.",
    ),
    "caption": (
        "Describe the scene.",
        "What do you see?",
        "Give a short description of what is shown.",
        "Please write a caption for this scene.",
        "What is there to be seen here?",
        "List what is in view, in a sentence.",
    ),
    "layout_caption": (
        "Summarise how the scene is laid out in space.",
        "Describe the spatial layout in a few words.",
        "How are things arranged in space here?",
        "Write a caption that says where things are.",
        "Sum up what we know about where things are.",
        "How do the things in this scene stand to each other in space?",
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
        "{shows} one place from several sides, with {value} between the cameras of image 1 and image {last}.",
        "One place is shown; between the cameras of image 1 and image {last} there are {value}.",
    ),
    "points_caption": (
        "{evidence}.",
        "What was measured here: {evidence}.",
        "Of this scene we know that {evidence}.",
        "The view tells us that {evidence}.",
    ),
    "layout_caption": (
        "{evidence}.",
        "In space, the scene is laid out as follows: {evidence}.",
        "Of this scene we can say that {evidence}.",
        "Putting it together, {evidence}.",
    ),
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
