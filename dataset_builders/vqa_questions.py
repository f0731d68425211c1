"""The common and adversarial questions of the multi-view VQA set, drawn from what is truly visible.

A template is a function that draws one question, or returns None where nothing can be asked beyond doubt. A yes/no
template speaks only where both answers are possible, and then a coin decides, so that neither the template nor the
objects give the answer away.
"""

from dataclasses import dataclass

from dataset_builders.facts import Row
from dataset_builders.phrasings import COUNT_WORDS, counted, listed, sentences
from dataset_builders.vqa_ground import Ground, Thing, images, nearer_view, sidestep


@dataclass(frozen=True)
class Question:
    """One drawn question.

    Attributes:
        template: name of the function that drew it.
        text: the question.
        reply: the answer in words.
        answer: its shortest canonical form.
        subjects: ids of the objects that it gives away, so that no later question asks about them.
        object_ids: of all objects that it speaks of, in the order that `vqa_verification` expects.
        points: with positions in the camera frame of `frame`.
        frame: the view that it speaks of.
        value: the number that is the answer.
    """

    template: str
    text: str
    reply: str
    answer: str
    subjects: tuple[int, ...] = ()
    object_ids: tuple[int, ...] = ()
    points: tuple[Row, ...] = ()
    frame: int = 0
    value: float | None = None


def what_is_at(ground: Ground) -> Question | None:
    """Name the thing at a point."""
    thing = ground.draw(lambda one: bool(one.seen))
    if thing is None:
        return None
    point = ground.point_on(thing, ground.rng.choice(sorted(thing.seen)))
    at = ground.named(point)
    text = ground.say(f"What is at {at}?", f"Which object is at {at}?", f"Name the object at {at}.")
    reply = ground.say(
        f"The {thing.name}.", f"That {thing.verb} the {thing.name}.", f"At {at} we see the {thing.name}."
    )
    return Question(
        "what_is_at", text, sentences(reply), thing.name, (thing.id,), (thing.id,), (point,), point["view"]
    )


def where_is(ground: Ground) -> Question | None:
    """Point to a thing."""
    thing = ground.draw(lambda one: bool(one.seen))
    if thing is None:
        return None
    point = ground.point_on(thing, ground.rng.choice(sorted(thing.seen)))
    at, image = ground.named(point), f"image {point['view'] + 1}"
    text = ground.say(
        f"Where {thing.verb} the {thing.name} in {image}?",
        f"Point to the {thing.name} in {image}.",
        f"Give the coordinates of a point on the {thing.name} in {image}.",
    )
    reply = ground.say(f"At {at}.", f"The {thing.name} can be seen at {at}.")
    answer = at.removeprefix("the point ")
    return Question("where_is", text, reply, answer, (thing.id,), (thing.id,), (point,), point["view"])


def in_all(ground: Ground) -> Question | None:
    """Whether all images show a thing."""
    shared = ground.draw(lambda one: len(one.seen) == len(ground.views))
    missing = ground.draw_absent(ground.rng.choice(ground.views))
    if shared is None or missing is None:
        return None
    thing = ground.rng.choice([shared, missing])
    text = ground.say(
        f"Can the {thing.name} be seen in {ground.everywhere}?",
        f"Do {ground.everywhere} show the {thing.name}?",
        f"{thing.verb.capitalize()} the {thing.name} visible in {ground.everywhere}?",
    )
    where = ground.everywhere if thing is shared else f"only {images(thing.seen)}" if thing.seen else ground.nowhere
    fact = f"{where} {_show(thing)} the {thing.name}"
    return _polar(ground, "in_all", (text, fact), thing is shared, thing)


def in_one(ground: Ground) -> Question | None:
    """Whether one image shows a thing."""
    view = ground.rng.choice(ground.views)
    present, absent = ground.draw(lambda one: view in one.seen), ground.draw_absent(view)
    if present is None or absent is None:
        return None
    thing = ground.rng.choice([present, absent])
    text = ground.say(
        f"Can the {thing.name} be seen in image {view + 1}?",
        f"Does image {view + 1} show the {thing.name}?",
        f"{thing.verb.capitalize()} the {thing.name} visible in image {view + 1}?",
    )
    fact = f"image {view + 1} {'shows' if thing is present else 'does not show'} the {thing.name}"
    return _polar(ground, "in_one", (text, fact), thing is present, thing, view)


