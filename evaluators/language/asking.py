"""What all questions have in common: who answers, what is kept on disk, and the controls that see other images."""

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from accelerate import PartialState
from PIL import Image

from evaluators.array_cache import array_file
from evaluators.encoders import Encoder
from evaluators.language.config import LanguageConfig
from evaluators.language.vlm import VisionLanguageModel, load_vlm

# index of an item -> its images
ImagesOf = Callable[[int], list[Image.Image]]
GREY = (128, 128, 128)
TRUE_IMAGES, NO_IMAGES, OTHER_IMAGES = "", "blind", "other images"


def load_asked(encoder: Encoder, config: LanguageConfig) -> VisionLanguageModel:
    """The model of this side of the comparison, where the encoder is and in its precision."""
    assert config.vlm is not None  # the plan has seen to it
    return load_vlm(config.vlm, config.vlm_state, encoder.device, encoder.dtype)


def ways_of_seeing(
    images_of: ImagesOf, things: Sequence[tuple[str, int]], config: LanguageConfig
) -> dict[str, ImagesOf]:
    """The images that an item is asked with, by the name of the way.

    Args:
        images_of: the true ones.
        things: per item what it is about, and how many images it has.
        config: tells whether there are controls.
    """
    ways = {TRUE_IMAGES: images_of}
    if config.image_controls:
        partners = partners_of(things)
        ways[NO_IMAGES] = lambda index: [_grey(image) for image in images_of(index)]
        ways[OTHER_IMAGES] = lambda index: images_of(partners[index])
    return ways


def partners_of(things: Sequence[tuple[str, int]]) -> list[int]:
    """Per item another one, drawn at random, about another thing with as many images; itself where there is none."""
    random = np.random.default_rng(0)  # a fixed distance would fall in step with data that is ordered
    by_count: dict[int, list[int]] = {}
    for index, (_, count) in enumerate(things):
        by_count.setdefault(count, []).append(index)
    partners = []
    for index, (thing, count) in enumerate(things):
        alike = by_count[count]
        start = int(random.integers(len(alike)))
        others = (other for other in (*alike[start:], *alike[:start]) if things[other][0] != thing)
        partners.append(next(others, index))
    return partners


def kept_answers(vlm: VisionLanguageModel, config: LanguageConfig, key: list[Any], ask: Callable[[], Any]) -> Any:
    """What `ask()` returns, JSON; asked once per model, key and way of generating."""
    state = [vlm.weights_hash, str(vlm.model.dtype), config.max_new_tokens, config.batch_size, *key]
    file = array_file(config.cache_dir, f"answers {json.dumps(state)}").with_suffix(".json")
    if not file.is_file():
        answers = ask()
        if not PartialState().is_main_process:
            return answers
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps(answers))
        partial.replace(file)
    return json.loads(file.read_text())


def gathered(rows: Sequence[tuple[Any, Sequence[float]]]) -> np.ndarray:
    """Put the rows about one thing together, so that they are resampled together: their answers are not independent.

    Args:
        rows: (the thing, D numbers) each, in the order of the data.

    Returns:
        (things, most rows of a thing * D), NaN where a thing has fewer rows.
    """
    by_thing: dict[Any, list[Sequence[float]]] = {}
    for thing, numbers in rows:
        by_thing.setdefault(thing, []).append(numbers)
    width = len(rows[0][1])
    items = np.full((len(by_thing), max(map(len, by_thing.values())), width), np.nan)
    for place, of_thing in enumerate(by_thing.values()):
        items[place, : len(of_thing)] = of_thing
    return items.reshape(len(by_thing), -1)


def single_rows(items: np.ndarray, width: int) -> np.ndarray:
    """Return the (N, `width`) rows of which `gathered` made (things, ...)."""
    rows = items.reshape(-1, width)
    return rows[~np.isnan(rows[:, 0])]


def per_cent(values: np.ndarray) -> float:
    """100 times the mean, NaN of nothing."""
    return 100 * float(values.mean()) if len(values) else float("nan")


def warnings_of(side: str, label: str, scores: dict[str, float]) -> list[str]:
    """What a reader must know of a side: answers that do not need the image.

    Args:
        side: "base" or "boosted".
        label: of the score that decides, higher is better.
        scores: by way of seeing.
    """
    seen = scores[TRUE_IMAGES]
    return [
        f"the {side} model does not answer better with the image than {how}: {label} {seen:.4g}, {scores[way]:.4g}."
        for way, how in ((NO_IMAGES, "without it"), (OTHER_IMAGES, "with another one"))
        if way in scores and seen <= scores[way]
    ]


def _grey(image: Image.Image) -> Image.Image:
    return Image.new("RGB", image.size, GREY)
