"""The multiple-choice questions of the multi-view VQA set: four options, one of them right beyond doubt."""

from dataset_builders.grammar import counted
from dataset_builders.vqa_ground import Ground, nearest_thing
from dataset_builders.vqa_questions import Question

LETTERS = "ABCD"
OTHER_NAMES = ("bicycle", "umbrella", "piano", "suitcase", "guitar", "ladder")  # options where a place has few things


def name_at_point(ground: Ground) -> Question | None:
    """Which thing is at a point."""
    thing = ground.draw(lambda one: bool(one.seen))
    if thing is None:
        return None
    point = ground.point_on(thing, ground.rng.choice(sorted(thing.seen)))
    others = [f"the {one.name}" for one in ground.things if one is not thing]
    nouns = {one.noun for one in ground.things}
    strangers = [counted(name, 1) for name in OTHER_NAMES if name not in nouns]
    wrong = ground.rng.sample(others, min(3, len(others)))
    wrong += ground.rng.sample(strangers, 3 - len(wrong))
    stem = ground.ask("name_at_point", at=ground.named(point))
    question = Question("name_at_point", stem, "", "", (thing.id,), (thing.id,), (point,), point["view"])
    return with_options(ground, question, f"the {thing.name}", wrong)


def only_in_one(ground: Ground) -> Question | None:
    """Which thing only one of the images shows."""
    view = ground.rng.choice(ground.views)
    alone = ground.draw(lambda one: ground.definite(one) and one.seen == {view})
    others = [one for one in ground.things if ground.definite(one) and one.seen and one.seen != {view}]
    if alone is None or len(others) < 3:
        return None
    chosen = ground.rng.sample(others, 3)
    elsewhere = "the other image" if len(ground.views) == 2 else "any other image"
    text = ground.ask("only_in_one", image=f"image {view + 1}", elsewhere=elsewhere)
    ids = (alone.id, *(one.id for one in chosen))
    question = Question("only_in_one", text, "", "", (alone.id,), ids, frame=view)
    return with_options(ground, question, f"the {alone.name}", [f"the {one.name}" for one in chosen])


def matching_point(ground: Ground) -> Question | None:
    """Which point of another image shows the same spot."""
    first, second = ground.rng.sample(ground.views, 2)
    pair = ground.match(first, second)
    if pair is None:
        return None
    point, match = pair
    taken = [match]
    while len(taken) < len(LETTERS):
        other = ground.other_spot(second, taken, near=point if len(taken) == 1 else None)
        if other is None:
            return None
        taken.append(other)
    text = ground.ask("matching_point", image=f"image {second + 1}", at=ground.named(point))
    question = Question("matching_point", text, "", "", points=(point, *taken), frame=second)
    return with_options(ground, question, ground.named(match), [ground.named(one) for one in taken[1:]])


def which_colour(ground: Ground) -> Question | None:
    """Which colour the only thing of its kind has."""
    thing = ground.draw_coloured()
    if thing is None:
        return None
    wrong = ground.rng.sample(thing.wrong_colours(), len(LETTERS) - 1)
    text = ground.ask("which_colour", **thing.slots)
    question = Question("which_colour", text, "", "", (thing.id,), (thing.id,))
    return with_options(ground, question, str(thing.colour), wrong)


def nearest_in_image(ground: Ground) -> Question | None:
    """Which of four things is nearest to a camera."""
    view = ground.rng.choice(ground.views)
    seen = [one for one in ground.things if view in one.seen]
    if len(seen) < len(LETTERS):
        return None
    chosen = ground.rng.sample(seen, len(LETTERS))
    nearest = nearest_thing(ground.facts, [one.id for one in chosen], view)
    if nearest is None:
        return None
    chosen.sort(key=lambda one: one.id != nearest)
    names = [f"the {one.name}" for one in chosen]
    text = ground.ask("nearest_in_image", image=f"image {view + 1}")
    question = Question("nearest_in_image", text, "", "", (), tuple(one.id for one in chosen), frame=view)
    return with_options(ground, question, names[0], names[1:])


CHOICES = (name_at_point, only_in_one, matching_point, which_colour, nearest_in_image)


def with_options(ground: Ground, question: Question, right: str, wrong: list[str]) -> Question:
    """Add lettered options to the text; the right one gets each letter equally often."""
    options = ground.rng.sample(wrong, len(wrong))
    place = ground.rng.randrange(len(options) + 1)
    options.insert(place, right)
    lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, options)]
    text = "\n".join([question.text, *lines, "Answer with the letter of the right option."])
    letter = LETTERS[place]
    return Question(
        question.template,
        text,
        ground.reply("choice", letter=letter, right=right),
        letter,
        question.subjects,
        question.object_ids,
        question.points,
        question.frame,
    )