def which_images(ground: Ground) -> Question | None:
    """In which images a thing can be seen; every possible answer is equally likely."""
    by_answer: dict[frozenset[int], list[Thing]] = {}
    for thing in ground.things + ground.strangers:
        if thing.id not in ground.used and ground.definite(thing):
            by_answer.setdefault(thing.seen, []).append(thing)
    if len(by_answer) < 2:
        return None
    seen = ground.rng.choice(sorted(by_answer, key=sorted))
    thing = ground.rng.choice(by_answer[seen])
    text = ground.say(f"In which images can the {thing.name} be seen?", f"Which images show the {thing.name}?")
    answer = images(seen) if seen else ground.nowhere
    if len(seen) == len(ground.views):
        answer = ground.everywhere
    elif len(seen) == 1:
        answer = f"only {answer}"
    reply = f"{answer[0].upper()}{answer[1:]}."
    return Question("which_images", text, reply, answer, (thing.id,), _known(thing))


def how_many_of(ground: Ground) -> Question | None:
    """How many of three named things an image shows."""
    view, wanted = ground.rng.choice(ground.views), ground.rng.randint(1, 3)
    seen = [thing for thing in ground.things if view in thing.seen]
    absent = [thing for thing in ground.things + ground.strangers if view in thing.absent]
    if len(seen) < 3 or len(absent) < 2:  # where one count is impossible, the others would be too likely
        return None
    counted_things = ground.rng.sample(seen, wanted)
    chosen = counted_things + ground.rng.sample(absent, 3 - wanted)
    names = [f"the {thing.name}" for thing in ground.rng.sample(chosen, len(chosen))]
    text = ground.say(
        f"How many of these can be seen in image {view + 1}: {listed(names)}?",
        f"Of {listed(names)}, how many are visible in image {view + 1}?",
    )
    found = [name for name in names if name in {f"the {thing.name}" for thing in counted_things}]
    answer = COUNT_WORDS[wanted]
    reply = ground.say(f"{answer.capitalize()}.", f"{answer.capitalize()}: {listed(found)}.")
    ids = tuple(thing.id for thing in counted_things)
    subjects = tuple(thing.id for thing in chosen)
    return Question("how_many_of", text, reply, answer, subjects, ids, frame=view, value=float(wanted))


def what_colour(ground: Ground) -> Question | None:
    """The colour of the only thing of its kind."""
    thing = ground.draw_coloured()
    if thing is None:
        return None
    text = ground.say(
        f"What colour {thing.verb} the {thing.noun}?",
        f"What is the colour of the {thing.noun} in the images?",
        f"Which colour does the {thing.noun} have?",
    )
    reply = ground.say(f"{thing.colour.capitalize()}.", f"The {thing.noun} {thing.verb} {thing.colour}.")  # type: ignore[union-attr]
    return Question("what_colour", text, reply, str(thing.colour), (thing.id,), (thing.id,))


def nearer_in(ground: Ground) -> Question | None:
    """In which of two images the camera is nearer to a thing."""
    first, second = ground.rng.sample(ground.views, 2)
    nearer = {one.id: nearer_view(ground.facts, one.id, first, second) for one in ground.things}
    thing = ground.draw(lambda one: {first, second} <= one.seen and nearer[one.id] is not None)
    if thing is None:
        return None
    view = nearer[thing.id] or 0
    pair = f"image {first + 1} or image {second + 1}"
    text = ground.say(
        f"In which image is the camera closer to the {thing.name}, {pair}?",
        f"Was {pair} taken from closer to the {thing.name}?",
    )
    reply = ground.say(f"Image {view + 1}.", f"The camera of image {view + 1} is closer to the {thing.name}.")
    return Question("nearer_in", text, reply, f"image {view + 1}", (thing.id,), (thing.id,), frame=view)


def camera_side(ground: Ground) -> Question | None:
    """To which side the camera went from one image to another."""
    first, second = ground.rng.sample(ground.views, 2)
    side = sidestep(ground.facts, first, second)
    if side is None:
        return None
    text = ground.say(
        f"Was image {second + 1} taken from further to the left or to the right than image {first + 1}?",
        f"Compared with image {first + 1}, does the camera of image {second + 1} stand to the left or to the right?",
    )
    reply = ground.say(f"To the {side}.", f"The camera of image {second + 1} stands to the {side}.")
    return Question("camera_side", text, reply, side, frame=first)


