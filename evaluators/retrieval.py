"""Retrieval by the cosine of whole-image features: ROxford, RParis, AmsterTime, Met, or places in folders."""

from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch

from evaluators.contract import Result, TaskConfig
from evaluators.data_sets.amstertime import load_amstertime
from evaluators.data_sets.image_folder import Pictures, check_limit, read_places
from evaluators.data_sets.met import DISTRACTOR, load_met
from evaluators.data_sets.oxford_paris import load_oxford_paris
from evaluators.data_sets.rankings import ExhibitData, RankingData, leave_one_out
from evaluators.encoders import Encoder
from evaluators.framing import Framing, FramingName
from evaluators.hit_pictures import save_hits
from evaluators.image_features import MEAN_ONLY, Describer, EncoderDescriber, control_describers, picture_vectors
from evaluators.metrics import Metric
from evaluators.nearest import nearest
from evaluators.retrieval_scores import (
    average_precision,
    global_average_precision,
    positions,
    soft_votes,
    trapezoidal_average_precision,
)

METRICS = (
    Metric("map_hard", "mAP hard (%)", higher_is_better=True),
    Metric("map_medium", "mAP medium (%)", higher_is_better=True),
    Metric("map_easy", "mAP easy (%)", higher_is_better=True),
    Metric("map", "mAP (%)", higher_is_better=True),
    Metric("gap", "GAP (%)", higher_is_better=True),
)
RANKED = {3: ("map_hard", "map_medium", "map_easy"), 1: ("map",)}  # by the number of columns of the items
FRAMINGS: dict[str, FramingName] = {
    "roxford": "letterbox",
    "rparis": "letterbox",
    "landmarks": "letterbox",
    "amstertime": "crop",
    "met": "native",
}
FRAMING_NOTES = {
    "letterbox": "Pictures: long side bicubic to the input, black borders (DINOv3's 224 with a full centre crop).",
    "crop": "Pictures: short side bicubic to 256/224 of the input, centre crop.",
    "native": "Pictures: own size, each side bicubic to the nearest multiple of the patch size.",
    "squash": "Pictures: bicubic to the input, without keeping the aspect ratio.",
}
NEIGHBOURS = (1, 2, 3, 5, 7, 10, 15, 20, 50)  # what Met tunes on its validation queries
TEMPERATURES = (0.01, 0.1, 1.0, 5.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 100.0, 500.0)
CONTROL_ITEMS = 20_000
NUM_HITS = 5
THUMBNAIL = Framing("letterbox", (160, 160), 1)


@dataclass(frozen=True, kw_only=True)
class Config(TaskConfig):
    """A search.

    Attributes:
        framing: how pictures become the encoder's input, see `Framing`; None: what the benchmark's protocol says.
        crop_queries: cut the queries of ROxford and RParis to their boxes, as the protocol demands.
    """

    framing: FramingName | None = None
    crop_queries: bool = True

    def __post_init__(self) -> None:
        """Check the framing."""
        Framing(self.framing or "crop", (1, 1), 1)


def check(config: Config) -> None:
    """Look at the data before anything is measured.

    Raises:
        ValueError: if it is not as its loader wants it.
    """
    _load(config)


def evaluate(encoder: Encoder, config: Config) -> Result:
    """Measure mAP (easy, medium, hard) or GAP; nothing is random, so there is one run whatever the seeds.

    Raises:
        ValueError: if the data is not as its loader wants it.
    """
    data = _load(config)
    name = config.framing or FRAMINGS[config.data_set]
    if name == "native" and not encoder.any_size:
        name = "letterbox"  # the encoder takes one size only
    wanted = config.resolution if config.resolution and encoder.any_size else encoder.input_size_px
    framing = Framing(name, encoder.fit_resolution(wanted), encoder.patch_size_px)
    search = Search(data, config, EncoderDescriber(encoder, framing), encoder)
    items, tuned = search.measure()
    small = data if _num_pictures(data) <= CONTROL_ITEMS else data.cut(CONTROL_ITEMS)
    controls = {
        control: aggregate(Search(small, config, describer, encoder).measure()[0])
        for control, describer in control_describers(encoder, framing).items()
    }
    return {
        "protocol": {
            "id": f"retrieval-{config.data_set}/1" + ("" if config.crop_queries else "+uncropped"),
            "notes": [*_notes(data), FRAMING_NOTES[name], *_control_notes(data)],
            "settings": {"framing": name, "crop_queries": config.crop_queries},
            "differs": data.differs,
        },
        "data": data.describe(),
        "encoder": {
            **encoder.describe(),
            "resolution_px": ["own size"] if name == "native" else list(framing.resolution),
            "feature": search.feature,
            "framing": name,
            "notes": [f"feature: {search.feature}", *tuned],
        },
        "seeds": list(config.seeds[:1]),
        "items": [items],
        "controls": controls,
        "examples": search.examples(),
    }


