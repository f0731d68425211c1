"""Classification by the nearest training pictures: DINO's weighted vote on frozen features, nothing is trained."""

from dataclasses import dataclass

import numpy as np
import torch

from evaluators.classification import FRAMING_NOTE, METRICS, Course, aggregate, check, draw
from evaluators.contract import Result, TaskConfig
from evaluators.encoders import Encoder
from evaluators.image_features import MEAN_ONLY
from evaluators.nearest import nearest

__all__ = ["METRICS", "Config", "aggregate", "check", "draw", "evaluate", "vote"]

NEIGHBOURS = (10, 20, 100, 200)  # what the public code tries
CHUNK_ROWS = 4_096


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """A vote of neighbours.

    Attributes:
        neighbours: how many vote; fixed, since the best of several on the reported split would be optimistic.
        temperature: a neighbour's vote is exp(cosine / temperature).
    """

    neighbours: int = 20
    temperature: float = 0.07

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.neighbours < 1 or self.temperature <= 0:
            raise ValueError(
                f"neighbours {self.neighbours} and temperature {self.temperature} cannot vote: pass at least 1 and "
                "more than 0"
            )


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Measure top-1 by nearest neighbours; nothing is random, so there is one run whatever the seeds.

    Raises:
        ValueError: if the data is not as its loader wants it.
    """
    course = Course.start(encoder, config)
    train, test = course.data.train, course.data.test
    vectors, asked = (course.vectors(part)[:, : encoder.hidden_size] for part in (train, test))
    feature = "class token" if course.vectors(test).shape[1] > encoder.hidden_size else MEAN_ONLY
    most = max(NEIGHBOURS) if config.upstream_compat else config.neighbours
    cosines, rows = nearest(asked, vectors, most, encoder.device)
    labels = torch.from_numpy(train.labels)[rows]
    counts = NEIGHBOURS if config.upstream_compat else (config.neighbours,)
    votes = {count: vote(cosines[:, :count], labels[:, :count], config.temperature) for count in counts}
    chosen = max(votes, key=lambda count: (votes[count] == test.labels).mean())

    def predict(known: torch.Tensor, known_labels: np.ndarray, queries: torch.Tensor, _seed: int) -> np.ndarray:
        # an encoder's class token only, as above; a histogram as it is
        width = encoder.hidden_size if queries.shape[1] == 2 * encoder.hidden_size else queries.shape[1]
        found, where = nearest(queries[:, :width], known[:, :width], config.neighbours, encoder.device)
        return vote(found, torch.from_numpy(known_labels)[where], config.temperature)

    protocol = {
        "id": "classification-knn/1" + ("+best-k-on-test" if config.upstream_compat else ""),
        "notes": [
            "Cosine, exact search, no training; a neighbour's vote for its class weighs exp(cosine / temperature). "
            + (
                f"UPSTREAM COMPAT: the number of neighbours is the best of {', '.join(map(str, NEIGHBOURS))} on the "
                "reported split: optimistic."
                if config.upstream_compat
                else "The number of neighbours is fixed beforehand."
            ),
            f"{FRAMING_NOTE}the class token, without one the mean patch token.",
        ],
        "settings": {
            "neighbours": "best" if config.upstream_compat else config.neighbours,
            "temperature": config.temperature,
        },
    }
    notes = [f"feature: {feature}", *([f"neighbours chosen: {chosen}"] if config.upstream_compat else [])]
    return course.result(protocol, [votes[chosen]], course.controls(predict), feature, notes)


def vote(cosines: torch.Tensor, labels: torch.Tensor, temperature: float) -> np.ndarray:
    """Return the class with the largest sum of `exp(cosine / temperature)`.

    Args:
        cosines: (N, K) of the neighbours.
        labels: (N, K) their classes.
        temperature: see above.

    Returns:
        (N,) class ids; of equal sums the smallest id.
    """
    num_classes, winners = int(labels.max()) + 1, []
    for near, names in zip(cosines.split(CHUNK_ROWS), labels.split(CHUNK_ROWS)):  # (N, num_classes) may be large
        weights = torch.exp((near - near.max(1, keepdim=True).values).double() / temperature)
        sums = torch.zeros(len(names), num_classes, dtype=torch.float64).scatter_add_(1, names, weights)
        winners.append(sums.argmax(1))
    return torch.cat(winners).numpy()
