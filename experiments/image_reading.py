"""Does a vision-language model look at the image? Its answers with the image, with another one, and with none.

    python -m experiments.image_reading outputs/stage2 --data outputs/world/data --configs grounding single_view

Held-out conversations, all earlier turns given as they should be (teacher forcing): an answer is right if each of its
tokens is the model's first choice. A model that does not look answers as well with the image of another conversation.
"""

import argparse
import json
import random
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, Image, List
from torch.nn import functional
from tqdm import tqdm
from transformers import PreTrainedModel

from experiments.depth_questions import depths_of
from experiments.fitting import command
from experiments.variants import VARIANTS, changed_rows
from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostProcessor

SHOWN = ("own", "other", "none")  # images: of the conversation, of another one with as many, grey
PRACTISED = {  # configurations as stage 2 shows them: variant, and what it is made from
    "pointing": ("pointing", "grounding"),
    "depth_pointing": ("depth_pointing", "grounding"),
    "depth_questions": ("depth_questions", "grounding"),
    "single_view_in_depth": ("depth_pictures", "single_view"),
}
Sums = dict[str, dict[str, float]]


def held_out_files(data: Path, config: str) -> list[str]:
    """Of the held-out conversations of a configuration."""
    _, source = PRACTISED.get(config, ("", config))
    return sorted(map(str, (data / source).glob("test-*.parquet")))


def read_rows(data: Path, config: str, limit: int) -> Dataset:
    """The first held-out conversations of a configuration, or of one of `PRACTISED`.

    Raises:
        ValueError: there are none.
    """
    if not (files := held_out_files(data, config)):
        raise ValueError(f"--configs {config}: {data} has no split test of it; build it with `spatialboost build`.")
    rows = Dataset.from_parquet(files)
    rows = rows.select(range(min(limit, len(rows)))).cast_column("images", List(Image(decode=False)))
    if config in PRACTISED:
        variant = VARIANTS[PRACTISED[config][0]]
        depths = depths_of(data, "test") if variant.needs_depth else None
        rows = Dataset.from_list(changed_rows(list(rows), variant, depths=depths), features=rows.features)
    return rows.cast_column("images", List(Image()))


def others(rows: Dataset, seed: int = 0) -> list[int]:
    """For each conversation another one with as many images; itself where there is none."""
    groups = defaultdict(list)
    for index, images in enumerate(rows.select_columns(["images"]).with_format("arrow")["images"].to_pylist()):
        groups[len(images)].append(index)
    partner = list(range(len(rows)))
    for members in groups.values():
        random.Random(seed).shuffle(members)
        for one, following in zip(members, members[1:] + members[:1]):
            partner[one] = following
    return partner


def measure_reading(
    vlm: Path, data: Path, configs: list[str], limit: int = 100, device: str = "cpu"
) -> dict[str, Any]:
    """By configuration and kind of question: share of right answers and mean loss per token, for each of `SHOWN`.

    Raises:
        ValueError: a configuration without held-out conversations.
    """
    model = SpatialBoostForConditionalGeneration.from_pretrained(vlm, dtype=torch.float32).eval().to(device)
    processor = SpatialBoostProcessor.from_pretrained(vlm)
    results = {}
    for config in configs:
        rows = read_rows(data, config, limit)
        partner = others(rows)
        sums: dict[str, Sums] = defaultdict(lambda: {shown: defaultdict(float) for shown in SHOWN})
        for index in tqdm(range(len(rows)), desc=f"{config}, held out", unit="conversation"):
            row, images = rows[index], {"own": rows[index]["images"], "other": rows[partner[index]]["images"]}
            kinds = [turn["kind"] for turn in row["turns"]]
            for shown in SHOWN:
                scores = answer_scores(model, processor, row["messages"], images.get(shown, images["own"]), shown)
                for kind, (right, losses) in zip([*kinds, *["caption"] * len(scores)], scores):
                    for name in (kind, "all"):
                        sums[name][shown]["answers"] += 1
                        sums[name][shown]["right"] += right
                        sums[name][shown]["tokens"] += len(losses)
                        sums[name][shown]["loss"] += float(losses.sum())
        results[config] = {kind: _means(found) for kind, found in sorted(sums.items())}
    return results


def answer_scores(
    model: PreTrainedModel, processor: SpatialBoostProcessor, messages: list[dict], images: list[Any], shown: str
) -> list[tuple[bool, torch.Tensor]]:
    """Of each answer of a conversation, whether every token is the first choice, and the losses of its tokens."""
    inputs = processor.apply_chat_template(
        [_filled(messages, images)], tokenize=True, return_dict=True, return_assistant_tokens_mask=True,
        return_tensors="pt",
    )  # fmt: skip
    answered = torch.as_tensor(inputs.pop("assistant_masks"))[0, 1:].bool()
    inputs = {name: value.to(model.device) for name, value in inputs.items()}
    if shown == "none":
        inputs["pixel_values"] = torch.zeros_like(inputs["pixel_values"])
    with torch.no_grad():
        logits = model(**inputs).logits[0, :-1].float().cpu()
    truth = inputs["input_ids"][0, 1:].cpu()
    losses = functional.cross_entropy(logits, truth, reduction="none")
    first = logits.argmax(-1) == truth
    starts = (answered & ~functional.pad(answered, (1, 0))[:-1]).long().cumsum(0)  # number of the answer, from 1
    places = [answered & (starts == number) for number in range(1, int(starts.max()) + 1)]
    return [(bool(first[place].all()), losses[place]) for place in places]


def _filled(messages: list[dict[str, Any]], images: list[Any]) -> list[dict[str, Any]]:
    """Messages with their images in place of the placeholders."""
    rest = iter(images)
    fill = {"image": lambda part: {"type": "image", "image": next(rest)}, "text": dict}
    return [
        {"role": message["role"], "content": [fill[part["type"]](part) for part in message["content"]]}
        for message in messages
    ]


def _means(found: Sums) -> dict[str, Any]:
    shares = {shown: found[shown]["right"] / found[shown]["answers"] for shown in SHOWN}
    losses = {shown: found[shown]["loss"] / found[shown]["tokens"] for shown in SHOWN}
    return {"answers": int(found["own"]["answers"]), "right": shares, "loss": losses}


def table(results: dict[str, Any]) -> str:
    """As Markdown."""
    head = "| questions | answers | right, % with own / other / no image | loss per token |\n|---|---|---|---|"
    lines = [head]
    for config, kinds in results.items():
        for kind, one in kinds.items():
            right = " / ".join(f"{100 * one['right'][shown]:.1f}" for shown in SHOWN)
            loss = " / ".join(f"{one['loss'][shown]:.3f}" for shown in SHOWN)
            lines.append(f"| {config}: {kind} | {one['answers']} | {right} | {loss} |")
    return "\n".join(lines)


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `python -m experiments.image_reading`."""
    parser = argparse.ArgumentParser(prog="experiments.image_reading", description=__doc__.split("\n")[0])
    parser.add_argument("vlm", type=Path, help="output folder of stage 2 or 3")
    parser.add_argument("--data", type=Path, required=True, help="data set of the world")
    parser.add_argument("--configs", nargs="+", default=["single_view"], help="of the data set")
    parser.add_argument("--limit", type=int, default=100, help="conversations of each configuration")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--json", type=Path, help="file for the figures")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0."""
    given = make_parser().parse_args(argv)
    results = measure_reading(given.vlm, given.data, given.configs, given.limit, given.device)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
