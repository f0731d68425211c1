"""The wording of the grounding set as data; `grounding_verification.py` reads the questions back.

No text speaks of depth or size, none has a relation of `phrasings.RELATIONS`, and every point is "the point (x, y)".

Slots: `{p}` `{q}` points, `{the}` a thing with its article, `{is}` "is" or "are", `{first}` `{second}` things to
choose from, `{order}` "higher", "lower", "further left" or "further right".
"""

GROUNDING_QUESTIONS: dict[str, tuple[str, ...]] = {
    "named_point": (
        "What is at {p}?",
        "Which object is at {p}?",
        "Name the object at {p}.",
        "What does the image show at {p}?",
        "Tell me which object {p} lies on.",
        "Something is marked at {p}. What is it?",
    ),
    "pointed_thing": (
        "Where {is} {the} in the image?",
        "Point to {the}.",
        "Give the coordinates of a point on {the}.",
        "At which coordinates can {the} be found?",
        "Find {the} in the image.",
        "Which point lies on {the}?",
    ),
    "point_on_thing": (
        "Is {p} on {the}?",
        "Does {p} lie on {the}?",
        "Is it {the} that we see at {p}?",
        "Tell me whether {p} is on {the}.",
        "Does {p} belong to {the}?",
        "I think that {p} lies on {the}. Is that correct?",
    ),
    "which_point": (
        "Which point is on {the}, {p} or {q}?",
        "Of {p} and {q}, which is on {the}?",
        "Is it {p} or {q} that lies on {the}?",
        "Either {p} or {q} shows {the}. Which is it?",
        "Choose the point that lies on {the}: {p} or {q}?",
        "Looking for {the}, would you point to {p} or to {q}?",
    ),
    "thing_box": (
        "What is the bounding box of {the}?",
        "Give the bounding box of {the}, from its top left to its bottom right corner.",
        "Which corners has the bounding box of {the}?",
        "Draw a box around {the}: where are its top left and bottom right corners?",
        "Which corners enclose {the} in the image?",
        "Tell me the corners of the box around {the}.",
    ),
    "point_order": (
        "Which is {order} in the image, {p} or {q}?",
        "Of {p} and {q}, which is {order} in the image?",
        "Is it {p} or {q} that lies {order} in the image?",
        "Compare {p} and {q}: which is {order} in the image?",
        "Between {p} and {q}, which is {order} in the image?",
        "Tell me which is {order} in the image, {p} or {q}.",
    ),
    "thing_order": (
        "Which is {order} in the image, {first} or {second}?",
        "Of {first} and {second}, which is {order} in the image?",
        "What do you see {order} in the image, {first} or {second}?",
        "Compare {first} and {second}: which is {order} in the image?",
        "Between {first} and {second}, which is {order} in the image?",
        "Tell me which is {order} in the image, {first} or {second}.",
    ),
}

GROUNDING_ANSWERS: dict[str, tuple[str, ...]] = {
    "named_point": ("{the}.", "That {is} {the}.", "At {p} we see {the}.", "What can be seen there {is} {the}."),
    "pointed_thing": ("At {p}.", "{the} can be seen at {p}.", "Look at {p}.", "{the}: look at {p}."),
    "yes": (
        "Yes.",
        "Yes, {p} is on {the}.",
        "Yes, at {p} we see {the}.",
        "{p} lies on {the}, so yes.",
    ),
    "no": (
        "No.",
        "No, {p} is not on {the}.",
        "No, at {p} we do not see {the}.",
        "{p} does not lie on {the}, so no.",
    ),
    "which_point": ("{p}.", "It is {p}.", "{p} is on {the}.", "{the} can be seen at {p}."),
    "thing_box": (
        "From {p} to {q}.",
        "{the} can be seen from {p} to {q}.",
        "The box goes from {p} to {q}.",
        "A box around {the}: {p} to {q}.",
    ),
    "point_order": ("{p}.", "It is {p}.", "{p} is {order} in the image.", "That is {p}."),
    "thing_order": ("{first}.", "It is {first}.", "{first} {is} {order} in the image.", "We see {first} {order}."),
}
