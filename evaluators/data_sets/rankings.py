"""What a retrieval benchmark consists of: queries, a database, and what is relevant or junk to each query."""

from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from evaluators.data_sets.image_folder import LabelledPictures, Pictures


@dataclass(frozen=True)
class Level:
    """The truth of one query at one level of difficulty: ids in the database, (R,) relevant and (J,) junk."""

    relevant: np.ndarray
    junk: np.ndarray


@dataclass(frozen=True)
class RankingData:
    """A benchmark that ranks a database for each query.

    Attributes:
        source: where it is.
        queries: pictures that are searched with.
        database: pictures that are ranked.
        levels: per metric the truth of every query.
        trapezoidal: which AP, `trapezoidal_average_precision` or `average_precision`.
        notes: sentences for the report.
        differs: why the numbers cannot be put beside the paper's, "" if they can.
    """

    source: str
    queries: Pictures
    database: Pictures
    levels: dict[str, tuple[Level, ...]]
    trapezoidal: bool
    notes: tuple[str, ...]
    differs: str = ""

    def describe(self) -> dict[str, Any]:
        """Return what a report prints about the data."""
        splits = {}
        for name, pictures in (("queries", self.queries), ("database", self.database)):
            splits[name] = {"items": len(pictures), "dropped": {}, "fingerprint": pictures.fingerprint}
        return {"source": self.source, "splits": splits}

    def cut(self, limit: int) -> "RankingData":
        """Keep the first `limit` queries and as many pictures of the database, relevant ones of each in turn first."""
        first = next(iter(self.levels.values()))[:limit]
        relevant = {name: [level.relevant for level in levels[:limit]] for name, levels in self.levels.items()}
        in_turn = chain.from_iterable(zip_longest(*chain.from_iterable(relevant.values())))
        order = dict.fromkeys(int(row) for row in chain(in_turn, range(len(self.database))) if row is not None)
        kept = np.array(sorted(list(order)[:limit]))
        levels = {
            name: tuple(Level(_renumber(level.relevant, kept), _renumber(level.junk, kept)) for level in of[:limit])
            for name, of in self.levels.items()
        }
        return replace(
            self,
            queries=self.queries.select(range(len(first))),
            database=self.database.select(kept),
            levels=levels,
        )


def leave_one_out(source: str, places: LabelledPictures) -> RankingData:
    """Search with every picture of a place for the others of it; the picture itself is junk."""
    labels, count = places.labels, len(places.labels)
    truth = tuple(
        Level(np.flatnonzero((labels == labels[row]) & (np.arange(count) != row)), np.array([row]))
        for row in range(count)
    )
    return RankingData(
        source=source,
        queries=places.pictures,
        database=places.pictures,
        levels={"map": truth},
        trapezoidal=False,
        notes=(
            "Every picture is a query for the others of its folder; it is itself taken out of the ranking.",
            "AP is the mean precision at the relevant pictures; a picture that is alone in its folder does not count.",
        ),
        differs="the data set is not one of the paper's",
    )


@dataclass(frozen=True)
class ExhibitData:
    """Met: a training set of exhibits, and queries of which some show none of them (label -1)."""

    source: str
    train: LabelledPictures
    val: LabelledPictures
    test: LabelledPictures
    differs: str = ""

    def describe(self) -> dict[str, Any]:
        """Return what a report prints about the data."""
        splits = {name: getattr(self, name).describe() for name in ("train", "val", "test")}
        return {"source": self.source, "splits": splits}

    def cut(self, limit: int) -> "ExhibitData":
        """Keep `limit` of each split; of the training set the queries' exhibits first."""
        val, test = (part.select(_spread(len(part.labels), limit)) for part in (self.val, self.test))
        wanted = np.isin(self.train.labels, np.concatenate([val.labels, test.labels]))
        order = np.concatenate([np.flatnonzero(wanted), np.flatnonzero(~wanted)])
        return replace(self, train=self.train.select(np.sort(order[:limit])), val=val, test=test)


def _spread(count: int, limit: int) -> np.ndarray:
    """Return at most `limit` row numbers, evenly over `count`."""
    return np.unique(np.linspace(0, count - 1, min(limit, count)).round().astype(np.int64))


def _renumber(rows: np.ndarray, kept: np.ndarray) -> np.ndarray:
    """Return where those of `rows` that are kept stand among the kept."""
    return np.flatnonzero(np.isin(kept, rows))