def aggregate(items: np.ndarray) -> dict[str, float]:
    """Return mean AP, or GAP, in per cent; the number of columns tells which.

    Args:
        items: (Q, 3) AP hard, medium, easy; (Q, 1) AP; or (Q, 2) confidence and 1 right, 0 wrong, -1 no exhibit. AP is
            NaN for a query without relevant pictures, which does not count.
    """
    if items.shape[1] == 2:
        confidence, verdict = items.T
        return {"gap": 100 * global_average_precision(confidence, verdict == 1, verdict >= 0)}
    counted = np.isfinite(items)
    means = np.where(counted, items, 0).sum(0) / np.where(counted.any(0), counted.sum(0), np.nan)
    return dict(zip(RANKED[items.shape[1]], (100 * means).tolist()))


def draw(file: Path, base: Result, boosted: Result) -> None:
    """Draw queries with the first hits of both encoders."""
    save_hits(file, base["examples"], boosted["examples"])


@dataclass(frozen=True)
class Search:
    """A benchmark searched with the features of one describer."""

    data: RankingData | ExhibitData
    config: Config
    describer: Describer
    encoder: Encoder

    @property
    def feature(self) -> str:
        """What of the encoder is compared."""
        width = self._all_columns(self._queries()).shape[1]
        return "class token" if width > self.encoder.hidden_size else MEAN_ONLY

    def measure(self) -> tuple[np.ndarray, list[str]]:
        """Return the items, see `aggregate`, and what was tuned on validation queries."""
        if isinstance(self.data, ExhibitData):
            return self._classify(self.data)
        ranking = self._ranking(len(self.data.database))
        score = trapezoidal_average_precision if self.data.trapezoidal else average_precision
        columns = [
            [score(positions(row, level.relevant, level.junk), len(level.relevant)) for row, level in zip(ranking, of)]
            for of in self.data.levels.values()
        ]
        return np.array(columns).T, []

    def examples(self) -> list[dict[str, np.ndarray]]:
        """Return queries, spread over all of them, with their first hits that are no junk."""
        queries = self._queries()
        count = min(self.config.num_examples, len(queries))
        chosen = np.unique(np.linspace(0, len(queries) - 1, count).round().astype(int)).tolist()
        database = self.data.train.pictures if isinstance(self.data, ExhibitData) else self.data.database
        whole = NUM_HITS if isinstance(self.data, ExhibitData) else len(database)
        ranking = self._ranking(whole, chosen)
        examples = []
        for query, row in zip(chosen, ranking):
            hits, right = self._first_hits(query, row)
            thumbnails = [np.asarray(THUMBNAIL(database[hit])) for hit in hits]
            query_thumbnail = np.asarray(THUMBNAIL(queries[query]))
            examples.append({"query": query_thumbnail, "hits": np.stack(thumbnails), "right": np.array(right)})
        return examples

    def _first_hits(self, query: int, row: np.ndarray) -> tuple[list[int], list[bool]]:
        """Return the first hits of a query and whether each is right (of ROxford and RParis: easy or hard)."""
        if isinstance(self.data, ExhibitData):
            return row.tolist(), (self.data.train.labels[row] == self.data.test.labels[query]).tolist()
        level = self.data.levels.get("map_medium", self.data.levels.get("map", ()))[query]
        hits = row[~np.isin(row, level.junk)][:NUM_HITS]
        return hits.tolist(), np.isin(hits, level.relevant).tolist()

    def _classify(self, data: ExhibitData) -> tuple[np.ndarray, list[str]]:
        """Tune on the validation queries, classify those of the test."""
        num_classes = len(np.unique(data.train.labels))
        vectors = self._vectors(data.train.pictures)
        found = {}
        for split in ("val", "test"):
            part = getattr(data, split)
            cosines, rows = nearest(self._vectors(part.pictures), vectors, max(NEIGHBOURS), self.describer.device)
            found[split] = (cosines.numpy(), data.train.labels[rows.numpy()], part.labels)

        def items(split: str, neighbours: int, temperature: float) -> np.ndarray:
            cosines, labels, truth = found[split]
            voted = soft_votes(cosines[:, :neighbours], labels[:, :neighbours], temperature, num_classes)
            verdict = np.where(truth == DISTRACTOR, -1, voted[0] == truth)
            return np.stack([voted[1], verdict], axis=1).astype(np.float64)

        best = max(product(NEIGHBOURS, TEMPERATURES), key=lambda pair: aggregate(items("val", *pair))["gap"])
        tuned = f"chosen on the validation queries: {best[0]} neighbours, temperature {best[1]:g}"
        return items("test", *best), [tuned]

    def _ranking(self, count: int, chosen: list[int] | None = None) -> np.ndarray:
        """Return (Q, count) ids of the database, the most similar first; of all queries or of some."""
        database = self.data.train.pictures if isinstance(self.data, ExhibitData) else self.data.database
        asked = self._vectors(self._queries())
        asked = asked if chosen is None else asked[chosen]
        return nearest(asked, self._vectors(database), count, self.describer.device)[1].numpy()

    def _queries(self) -> Pictures:
        return self.data.test.pictures if isinstance(self.data, ExhibitData) else self.data.queries

    def _all_columns(self, pictures: Pictures) -> torch.Tensor:
        return picture_vectors(self.describer, pictures, self.config.cache_dir)

    def _vectors(self, pictures: Pictures) -> torch.Tensor:
        """Return (N, C): of an encoder the class token, or the mean patch token where there is none."""
        vectors = self._all_columns(pictures)
        return vectors[:, : self.encoder.hidden_size] if isinstance(self.describer, EncoderDescriber) else vectors


