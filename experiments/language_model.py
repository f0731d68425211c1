"""The language model of the miniature: a small Qwen3 that speaks of the world before it has seen any of it.

    python -m experiments.language_model --data outputs/world/data --output outputs/language --steps 3000
    python -m experiments.language_model --data outputs/world/data --output outputs/language --steps 9 --layers 1

It learns from the conversations of the data set without their images: words, the order of a dialogue, numbers, and to
recall what was said before. What it cannot know, it guesses from the statistics of the text. Conversations about one
image are read a second time with a list of its things in the image's place ("There is the red chair at the point
(0.398, 0.695), 1.802 m deep."), so that to look up what was asked about is nothing new when the image comes.
"""

import argparse
import math
import re
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm, trange
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM
from transformers.utils.chat_template_utils import render_jinja_template

from experiments.fitting import Optimisation, command, fingerprint, fit, is_made, leave_record, start_weights
from experiments.tiny_models import train_tokenizer
from modeling_spatialboost.processing_spatialboost import CHAT_TEMPLATE

LEARNING_RATE = 4e-3
NEAR_TOKENS = 16
INITIAL_SCALE = 0.1  # Qwen3 has 0.02, behind which most trials took longer to look anything up (docs/log.md)
CONFIGS = ("alignment", "grounding", "single_view", "multi_view", "multi_view_vqa")
ONE_IMAGE = ("alignment", "grounding", "single_view")
MAX_POSITIONS = 4096
LEARNT_TOKENS = 256  # of a conversation in training; longer ones are cut, at another place each time
HELD_OUT = 64  # conversations of each configuration
ANSWER = r"<\|im_start\|>assistant\n(.*?<\|im_end\|>)"
Fluency = dict[str, float]


