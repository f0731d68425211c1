"""What a build would ask of a chat model and what that may cost, from a few of its scenes and without any call.

An upper estimate: it takes every scene as kept, every pair of views as usable, no answer as cached, and no answer as
asked for twice. The length of answers is assumed (`ANSWER_TOKENS`); `budget` says how prompts and images are counted.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from dataset_builders.budget import Usage, image_tokens, text_tokens
from dataset_builders.chat_captions import SCHEMA as CAPTIONS_SCHEMA
from dataset_builders.chat_captions import caption_prompt
from dataset_builders.chat_endpoint import ChatOptions
from dataset_builders.chat_messages import MAX_SIDE_PX, Schema, read_prompt, with_schema
from dataset_builders.chat_questions import QUESTIONS_SCHEMA, VERDICTS_SCHEMA
from dataset_builders.chat_vqa import questions_prompt, verdicts_prompt
from dataset_builders.pairing import GROUP_SHARES, GROUP_SIZES, view_groups
from dataset_builders.scene import InputError, Scene, View

ANSWER_TOKENS = {"captions": 160, "questions": 700, "verdicts": 150, "name": 10}
FACTS_TOKENS = 120  # of what a caption's prompt tells of a scene
QUESTIONS_TOKENS = 450  # of the questions and answers that are to be checked again
NAME_CROP_TOKENS = image_tokens(512, 512)


@dataclass(frozen=True)
class Projection:
    """Expected use of a chat model, by purpose."""

    model: str
    by_purpose: dict[str, Usage]
    prices: tuple[float, float] | None = None

    @property
    def total(self) -> Usage:
        """Of all purposes."""
        return sum(self.by_purpose.values(), Usage())

    @property
    def usd(self) -> float | None:
        """Dollars, None where no price is known."""
        return cost_usd(self.total, self.prices)

    def lines(self) -> list[str]:
        """For the terminal, the cost last."""
        shown = {**self.by_purpose, "all": self.total}
        rows = [
            f"{purpose:>9}: {usage.requests:,} requests, {usage.prompt_tokens:,} prompt tokens, "
            f"{usage.answer_tokens:,} answer tokens"
            for purpose, usage in shown.items()
        ]
        cost = "pass --token-price INPUT,OUTPUT to see the cost" if self.usd is None else f"about ${self.usd:,.2f}"
        return [f"chat model {self.model} is asked at most:", *rows, f"{'cost':>9}: {cost}"]


def cost_usd(usage: Usage, prices: tuple[float, float] | None) -> float | None:
    """Dollars for what is used, at prices per million prompt and answer tokens."""
    if prices is None:
        return None
    return (usage.prompt_tokens * prices[0] + usage.answer_tokens * prices[1]) / 1e6


def estimate(
    scenes: Sequence[Scene],
    num_items: int,
    configs: Collection[str],
    options: ChatOptions,
    *,
    by_distance: bool = False,
    regions_per_view: float = 0.0,
) -> Projection:
    """What a build of `num_items` scenes like these would ask.

    Args:
        scenes: a sample, as the source loads them.
        num_items: scenes in the whole build.
        configs: configurations that are built; only those with captions or questions count.
        options: the model and its prices.
        by_distance: whether pairs are chosen by a distance model, which is not asked here.
        regions_per_view: boxes that the chat model is to name, on average; 0 where it names none.

    Raises:
        InputError: there is no scene to judge by.
    """
    if not scenes:
        raise InputError("--dry-run found no scene that can be read, so nothing can be projected; look into --input.")
    used: dict[str, np.ndarray] = {}  # purpose -> requests, prompt tokens, answer tokens
    for scene in scenes:
        for purpose, usage, count in _requests(scene, configs, by_distance, regions_per_view):
            used[purpose] = used.get(purpose, np.zeros(3)) + count * np.array(list(asdict(usage).values()))
    whole = {purpose: np.ceil(one * num_items / len(scenes)).astype(int).tolist() for purpose, one in used.items()}
    return Projection(options.model, {purpose: Usage(*one) for purpose, one in whole.items()}, options.prices)


def _requests(
    scene: Scene, configs: Collection[str], by_distance: bool, regions_per_view: float
) -> Iterator[tuple[str, Usage, float]]:
    """Purpose and size of each request that a scene leads to, and how many of them there are."""
    views = scene.views
    if regions_per_view:
        one = _request("name", read_prompt("name"), (), None) + Usage(0, NAME_CROP_TOKENS, 0)
        yield "name", one, regions_per_view * len(views)
    if "single_view" in configs:
        for view in views:
            yield "captions", _caption_request([view]), 1
    if "multi_view" in configs and len(views) > 1:
        yield "captions", _caption_request(views[: GROUP_SIZES[-1]]), 1
    if "multi_view_vqa" in configs and len(views) > 1:
        if by_distance:  # at most half as many pairs as views, of the sizes that the paper mixes
            pairs, total = len(views) // 2, sum(GROUP_SHARES)
            sizes = [(size, pairs * share / total) for size, share in zip(GROUP_SIZES, GROUP_SHARES)]
        else:
            sizes = [(len(group.views), 1.0) for group in view_groups(scene)]
        for size, count in sizes:
            yield "questions", _request("questions", questions_prompt(), views[:2], QUESTIONS_SCHEMA), count
            if size > 2:
                shown = [views[k % len(views)] for k in range(size)]
                checked = _request("verdicts", verdicts_prompt([], size), shown, VERDICTS_SCHEMA)
                yield "verdicts", checked + Usage(0, QUESTIONS_TOKENS, 0), count


def _caption_request(views: Sequence[View]) -> Usage:
    return _request("captions", caption_prompt(len(views), ""), views, CAPTIONS_SCHEMA) + Usage(0, FACTS_TOKENS, 0)


def _request(purpose: str, prompt: str, views: Sequence[View], schema: Schema | None) -> Usage:
    tokens = text_tokens(with_schema(prompt, schema))
    for view in views:
        height, width = view.image.shape[:2]
        scale = min(1.0, MAX_SIDE_PX / max(height, width))
        tokens += image_tokens(round(width * scale), round(height * scale))
    return Usage(1, tokens, ANSWER_TOKENS[purpose])
