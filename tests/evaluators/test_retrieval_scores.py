"""AP and GAP against numbers worked out by hand and against the definitions of the public code."""

import numpy as np
import pytest
import torch
from torchmetrics.functional.retrieval import retrieval_average_precision

from evaluators.retrieval import aggregate
from evaluators.retrieval_scores import (
    average_precision,
    global_average_precision,
    positions,
    soft_votes,
    trapezoidal_average_precision,
)


def revisitop_ap(ranking, ok, junk):
    """The definition in steps: precision before and after each relevant picture, junk does not move places."""
    area, relevant_seen, place = 0.0, 0, 0
    for picture in ranking:
        if picture in junk:
            continue
        if picture in ok:
            before = 1.0 if place == 0 else relevant_seen / place
            relevant_seen += 1
            area += (before + relevant_seen / (place + 1)) / 2 / len(ok)
        place += 1
    return area


@pytest.mark.parametrize(
    ("places", "num_relevant", "expected"),
    [
        ([0], 1, 1.0),
        ([0, 1, 2], 3, 1.0),
        ([1], 1, (0 + 1 / 2) / 2),
        ([0, 2], 2, (1 + (1 / 2 + 2 / 3) / 2) / 2),  # 0.791667
        ([2, 3], 2, ((0 + 1 / 3) / 2 + (1 / 3 + 2 / 4) / 2) / 2),  # 0.291667
        ([0], 2, 0.5),  # one of two was never ranked
        ([], 2, 0.0),
    ],
)
def test_trapezoidal_average_precision_by_hand(places, num_relevant, expected):
    assert trapezoidal_average_precision(np.array(places, int), num_relevant) == pytest.approx(expected)


def test_junk_is_taken_out_before_ranks_are_counted():
    ranking, relevant, junk = np.array([5, 3, 0, 4, 1, 2]), np.array([0, 1]), np.array([5, 4])
    assert positions(ranking, relevant, junk).tolist() == [1, 2]  # 3 0 1 2
    assert positions(ranking, relevant, np.array([], int)).tolist() == [2, 4]
    assert trapezoidal_average_precision(np.array([1, 2]), 2) == pytest.approx(
        ((0 + 1 / 2) / 2 + (1 / 2 + 2 / 3) / 2) / 2
    )


def test_any_ranking_gives_what_the_public_definition_gives():
    random = np.random.default_rng(0)
    for _ in range(50):
        ranking, marks = random.permutation(40), random.integers(0, 4, 40)
        ok, junk = np.flatnonzero(marks == 1), np.flatnonzero(marks == 2)
        ours = trapezoidal_average_precision(positions(ranking, ok, junk), len(ok))
        assert ours == pytest.approx(revisitop_ap(ranking.tolist(), set(ok.tolist()), set(junk.tolist())))


def test_torchmetrics_integrates_otherwise():
    places, relevant = np.array([1, 3]), torch.tensor([0, 1, 0, 1, 0])
    theirs = retrieval_average_precision(torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5]), relevant).item()
    assert average_precision(places, 2) == pytest.approx(theirs)  # AmsterTime's
    assert trapezoidal_average_precision(places, 2) == pytest.approx(0.3333333) and theirs == pytest.approx(0.5)


def test_average_precision_of_one_relevant_picture_is_one_by_its_rank():
    assert [average_precision(np.array([place]), 1) for place in (0, 1, 3)] == [1, 1 / 2, 1 / 4]
    assert np.isnan(average_precision(np.array([], int), 0)) and np.isnan(
        trapezoidal_average_precision(np.array([], int), 0)
    )


def test_global_average_precision_by_hand():
    confidence = np.array([0.9, 0.8, 0.7, 0.6])
    right, of_object = np.array([True, False, True, False]), np.array([True, False, True, True])
    # ranked: right, distractor, right, wrong; three queries show an exhibit
    assert global_average_precision(confidence, right, of_object) == pytest.approx((1 + 2 / 3) / 3)
    assert global_average_precision(confidence[::-1], right, of_object) == pytest.approx((1 / 2 + 2 / 4) / 3)
    items = np.stack([confidence, np.array([1, -1, 1, 0])], axis=1)
    assert aggregate(items) == {"gap": pytest.approx(100 * 5 / 9)}


def upstream_vote(similarities, labels, temperature, num_classes):
    """One query as met's classifier counts it."""
    best = {}
    for similarity, label in zip(similarities, labels):
        best[label] = max(best.get(label, 0), similarity)
    weights = {label: np.exp(temperature * similarity) for label, similarity in best.items()}
    total = sum(weights.values()) + num_classes - len(weights)
    winner = max(weights, key=weights.get)
    return winner, weights[winner] / total


def test_votes_are_those_of_mets_classifier():
    random = np.random.default_rng(0)
    similarities = np.sort(random.uniform(-0.2, 1, (30, 5)), axis=1)[:, ::-1]
    similarities[:, 0] = similarities[:, 0].clip(0.1)
    labels = random.integers(0, 4, (30, 5))
    for temperature in (0.01, 1.0, 100.0):
        winners, confidences = soft_votes(similarities, labels, temperature, 9)
        expected = [upstream_vote(*row, temperature, 9) for row in zip(similarities, labels)]
        assert winners.tolist() == [winner for winner, _ in expected]
        assert confidences == pytest.approx([confidence for _, confidence in expected])


def test_mean_ap_leaves_out_queries_without_relevant_pictures():
    items = np.array([[0.5, 1.0, np.nan], [np.nan, 0.5, np.nan]])
    scores = aggregate(items)
    assert (scores["map_hard"], scores["map_medium"]) == (50, 75) and np.isnan(scores["map_easy"])
    assert aggregate(np.array([[0.25], [0.75]])) == {"map": 50.0}
