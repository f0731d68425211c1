"""The wording of the multi-view VQA set as data; `vqa_verification.py` reads the questions back and knows none of it.

The images of a question stand in the order that its answer depends on, and no text has a number word of its own.

Slots: `{at}` `{there}` points, `{the}` a thing with its article, `{noun}` a thing without its colour, `{one}` "a red
box", `{is}` `{does}` `{be}` verbs, `{image}` `{first}` `{second}` `{pair}` images, `{everywhere}` "both images",
`{closer}` "closer to" or "farther from".
"""

_NAME_IT = (
    "What is at {at}?",
    "Which object is at {at}?",
    "Name the object at {at}.",
    "What does {at} show?",
    "Tell me which object is to be seen at {at}.",
    "Something is marked at {at}. What is it?",
)
_POINT_TO_IT = (
    "Where {is} {the} in {image}?",
    "Point to {the} in {image}.",
    "Give the coordinates of a point on {the} in {image}.",
    "Where in {image} can {the} be found?",
    "Find {the} in {image}.",
    "Which coordinates in {image} lie on {the}?",
)
_COLOUR = (
    "What colour {is} the {noun}?",
    "What is the colour of the {noun} in the images?",
    "Which colour {does} the {noun} have?",
    "Name the colour of the {noun}.",
    "Tell me the colour of the {noun}.",
    "In which colour {does} the {noun} appear?",
)
VQA_QUESTIONS: dict[str, tuple[str, ...]] = {
    "what_is_at": _NAME_IT,
    "where_is": _POINT_TO_IT,
    "in_all": (
        "Can {the} be seen in {everywhere}?",
        "Do {everywhere} show {the}?",
        "{is} {the} visible in {everywhere}?",
        "{does} {the} appear in {everywhere}?",
        "Is it true that {everywhere} show {the}?",
        "I think that {everywhere} show {the}. Is that correct?",
    ),
    "in_one": (
        "Can {the} be seen in {image}?",
        "Does {image} show {the}?",
        "{is} {the} visible in {image}?",
        "{does} {the} appear in {image}?",
        "Is it true that {image} shows {the}?",
        "I think that {image} shows {the}. Is that correct?",
    ),
    "which_images": (
        "In which images can {the} be seen?",
        "Which images show {the}?",
        "Name the images that show {the}.",
        "In which of the images {is} {the} visible?",
        "Tell me which images show {the}.",
        "Of all the images, which ones show {the}?",
    ),
    "how_many_of": (
        "How many of these can be seen in {image}: {things}?",
        "Of {things}, how many are visible in {image}?",
        "Count how many of these {image} shows: {things}.",
        "{things}: how many of them does {image} show?",
        "How many of the following appear in {image}: {things}?",
        "Looking at {image}, how many of these do you find: {things}?",
    ),
    "what_colour": _COLOUR,
    "nearer_in": (
        "In which image is the camera {closer} {the}, {pair}?",
        "Was {pair} taken {closer} {the}?",
        "Which was taken {closer} {the}, {pair}?",
        "Which camera stands {closer} {the}, that of {pair}?",
        "Compare the cameras of {pair}: which is {closer} {the}?",
        "In {pair}, where does the camera stand {closer} {the}?",
    ),
    "camera_side": (
        "Was {second} taken from further to the left or to the right than {first}?",
        "Compared with {first}, does the camera of {second} stand to the left or to the right?",
        "From {first} to {second}, does the camera move to the left or to the right?",
        "To which side of the camera of {first} does that of {second} stand, left or right?",
        "Going from {first} to {second}, which way does the camera move sideways?",
        "Seen from the camera of {first}, is that of {second} further to the left or to the right?",
    ),
    "no_such_thing": (
        "{be} there {one} in the images?",
        "Do the images show {one}?",
        "Can {one} be seen in any of the images?",
        "Does any of the images show {one}?",
        "I think that there {be} {one} in the images. Is that correct?",
        "Looking through the images, do you find {one}?",
    ),
    "wrong_colour": (
        "The {noun} {is} {colour}, right?",
        "Would you agree that the {noun} {is} {colour}?",
        "I think the {noun} {is} {colour}. Is that correct?",
        "Tell me whether the {noun} {is} {colour}.",
        "Is it true that the {noun} {is} {colour}?",
        "Can one say that the {noun} {is} {colour}?",
    ),
    "hidden_there": _POINT_TO_IT,
    "same_spot": (
        "Do {at} and {there} show the same spot?",
        "Is the spot at {at} the same as the one at {there}?",
        "Does {there} show the same place as {at}?",
        "Is it true that {at} and {there} are the same spot?",
        "Would you say that {there} shows the spot that is at {at}?",
        "I think that {at} and {there} show the same spot. Is that correct?",
    ),
    "name_at_point": _NAME_IT,
    "only_in_one": (
        "Which of these can be seen in {image} but not in {elsewhere}?",
        "Which of these does only {image} show?",
        "Which of these is visible in {image} alone?",
        "Only {image} shows one of these. Which one?",
        "Find the one that {image} shows, but not {elsewhere}.",
        "Which of these appears in {image} and not in {elsewhere}?",
    ),
    "matching_point": (
        "Which point of {image} shows the same spot as {at}?",
        "Where in {image} is the spot that is at {at}?",
        "Find the point of {image} that matches {at}.",
        "To which point of {image} does {at} correspond?",
        "Which point of {image} is the same spot in space as {at}?",
        "Look at {at}. Which point of {image} shows that spot?",
    ),
    "which_colour": _COLOUR,
    "nearest_in_image": (
        "Which of these is closest to the camera of {image}?",
        "Which of these is nearest to where {image} was taken from?",
        "To the camera of {image}, which of these is the nearest?",
        "Which of these stands closest to the camera that took {image}?",
        "Of these, which is the least far from the camera of {image}?",
        "Seen from the camera of {image}, which of these is nearest?",
    ),
}

_POLAR = ("{yes}.", "{yes}, {fact}.", "{yes}: {fact}.", "{fact}, so {yes}.")
VQA_ANSWERS: dict[str, tuple[str, ...]] = {
    "what_is_at": ("{the}.", "That {is} {the}.", "At {at} we see {the}.", "What can be seen there {is} {the}."),
    "where_is": (
        "At {at}.",
        "{the} can be seen at {at}.",
        "Look at {at}.",
        "{the}: look at {at}.",
    ),
    "which_images": ("{answer}.", "{answer} {show} {the}.", "The answer is {answer}.", "{the}: {answer}."),
    "how_many_of": ("{count}.", "{count}: {found}.", "{count} of them: {found}.", "That makes {count}: {found}."),
    "what_colour": (
        "{colour}.",
        "The {noun} {is} {colour}.",
        "The colour of the {noun} is {colour}.",
        "We see that the {noun} {is} {colour}.",
    ),
    "nearer_in": (
        "{image}.",
        "The camera of {image} is {closer} {the}.",
        "It is {image}.",
        "{image} was taken {closer} {the}.",
    ),
    "camera_side": (
        "To the {side}.",
        "The camera of {second} stands to the {side}.",
        "From {first} to {second} it goes to the {side}.",
        "It is the {side}.",
    ),
    "hidden_there": (
        "{the} {is} not visible in {image}; {elsewhere}.",
        "{the} {is} not visible in {image}.",
        "Nowhere: {the} {is} not visible in {image}.",
        "{the} {is} not visible there; {elsewhere}.",
    ),
    "polar": _POLAR,
    "choice": (
        "{letter}.",
        "{letter}. {right}.",
        "{letter}. The answer is {right}.",
        "{letter}. The right option is {right}.",
    ),
}
