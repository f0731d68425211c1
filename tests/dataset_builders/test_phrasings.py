"""The wording itself: every template of the dialogue and of the VQA set, and what they read like when filled.

After a wanted change of wording: RENEW_SNAPSHOTS=1 pytest tests/dataset_builders/test_phrasings.py, and read the
difference that git shows.
"""

import json
import os
import re
import string
from collections import Counter
from itertools import product
from pathlib import Path

import pytest

from dataset_builders.facts import RecordFacts
from dataset_builders.grammar import COUNT_WORDS, sentences
from dataset_builders.grounding_phrasings import GROUNDING_ANSWERS, GROUNDING_QUESTIONS
from dataset_builders.phrasings import ANSWERS, EVIDENCE, PREAMBLE, QUESTIONS, RECALL, RELATIONS, SUPERLATIVES
from dataset_builders.reading import Reader
from dataset_builders.schema import KINDS, message_text
from dataset_builders.vqa_phrasings import VQA_ANSWERS, VQA_QUESTIONS
from dataset_builders.vqa_verification import EXPECTED

SNAPSHOT = Path(__file__).parent / "snapshots" / "phrasings.json"
SLOTS = {
    "p", "q", "a", "b", "is", "camera", "seen", "phrase", "opposite", "evidence", "cited", "value", "near", "far",
    "shows", "things", "place", "there_is", "last", "a_value", "b_value", "p_value",
}  # fmt: skip
VQA_SLOTS = {
    "at", "there", "the", "noun", "one", "is", "does", "be", "image", "first", "second", "pair", "everywhere",
    "elsewhere", "things", "colour", "answer", "show", "count", "found", "side", "closer",
    "yes", "fact", "letter", "right", "order",
}  # fmt: skip
ENTITIES = {"p", "q", "a", "b", "at", "there", "noun", "one", "things", "colour"}  # all wordings speak of the same
REQUESTS = r"(give|describe|tell|name|find|point|locate|estimate|sum|summarise|write|list|please|count|compare) "
LISTS = {f"dialogue {name}": texts for name, texts in QUESTIONS.items()}
LISTS |= {f"VQA {name}": texts for name, texts in VQA_QUESTIONS.items()}
LISTS |= {f"grounding {name}": texts for name, texts in GROUNDING_QUESTIONS.items()}
REPLIES = {f"dialogue {name}": texts for name, texts in ANSWERS.items()}
REPLIES |= {f"VQA {name}": texts for name, texts in VQA_ANSWERS.items()}
REPLIES |= {f"grounding {name}": texts for name, texts in GROUNDING_ANSWERS.items()}


def slots_of(template):
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def every_template():
    return [text for texts in (*LISTS.values(), *REPLIES.values()) for text in texts] + list(EVIDENCE.values())


def test_wordings_are_frozen():
    wording = {
        "preamble": PREAMBLE, "questions": QUESTIONS, "answers": ANSWERS, "evidence": EVIDENCE, "recall": RECALL,
        "relations": RELATIONS, "superlatives": SUPERLATIVES, "vqa_questions": VQA_QUESTIONS,
        "vqa_answers": VQA_ANSWERS,
    }  # fmt: skip
    text = json.dumps(wording, indent=1) + "\n"
    if os.environ.get("RENEW_SNAPSHOTS"):
        SNAPSHOT.write_text(text, encoding="utf-8")
    assert text == SNAPSHOT.read_text(encoding="utf-8"), "the wording changed; see the head of this file"


def test_templates_have_known_slots_and_no_loose_ends():
    for text in every_template():
        assert slots_of(text) <= SLOTS | VQA_SLOTS, text
        assert "  " not in text and not re.search(r"\s[.,?;:]|[.?]{2}", text), text
        assert not re.search(r"\d(?!D)", text.replace("image 1", "").replace("3D", "")), f"a bare number in {text!r}"
        assert not re.search(r"\b(metres?|meters?|cm|centi|feet|inch)", text), f"a fixed unit in {text!r}"
        assert not re.search(rf"\b({'|'.join(COUNT_WORDS[2:])})\b", text, re.IGNORECASE), f"a count in {text!r}"