@dataclass(frozen=True)
class LanguageShape:
    """Sizes of the language model.

    Attributes:
        width: of the tokens; heads are 16 wide.
        num_layers: of attention.
        vocabulary_size: of the tokenizer, special tokens and the 256 bytes included.
    """

    width: int = 192
    num_layers: int = 4
    vocabulary_size: int = 1024

    def config(self, tokenizer: PreTrainedTokenizerFast) -> Qwen3Config:
        """As Qwen3 has it, smaller; two heads share their keys and values.

        The first of several layers sees the last `NEAR_TOKENS` only (Qwen3's sliding window). Over all tokens its
        attention starts out so thin that it never learns to hand on both coordinates of a point (docs/log.md).
        """
        layer_types = ["full_attention"] * self.num_layers
        if self.num_layers > 1:
            layer_types[0] = "sliding_attention"
        return Qwen3Config(
            vocab_size=len(tokenizer),
            hidden_size=self.width,
            intermediate_size=3 * self.width,
            num_hidden_layers=self.num_layers,
            num_attention_heads=self.width // 16,
            num_key_value_heads=max(1, self.width // 32),
            head_dim=16,
            max_position_embeddings=MAX_POSITIONS,
            tie_word_embeddings=True,
            initializer_range=INITIAL_SCALE,
            use_sliding_window=True,
            sliding_window=NEAR_TOKENS,
            layer_types=layer_types,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )


def train_language_model(
    world_data: Path,
    folder: Path,
    shape: LanguageShape,
    steps: int,
    batch_size: int,
    seed: int,
    device: str = "cpu",
) -> Path:
    """Train a tokenizer and a language model on the training conversations, or say that they are there already.

    Args:
        world_data: data set with some of the configurations `CONFIGS`.
        folder: where a `Qwen3ForCausalLM`, its tokenizer and the record `run.json` are saved.
        shape: of the model.
        steps, batch_size: of the optimiser; a batch is that many conversations.
        seed: of weights and draws.
        device: "cpu" or "cuda".

    Raises:
        ValueError: data without conversations; a folder that holds another model.
    """
    data = Path(world_data)
    optimisation = Optimisation(steps, batch_size, LEARNING_RATE, seed, device)
    recipe = {**asdict(shape), **optimisation._asdict(), "data": fingerprint(data, CONFIGS)}
    if is_made(Path(folder), recipe):
        return Path(folder)
    texts = [text for told in (False, True) for rows in conversations(data, "train", told).values() for text in rows]
    tokenizer = train_tokenizer(texts, shape.vocabulary_size)
    start_weights(seed)
    model = Qwen3ForCausalLM(shape.config(tokenizer))
    print(f"A language model of {model.num_parameters():,} parameters reads {len(texts):,} texts: {folder}")
    course = fit(model, len(texts), optimisation, collate=Windows(tokenizer, texts))
    model.config.use_cache = True  # which the trainer turns off
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    perplexity = measure(model, tokenizer, conversations(data, "test"))
    told = measure(model, tokenizer, conversations(data, "test", told=True))
    leave_record(Path(folder), recipe, course, texts=len(texts), perplexity=perplexity, perplexity_told=told)
    return Path(folder)


def conversations(data: Path, split: str, told: bool = False) -> dict[str, list[str]]:
    """By configuration, the conversations of a split in ChatML, as the processor writes them, without their images.

    Args:
        data: of the world.
        split: train or test.
        told: only those about one image, with a list of its things in its place.

    Raises:
        ValueError: there are none.
    """
    texts: dict[str, list[str]] = {}
    for config in ONE_IMAGE if told else CONFIGS:
        files = sorted(map(str, (data / config).glob(f"{split}-*.parquet")))
        if files:
            rows = Dataset.from_parquet(files, columns=["messages", "objects"])
            rendered, _ = render_jinja_template([*rows["messages"]], chat_template=CHAT_TEMPLATE)
            seen = map(_list_things, rows["objects"]) if told else [""] * len(rows)
            texts[config] = [text.replace("<image>", things) for text, things in zip(rendered, seen)]
    if not any(texts.values()):
        raise ValueError(f"world_data={str(data)!r} has no conversations: build it with `spatialboost build`.")
    return texts


def _list_things(objects: list[dict[str, Any]]) -> str:
    placed = [one for one in objects if one["x"] is not None]
    return " ".join(
        f"There is {one['mention']} at the point ({one['x']:.3f}, {one['y']:.3f}), {one['depth_m']:.3f} m deep."
        for one in placed
    )


class Windows:
    """Makes batches: of every conversation its start or a window that starts anywhere, padded on the right."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> None:
        """All texts are split into tokens once."""
        self.padding = tokenizer.pad_token_id
        self.rows = [
            torch.tensor(row, dtype=torch.int32)
            for start in trange(0, len(texts), 1000, desc="splitting texts", unit="thousand")
            for row in tokenizer(texts[start : start + 1000])["input_ids"]
        ]

    def __call__(self, items: list[int]) -> dict[str, torch.Tensor]:
        """Numbers of conversations -> `input_ids`, `attention_mask` and `labels`, (B, L) each."""
        rows = []
        for item in items:
            row = self.rows[item].long()
            start = int(torch.randint(2, ()) * torch.randint(max(1, len(row) - LEARNT_TOKENS + 1), ()))
            rows.append(row[start : start + LEARNT_TOKENS])
        tokens = pad_sequence(rows, batch_first=True, padding_value=-100)
        shown = tokens != -100
        return {"input_ids": tokens.where(shown, self.padding), "attention_mask": shown.long(), "labels": tokens}


def measure(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: dict[str, list[str]]) -> Fluency:
    """Perplexity per token of the answers of held-out conversations, of their words and of their digits apart."""
    model.eval()
    losses: dict[str, list[torch.Tensor]] = {"words": [], "digits": []}
    numbers = [index for piece, index in tokenizer.get_vocab().items() if piece.isdecimal()]
    digits = torch.tensor(numbers, device=model.device)
    for rows in texts.values():
        for text in tqdm(rows[:HELD_OUT], desc="held-out conversations", unit="text"):
            encoded = tokenizer(text, return_offsets_mapping=True)
            spans = [match.span(1) for match in re.finditer(ANSWER, text, re.DOTALL)]
            answered = torch.tensor([any(a <= s < b for a, b in spans) for s, _ in encoded["offset_mapping"]][1:])
            tokens = torch.tensor([encoded["input_ids"][:MAX_POSITIONS]], device=model.device)
            with torch.no_grad():
                loss = functional.cross_entropy(model(tokens).logits[0, :-1].float(), tokens[0, 1:], reduction="none")
            answered, is_digit = answered[: len(loss)].to(loss.device), torch.isin(tokens[0, 1:], digits)
            losses["words"].append(loss[answered & ~is_digit])
            losses["digits"].append(loss[answered & is_digit])
    return {kind: round(math.exp(torch.cat(parts).mean()), 3) for kind, parts in losses.items()}


def make_parser() -> argparse.ArgumentParser:
    """Arguments of `python -m experiments.language_model`."""
    shape = LanguageShape()
    parser = argparse.ArgumentParser(prog="experiments.language_model", description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="data set of the world")
    parser.add_argument("--output", type=Path, required=True, help="folder for the language model")
    parser.add_argument("--width", type=int, default=shape.width, help="of the tokens")
    parser.add_argument("--layers", type=int, default=shape.num_layers)
    parser.add_argument("--vocabulary", type=int, default=shape.vocabulary_size, help="tokens")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch_size", type=int, default=8)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return 0."""
    given: Any = make_parser().parse_args(argv)
    shape = LanguageShape(given.width, given.layers, given.vocabulary)
    train_language_model(given.data, given.output, shape, given.steps, given.batch_size, given.seed, given.device)
    return 0


if __name__ == "__main__":
    sys.exit(command(main))
