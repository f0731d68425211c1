"""What an answer of a vision-language model says."""

import numpy as np
import pytest

from evaluators.language.questions import relative_accuracy
from evaluators.language.reading import (
    read_length,
    read_letter,
    read_nearer,
    read_number,
    read_position,
    read_yes_no,
)

POINTS = ((0.705, 0.102, 1), (0.861, 0.415, 2))


@pytest.mark.parametrize(
    ("text", "metres"),
    [
        ("31.2 cm.", 0.312),
        ("Recall that it is 4.721 m. The difference is 1.756 m.", 1.756),
        ("about 3 metres away", 3.0),
        ("2 feet", 0.6096),
        ("250 mm, I think", 0.25),
        ("2.5", None),
        ("It is far.", None),
        ("3 men", None),
    ],
)
def test_the_last_length_counts_and_needs_a_unit(text, metres):
    assert read_length(text) == (None if metres is None else pytest.approx(metres))


def test_a_position_needs_all_three_axes():
    told = "it lies 26.7 cm to the left, 31.3 cm up and 0.964 m forward of the camera"
    assert read_position(told) == pytest.approx((-0.267, -0.313, 0.964))
    assert read_position("1 m to the right, 2 m down and 3 m backward") == (1.0, 2.0, -3.0)
    assert read_position("1 m to the right and 3 m ahead") is None


@pytest.mark.parametrize(
    ("text", "answer"),
    [("Yes.", "yes"), ("It is so, so NO, it is not.", "no"), ("Yes. No, wait.", None), ("It is.", None)],
)
def test_yes_or_no_must_not_be_said_both(text, answer):
    assert read_yes_no(text) == answer


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("The depth at (0.861, 0.415) is 3 m. Thus (0.705, 0.102) is closer to the camera than (0.861, 0.415).", 0),
        ("The point (0.705, 0.102) in image 1 is farther from it than the point (0.861, 0.415) in image 2.", 1),
        ("(0.861, 0.415)", 1),
        ("(0.861, 0.415) in image 1", None),
        ("(0.705, 0.102) and (0.861, 0.415)", None),
        ("(0.1, 0.1) is closer to the camera than (0.861, 0.415).", None),
        ("the left one", None),
    ],
)
def test_the_nearer_point_is_compared_or_named_alone(text, place):
    assert read_nearer(text, POINTS) == place


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(b)", "B"),
        ("C. The red ball", "C"),
        ("The correct answer is (B).", "B"),
        ("Answer: D", "D"),
        ("I would pick (A)", "A"),
        ("The red ball.", "C"),
        ("A dog is there", None),
        ("The answer is a dog", None),
        ("E", None),
        ("", None),
    ],
)
def test_a_choice_is_a_letter_or_the_words_of_an_option(text, letter):
    assert read_letter(text, 4, ("left", "right", "the red ball", "behind")) == letter


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("3", 3.0),
        ("There are twenty-one chairs.", 21.0),
        ("one apple, room 2", 1.0),
        ("1,200.5 square metres", 1200.5),
        ("-2", -2.0),
        ("many", None),
    ],
)
def test_the_first_number_counts_in_digits_or_words(text, number):
    assert read_number(text) == number


@pytest.mark.parametrize(
    ("said", "accuracy"), [(10.0, 1.0), (10.6, 0.9), (8.8, 0.8), (12.2, 0.6), (14.9, 0.1), (15.1, 0.0), (-10.0, 0.0)]
)
def test_mean_relative_accuracy_by_hand(said, accuracy):
    assert relative_accuracy(said, 10.0) == pytest.approx(accuracy)


def test_mean_relative_accuracy_has_ten_thresholds():
    errors = np.linspace(0, 0.6, 500)
    assert len({relative_accuracy(1 + error, 1.0) for error in errors}) == 11