@pytest.mark.parametrize("kind", LISTS)
def test_every_kind_has_six_questions_that_ask_the_same(kind):
    texts = LISTS[kind]
    assert len(texts) >= 6 and len({text.lower() for text in texts}) == len(texts)
    assert all(re.search(r"[?.]$", text) for text in texts)
    assert len({frozenset(slots_of(text) & ENTITIES) for text in texts}) == 1
    for text in texts:
        asks = re.match(REQUESTS, text, re.IGNORECASE)
        assert text.endswith("?") or asks, f"{text!r} is neither a question nor a request"


@pytest.mark.parametrize("kind", REPLIES)
def test_every_kind_has_four_answers(kind):
    texts = REPLIES[kind]
    assert len(texts) >= 4 and len({text.lower() for text in texts}) == len(texts)
    assert all(text.endswith(".") for text in texts)


def test_every_kind_of_reasoning_turn_has_answers_that_give_the_number():
    for kind, level in KINDS.items():
        if level not in ("caption", "vqa", "grounding") and kind not in RELATIONS:
            assert kind in QUESTIONS and all("value" in slots_of(text) for text in ANSWERS[kind])


def test_every_vqa_template_has_wordings_and_a_verifier():
    assert set(VQA_QUESTIONS) == set(EXPECTED)
    polar = {"in_all", "in_one", "no_such_thing", "wrong_colour", "same_spot"}
    choices = {"name_at_point", "only_in_one", "matching_point", "which_colour", "nearest_in_image"}
    assert set(VQA_ANSWERS) == set(VQA_QUESTIONS) - polar - choices | {"polar", "choice"}
    for text in VQA_ANSWERS["polar"]:
        assert text.count("{yes}") == 1 and not re.search(r"\b(yes|no|not)\b", text.replace("{yes}", ""))
    assert all(text.startswith("{letter}.") for text in VQA_ANSWERS["choice"])


FILLERS = {
    "singular": {"a": "the mug", "the": "the mug", "is": "is", "does": "does", "be": "is", "noun": "mug"},
    "plural": {"a": "the scissors", "the": "the scissors", "is": "are", "does": "do", "be": "are", "noun": "scissors"},
}


@pytest.mark.parametrize("number", FILLERS)
def test_filled_templates_agree_in_number_and_begin_with_a_capital(number):
    for text in every_template():
        slots = dict.fromkeys(SLOTS | VQA_SLOTS, "it") | {"b": "the lamps", "yes": "yes"} | FILLERS[number]
        slots |= {"one": "a red mug" if number == "singular" else "red scissors", "cited": ""}
        filled = sentences(text.format_map(slots))
        assert re.match(r"[A-Z]", filled), filled
        assert not re.search(r"[.?!] [a-z]", filled), filled
        wrong = "are|do" if number == "singular" else "is|does|has"
        name = slots["the"]
        assert not re.search(rf"(?<!of )(?<!to ){name} ({wrong})\b(?! (?:that|the visible))", filled), filled
        assert not re.search(rf"\b({wrong}) {name}\b(?! and)", filled, re.IGNORECASE), filled
        assert not re.search(r"\ba (the|a|some)\b|\bthe the\b", filled), filled


# What is said is what was meant


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
        for text in QUESTIONS["nearer_farther" if "camera" in phrase else kind]:
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


def test_plural_names_take_are(records):
    text = " ".join(message_text(one) for record in records for one in record["messages"]).lower()
    assert "the scissors are" in text and "the mug is" in text
    assert not re.search(r"(?<!of the )scissors is (?!\d)|(?<!and )the (mug|lamp|cereal box) are", text)
    assert not re.search(r"\bis the scissors\b|\bare the (mug|lamp|cereal box) (?!and)", text)