def _load(config: Config) -> RankingData | ExhibitData:
    """Load the benchmark, cut to `config.limit`."""
    assert config.data is not None  # the catalogue says that the data set has a place
    check_limit(config.limit)
    data: RankingData | ExhibitData
    if config.data_set == "met":
        data = load_met(config.data)
    elif config.data_set == "amstertime":
        data = load_amstertime(config.data)
    elif config.data_set == "landmarks":
        data = leave_one_out(config.data, read_places(config.data))
    else:
        data = load_oxford_paris(config.data_set, config.data, config.crop_queries)
    return data if config.limit is None else data.cut(config.limit)


def _num_pictures(data: RankingData | ExhibitData) -> int:
    return len(data.train.labels) if isinstance(data, ExhibitData) else len(data.database)


def _notes(data: RankingData | ExhibitData) -> list[str]:
    if isinstance(data, RankingData):
        ap = "trapezoidal AP as in revisitop" if data.trapezoidal else "AP"
        return [f"Ranking by cosine, exact; {ap}, queries without relevant pictures left out.", *data.notes]
    return [
        "Exact nearest exhibits by cosine; a class counts by its nearest picture, confidence is a softmax over all "
        "classes; GAP ranks all queries by confidence, distractors among them.",
        "The number of neighbours and the temperature are tuned for GAP on the validation queries; no PCA whitening, "
        "which Met's own baseline adds.",
    ]


def _control_notes(data: RankingData | ExhibitData) -> list[str]:
    lines = ["Controls: `random encoder` is the architecture without training, `colour histogram` sees colours only."]
    if _num_pictures(data) > CONTROL_ITEMS:
        lines.append(f"They search {CONTROL_ITEMS:,} pictures, the relevant ones first, which is easier.")
    return lines


__all__ = ["METRICS", "Config", "Search", "aggregate", "check", "draw", "evaluate"]