def no_such_thing(ground: Ground) -> Question | None:
    """Whether there is a thing at all, when everything else in the question is there."""
    real = ground.draw(lambda one: one.colour is not None and bool(one.seen))
    false = [one for one in ground.strangers if one.id not in ground.used and one.colour is not None]
    if real is None or not false:
        return None
    thing = ground.rng.choice([real, ground.rng.choice(false)])
    one = counted(thing.name, 1)
    text = ground.say(
        f"Is there {one} in the images?", f"Do the images show {one}?", f"Can {one} be seen in any of the images?"
    )
    fact = f"{images(thing.seen)} {_show(thing)} it" if thing is real else f"{ground.nowhere} shows {one}"
    return _polar(ground, "no_such_thing", (text, fact), thing is real, thing)


def wrong_colour(ground: Ground) -> Question | None:
    """Whether a colour that is taken for granted is right."""
    thing = ground.draw_coloured()
    if thing is None:
        return None
    colour = ground.rng.choice([str(thing.colour), ground.rng.choice(thing.wrong_colours())])
    text = ground.say(
        f"The {thing.noun} {thing.verb} {colour}, right?",
        f"Would you agree that the {thing.noun} {thing.verb} {colour}?",
        f"I think the {thing.noun} {thing.verb} {colour}. Is that correct?",
    )
    right = colour == thing.colour
    fact = f"the {thing.noun} {thing.verb} {thing.colour}" + ("" if right else f", not {colour}")
    return _polar(ground, "wrong_colour", (text, fact), right, thing)


def hidden_there(ground: Ground) -> Question | None:
    """Ask for the place of a thing in an image that does not show it; about as often as `where_is` asks in earnest."""
    view = ground.rng.choice(ground.views)
    absent = ground.draw_absent(view)
    if absent is None or ground.rng.random() < 0.5:
        return None
    text = ground.say(
        f"Where {absent.verb} the {absent.name} in image {view + 1}?",
        f"Point to the {absent.name} in image {view + 1}.",
    )
    elsewhere = f"only {images(absent.seen)} {_show(absent)} it" if absent.seen else f"{ground.nowhere} shows it"
    reply = ground.say(
        f"The {absent.name} {absent.verb} not visible in image {view + 1}; {elsewhere}.",
        f"It is not visible in image {view + 1}.",
    )
    return Question("hidden_there", text, reply, "not visible", (absent.id,), _known(absent), frame=view)


def same_spot(ground: Ground) -> Question | None:
    """Whether two points, one in each of two images, show the same spot."""
    first, second = ground.rng.sample(ground.views, 2)
    pair = ground.match(first, second)
    if pair is None:
        return None
    point, match = pair
    other = ground.other_spot(second, [match], near=point)
    if other is None:
        return None
    same = ground.rng.random() < 0.5
    shown = match if same else other
    at, there = ground.named(point), ground.named(shown)
    text = ground.say(
        f"Do {at} and {there} show the same spot?",
        f"Is the spot at {at} the same as the one at {there}?",
        f"Does {there} show the same place as {at}?",
    )
    ending = "show the same spot" if same else "show different spots"
    return _polar(ground, "same_spot", (text, f"they {ending}"), same, None, second, (point, shown))


COMMON = (what_colour, nearer_in, camera_side)
PRESENCE = (in_all, in_one, which_images, how_many_of)
POINTING = (what_is_at, where_is)
ADVERSARIAL = (no_such_thing, wrong_colour, hidden_there, same_spot)
ABOUT_COLOUR = frozenset({"what_colour", "wrong_colour", "no_such_thing", "which_colour"})


def _show(thing: Thing) -> str:
    """The verb of a sentence whose subject is the images that show a thing."""
    return "shows" if len(thing.seen) < 2 else "show"


def _polar(
    ground: Ground,
    template: str,
    question_and_fact: tuple[str, str],
    yes: bool,
    subject: Thing | None,
    frame: int = 0,
    points: tuple[Row, ...] = (),
) -> Question:
    """A yes/no question; the reply says no more than yes or no, or also states the fact."""
    text, fact = question_and_fact
    word = "yes" if yes else "no"
    reply = ground.say(f"{word.capitalize()}.", f"{word.capitalize()}, {fact}.")
    subjects, ids = ((subject.id,), _known(subject)) if subject is not None else ((), ())
    return Question(template, text, reply, word, subjects, ids, points, frame)


def _known(thing: Thing) -> tuple[int, ...]:
    """The id of a thing that the record's objects list."""
    return (thing.id,) if thing.id > 0 else ()
