"""The common and adversarial questions of the multi-view VQA set, drawn from what is truly visible.

A template is a function that draws one question, or returns None where nothing can be asked beyond doubt. A yes/no
template speaks only where both answers are possible, and then a coin decides, so that neither the template nor the
objects give the answer away.
"""

from dataclasses import dataclass

from dataset_builders.facts import Row
from dataset_builders.grammar import COUNT_WORDS, be, counted, is_plural, listed, there_be
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
    text, reply = ground.ask("what_is_at", at=at), ground.reply("what_is_at", at=at, **thing.slots)
    return Question("what_is_at", text, reply, thing.name, (thing.id,), (thing.id,), (point,), point["view"])


def where_is(ground: Ground) -> Question | None:
    """Point to a thing."""
    thing = ground.draw(lambda one: bool(one.seen))
    if thing is None:
        return None
    point = ground.point_on(thing, ground.rng.choice(sorted(thing.seen)))
    at, image = ground.named(point), f"image {point['view'] + 1}"
    text = ground.ask("where_is", image=image, **thing.slots)
    reply = ground.reply("where_is", at=at, **thing.slots)
    answer = at.removeprefix("the point ")
    return Question("where_is", text, reply, answer, (thing.id,), (thing.id,), (point,), point["view"])


def in_all(ground: Ground) -> Question | None:
    """Whether all images show a thing."""
    shared = ground.draw(lambda one: len(one.seen) == len(ground.views))
    missing = ground.draw_absent(ground.rng.choice(ground.views))
    if shared is None or missing is None:
        return None
    thing = ground.rng.choice([shared, missing])
    text = ground.ask("in_all", everywhere=ground.everywhere, **thing.slots)
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
    text = ground.ask("in_one", image=f"image {view + 1}", **thing.slots)
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
    text = ground.ask("which_images", **thing.slots)
    answer = images(seen) if seen else ground.nowhere
    if len(seen) == len(ground.views):
        answer = ground.everywhere
    elif len(seen) == 1:
        answer = f"only {answer}"
    reply = ground.reply("which_images", answer=answer, show=_show(thing), **thing.slots)
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
    text = ground.ask("how_many_of", image=f"image {view + 1}", things=listed(names))
    found = [name for name in names if name in {f"the {thing.name}" for thing in counted_things}]
    answer = COUNT_WORDS[wanted]
    reply = ground.reply("how_many_of", count=answer, found=listed(found))
    ids = tuple(thing.id for thing in counted_things)
    subjects = tuple(thing.id for thing in chosen)
    return Question("how_many_of", text, reply, answer, subjects, ids, frame=view, value=float(wanted))


def what_colour(ground: Ground) -> Question | None:
    """The colour of the only thing of its kind."""
    thing = ground.draw_coloured()
    if thing is None:
        return None
    text, reply = ground.ask("what_colour", **thing.slots), ground.reply("what_colour", **thing.slots)
    return Question("what_colour", text, reply, str(thing.colour), (thing.id,), (thing.id,))


def nearer_in(ground: Ground) -> Question | None:
    """In which of two images the camera is nearer to a thing; or farther from it, as in videos it mostly nears."""
    first, second = ground.rng.sample(ground.views, 2)
    nearer = {one.id: nearer_view(ground.facts, one.id, first, second) for one in ground.things}
    thing = ground.draw(lambda one: {first, second} <= one.seen and nearer[one.id] is not None)
    if thing is None:
        return None
    closer = ground.rng.choice(["closer to", "farther from"])
    nearest = nearer[thing.id] or 0
    view = nearest if closer == "closer to" else first + second - nearest
    pair = f"image {first + 1} or image {second + 1}"
    text = ground.ask("nearer_in", pair=pair, closer=closer, **thing.slots)
    reply = ground.reply("nearer_in", image=f"image {view + 1}", closer=closer, **thing.slots)
    return Question("nearer_in", text, reply, f"image {view + 1}", (thing.id,), (thing.id,), frame=view)


def camera_side(ground: Ground) -> Question | None:
    """To which side the camera went from one image to another."""
    first, second = ground.rng.sample(ground.views, 2)
    side = sidestep(ground.facts, first, second)
    if side is None:
        return None
    slots = {"first": f"image {first + 1}", "second": f"image {second + 1}"}
    text, reply = ground.ask("camera_side", **slots), ground.reply("camera_side", side=side, **slots)
    return Question("camera_side", text, reply, side, frame=first)


def no_such_thing(ground: Ground) -> Question | None:
    """Whether there is a thing at all, when everything else in the question is there."""
    real = ground.draw(lambda one: one.colour is not None and bool(one.seen))
    false = [one for one in ground.strangers if one.id not in ground.used and one.colour is not None]
    if real is None or not false:
        return None
    thing = ground.rng.choice([real, ground.rng.choice(false)])
    one = counted(thing.name, 1)
    text = ground.ask("no_such_thing", one=one, be=there_be([one]) if one != thing.name else be(thing.name))
    fact = f"{images(thing.seen)} {_show(thing)} {_it(thing)}" if thing is real else f"{ground.nowhere} shows {one}"
    return _polar(ground, "no_such_thing", (text, fact), thing is real, thing)


def wrong_colour(ground: Ground) -> Question | None:
    """Whether a colour that is taken for granted is right."""
    thing = ground.draw_coloured()
    if thing is None:
        return None
    colour = ground.rng.choice([str(thing.colour), ground.rng.choice(thing.wrong_colours())])
    text = ground.ask("wrong_colour", **thing.slots | {"colour": colour})
    right = colour == thing.colour
    fact = f"the {thing.noun} {be(thing.name)} {thing.colour}" + ("" if right else f", not {colour}")
    return _polar(ground, "wrong_colour", (text, fact), right, thing)


def hidden_there(ground: Ground) -> Question | None:
    """Ask for the place of a thing in an image that does not show it; about as often as `where_is` asks in earnest."""
    view = ground.rng.choice(ground.views)
    absent = ground.draw_absent(view)
    if absent is None or ground.rng.random() < 0.5:
        return None
    image = f"image {view + 1}"
    text = ground.ask("hidden_there", image=image, **absent.slots)
    where = f"only {images(absent.seen)}" if absent.seen else ground.nowhere
    elsewhere = f"{where} {_show(absent)} {_it(absent)}"
    reply = ground.reply("hidden_there", image=image, elsewhere=elsewhere, **absent.slots)
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
    text = ground.ask("same_spot", at=at, there=there)
    ending = "show the same spot" if same else "show different spots"
    return _polar(ground, "same_spot", (text, f"they {ending}"), same, None, second, (point, shown))


COMMON = (what_colour, nearer_in, camera_side)
PRESENCE = (in_all, in_one, which_images, how_many_of)
POINTING = (what_is_at, where_is)
ADVERSARIAL = (no_such_thing, wrong_colour, hidden_there, same_spot)
ABOUT_COLOUR = frozenset({"what_colour", "wrong_colour", "no_such_thing", "which_colour"})


def _it(thing: Thing) -> str:
    """The pronoun of a thing as an object: "image 1 shows them"."""
    return "them" if is_plural(thing.name) else "it"


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
    reply = ground.reply("polar", yes=word, fact=fact)
    subjects, ids = ((subject.id,), _known(subject)) if subject is not None else ((), ())
    return Question(template, text, reply, word, subjects, ids, points, frame)


def _known(thing: Thing) -> tuple[int, ...]:
    """The id of a thing that the record's objects list."""
    return (thing.id,) if thing.id > 0 else ()
