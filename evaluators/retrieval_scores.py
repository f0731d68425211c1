"""The scores of retrieval as their benchmarks define them; torchmetrics has none of them.

`torchmetrics.RetrievalMAP` integrates precision as rectangles and knows no junk: on one ranking it gives 0.24 where
ROxford's definition gives 0.20.
"""

import numpy as np


def positions(ranking: np.ndarray, relevant: np.ndarray, junk: np.ndarray) -> np.ndarray:
    """Return where the relevant pictures stand, from 0, once the junk is taken out.

    Args:
        ranking: (N,) picture ids, the best first.
        relevant: (R,) ids.
        junk: (J,) ids that count neither way, such as the query itself.
    """
    kept = ranking[~np.isin(ranking, junk)]
    return np.flatnonzero(np.isin(kept, relevant))


def trapezoidal_average_precision(places: np.ndarray, num_relevant: int) -> float:
    """Return the area under precision and recall by trapezoids, ROxford's and RParis's AP.

    Each relevant picture, the j-th at place p (both from 0), adds `(j / p + (j + 1) / (p + 1)) / 2 / R`, where j / p
    is 1 for p = 0 (Radenovic et al., CVPR 2018; revisitop `python/evaluate.py`, compute_ap).

    Args:
        places: (P,) places of the relevant pictures, ascending, from 0.
        num_relevant: R; NaN for 0, which is left out of the mean.
    """
    if num_relevant == 0:
        return float("nan")
    found = np.arange(len(places))
    before = np.divide(found, places, out=np.ones(len(places)), where=places > 0)
    return float(((before + (found + 1) / (places + 1)) / 2).sum() / num_relevant)


def average_precision(places: np.ndarray, num_relevant: int) -> float:
    """Return the mean precision at the relevant pictures, AmsterTime's AP: 1 / rank for one relevant picture.

    Args:
        places: (P,) places of the relevant pictures, ascending, from 0.
        num_relevant: R; NaN for 0, which is left out of the mean.
    """
    if num_relevant == 0:
        return float("nan")
    return float(((np.arange(len(places)) + 1) / (places + 1)).sum() / num_relevant)


def global_average_precision(confidence: np.ndarray, right: np.ndarray, of_object: np.ndarray) -> float:
    """Return Met's GAP: `sum_i precision(i) * right(i) / M`, all queries in one ranking by confidence.

    Args:
        confidence: (Q,) of the predicted class.
        right: (Q,) whether it is the true one; never for a distractor.
        of_object: (Q,) whether the query shows an exhibit at all; M is their number (NaN for none).
    """
    hits = right[np.argsort(-confidence, kind="stable")].astype(np.float64)
    num_objects = of_object.sum()
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / num_objects) if num_objects else float("nan")


def soft_votes(
    similarities: np.ndarray, labels: np.ndarray, temperature: float, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Classify each query by its neighbours, as Met's kNN classifier does.

    A class counts by its most similar neighbour s; its confidence is `exp(t s) / sum over all classes`, where classes
    without a neighbour count exp(0) (met `code/classifiers/knn_classifier.py`).

    Args:
        similarities: (Q, K) cosines, the most similar first.
        labels: (Q, K) classes of the neighbours.
        temperature: t, by which cosines are multiplied.
        num_classes: of the training set.

    Returns:
        (Q,) predicted classes, (Q,) confidences.
    """
    first = np.ones_like(labels, dtype=bool)  # whether it is the best neighbour of its class
    for column in range(1, labels.shape[1]):
        first[:, column] = (labels[:, :column] != labels[:, column : column + 1]).all(1)
    # an unseen class counts no less than one whose neighbours point away: upstream starts from a similarity of 0
    best = np.maximum(similarities.astype(np.float64), 0)
    top = best[:, 0]
    others = (np.exp(temperature * (best - top[:, None])) * first).sum(1)
    unseen = (num_classes - first.sum(1)) * np.exp(-temperature * top)
    return labels[:, 0], 1 / (others + unseen)
