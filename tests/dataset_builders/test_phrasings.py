import re
import string
from collections import Counter
from itertools import product

import pytest

from dataset_builders.facts import RecordFacts
from dataset_builders.phrasings import (
    ANSWERS,
    EVIDENCE,
    QUESTIONS,
    RELATIONS,
    counted,
    is_plural,
    listed,
    pluralise,
    sentences,
)
from dataset_builders.schema import KINDS, message_text
from dataset_builders.reading import Reader

SLOTS = {
    "p", "q", "a", "b", "is", "camera", "seen", "phrase", "opposite", "evidence", "cited", "value", "near", "far",
    "shows", "things", "place", "there_is", "last", "a_value", "b_value", "p_value",
}  # fmt: skip


def slots_of(template):
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def every_template():
    return [text for texts in (*QUESTIONS.values(), *ANSWERS.values()) for text in texts] + list(EVIDENCE.values())


def test_templates_have_known_slots_and_no_loose_ends():
    for text in every_template():
        assert slots_of(text) <= SLOTS, text
        assert "  " not in text and not re.search(r"\s[.,?;:]", text), text
        assert not re.search(r"\d(?!D)", text.replace("image 1", "").replace("3D", "")), f"a bare number in {text!r}"
        assert not re.search(r"\b(metres?|meters?|cm|centi)", text), f"a fixed unit in {text!r}"


@pytest.mark.parametrize("kind", QUESTIONS)
def test_every_kind_has_several_phrasings_without_repeats(kind):
    assert len(QUESTIONS[kind]) >= 4 == len({text.lower() for text in QUESTIONS[kind]}) - len(QUESTIONS[kind]) + 4
    assert all(text.endswith(("?", ".")) for text in QUESTIONS[kind])
    needed = slots_of(QUESTIONS[kind][0]) & {"p", "q", "a", "b"}
    assert all(needed <= slots_of(text) for text in QUESTIONS[kind])


def test_every_kind_of_reasoning_turn_has_answers_that_give_the_number():
    for kind, level in KINDS.items():
        if level in ("caption", "vqa") or kind in RELATIONS:
            continue
        assert len(ANSWERS[kind]) >= 4
        assert all("value" in slots_of(text) for text in ANSWERS[kind])


def reader_of(record):
    turn = next(turn for turn in record["turns"] if turn["level"] == "object" and len(turn["object_ids"]) == 2)
    return Reader(RecordFacts(record), turn, [])


@pytest.mark.parametrize("kind", [kind for kind in RELATIONS if kind != "closer_point"])
@pytest.mark.parametrize("asked", [1, -1])
@pytest.mark.parametrize("truth", [1, -1])
def test_no_wording_contradicts_its_own_yes_or_no(records, kind, asked, truth, monkeypatch):
    """Every question x every answer x every phrase, read back and judged against a geometry that is dictated."""
    reader = reader_of(records[0])
    first, second = (reader.facts.objects[name]["mention"] for name in reader.turn["object_ids"])
    monkeypatch.setattr(RecordFacts, "relation", lambda self, kind, one, other, view: (truth, 1.0))
    slots = {"a": first, "b": second, "camera": "the camera", "evidence": "it is measured", "cited": ""}
    yes = asked == truth
    phrases = RELATIONS[kind][0 if asked > 0 else 1]
    opposites = RELATIONS[kind][1 if asked > 0 else 0]
    for phrase, opposite, verb in product(phrases, opposites, ("is", "are")):
        words = slots | {"is": verb, "phrase": phrase.format(**slots), "opposite": opposite.format(**slots)}
        for text in QUESTIONS[kind]:
            (claim,) = reader.claims(sentences(text.format(**words)))
            assert claim[1] == yes
        for text in ANSWERS["yes" if yes else "no"]:
            answer = sentences(text.format(**words))
            (claim,) = reader.claims(answer)
            assert claim[1], answer
            assert re.findall(r"\b(yes|no)\b", answer.lower()) == ["yes" if yes else "no"]


def test_every_phrasing_is_used(records):
    asked, answered = Counter(), Counter()
    for record in records:
        for turn in record["turns"]:
            question, question_number, answer, answer_number = turn["template"].split(".")
            asked[question, int(question_number)] += 1
            answered[answer, int(answer_number)] += 1
    for kind in ("point_depth", "closer_point", "left_right", "front_behind", "nearer_farther", "surface_distance"):
        assert all(asked[kind, number] for number in range(len(QUESTIONS[kind])))
    for kind in ("point_depth", "closer_point", "yes", "no", "surface_distance", "caption"):
        assert all(answered[kind, number] for number in range(len(ANSWERS[kind])))


# Grammar


@pytest.mark.parametrize(
    ("name", "plural", "is_already"),
    [
        ("box", "boxes", False), ("berry", "berries", False), ("toy", "toys", False), ("person", "people", False),
        ("wine glass", "wine glasses", False), ("bus", "buses", False), ("lens", "lenses", False),
        ("hanes socks", "hanes socks", True), ("scissors", "scissors", True), ("people", "people", True),
        ("bookshelf", "bookshelfs", False), ("shelf", "shelves", False), ("cup", "cups", False),
    ],
)  # fmt: skip
def test_plurals(name, plural, is_already):
    assert (pluralise(name), is_plural(name)) == (plural, is_already)


def test_articles_counts_and_lists():
    assert [counted("apple", 1), counted("box", 1), counted("scissors", 1)] == ["an apple", "a box", "scissors"]
    assert [counted("box", 3), counted("box", 40)] == ["three boxes", "40 boxes"]
    assert listed(["a cup"]) == "a cup" and listed(["a", "b", "c"]) == "a, b and c"
    assert sentences("the mug is 1.5 m away. it is there") == "The mug is 1.5 m away. It is there"


def test_plural_names_take_are(records):
    text = " ".join(message_text(one) for record in records for one in record["messages"]).lower()
    assert "the scissors are" in text and "the mug is" in text
    assert not re.search(r"scissors is (?!\d)|(?<!and )the (mug|lamp|cereal box) are", text)
    assert not re.search(r"\bis the scissors\b|\bare the (mug|lamp|cereal box) (?!and)", text)
