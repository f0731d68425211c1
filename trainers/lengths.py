"""How many tokens every row has, known before training from its messages and the number of its images."""

import logging
from typing import Any

import pyarrow as pa
from datasets import Dataset
from transformers import PreTrainedConfig
from trl.data_utils import prepare_multimodal_messages

from modeling_spatialboost import SpatialBoostProcessor
from trainers.data import DataSource

logger = logging.getLogger(__name__)
LENGTH_COLUMN = "length"  # where transformers' samplers look for it


def with_lengths(dataset: Dataset, processor: SpatialBoostProcessor, num_proc: int | None = None) -> Dataset:
    """Add the column `length`: tokens of the row as the model reads it, its images included.

    No image is decoded: an image takes as many tokens as any other. `datasets` keeps the outcome.

    Args:
        dataset: with the columns `images` and `messages`.
        processor: of the model.
        num_proc: processes that share the work.
    """
    size = processor.image_processor.size
    raw = dataset.select_columns(["images", "messages"]).with_format("arrow")
    counted = raw.map(
        _count_batch,
        batched=True,
        batch_size=256,
        fn_kwargs={
            "tokenizer": processor.tokenizer,
            "chat_template": processor.chat_template,
            "tokens_per_image": processor.num_image_tokens(size["height"], size["width"]),
        },
        remove_columns=raw.column_names,
        num_proc=num_proc,
        desc="Counting tokens",
    ).with_format(None)
    return dataset.add_column(LENGTH_COLUMN, counted[LENGTH_COLUMN][:])


def settle_long_rows(
    dataset: Dataset, sources: list[DataSource], config: PreTrainedConfig, long_samples: str
) -> tuple[Dataset, int]:
    """Refuse or drop the rows that the language model has no positions for; none is ever cut.

    Args:
        dataset: with the columns `length` and `id`.
        sources: what the data set is made of.
        config: of the language model.
        long_samples: "refuse" or "drop".

    Returns:
        The data set without them, and their number.

    Raises:
        ValueError: there are such rows and `long_samples` is "refuse", or no row is left.
    """
    limit = getattr(config, "max_position_embeddings", None)
    if limit is None:  # positions without end
        return dataset, 0
    lengths = dataset[LENGTH_COLUMN][:]
    long = [row for row, length in enumerate(lengths) if length > limit]
    if not long:
        return dataset, 0
    found = f"{len(long)} of {len(lengths)} rows are longer than the {limit} positions of the language model"
    example = f"{_name(long[0], dataset, sources)} has {lengths[long[0]]} tokens"
    if long_samples == "refuse":
        raise ValueError(
            f"{example}, and {found}: pass --long_samples drop to train without them, fewer views or a smaller "
            "image_size, projector_shuffle 2 in stage 1, or a language model with more positions."
        )
    if len(long) == len(lengths):
        raise ValueError(f"{example}, and {found}: nothing is left to train on.")
    logger.warning(f"{found} and are dropped, the first is {example}")
    kept = set(long)
    return dataset.select([row for row in range(len(lengths)) if row not in kept]), len(long)


def _name(row: int, dataset: Dataset, sources: list[DataSource]) -> str:
    """A row of the joined data set, as the source that it came from knows it."""
    number = row
    for source in sources:
        if number < source.rows:
            break
        number -= source.rows
    return f"datasets={source.name!r}: row {number} (id {dataset['id'][row]!r})"


def _count_batch(batch: pa.Table, tokenizer: Any, chat_template: str, tokens_per_image: int) -> dict[str, list[int]]:
    """Tokens of the text, in which each image is one token, and of the images."""
    counts = [len(images) for images in batch["images"]]
    rows = zip(batch["messages"].to_pylist(), counts)
    conversations = [prepare_multimodal_messages(messages, [None] * count) for messages, count in rows]
    texts = tokenizer.apply_chat_template(conversations, chat_template=chat_template, tokenize=False)
    tokens = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return {LENGTH_COLUMN: [len(ids) + (tokens_per_image - 1) * count for ids, count in zip(tokens, counts)]}
