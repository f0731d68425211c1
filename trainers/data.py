"""Training data: the columns `images` and `messages`, loaded and read through once before a stage starts."""

import hashlib
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from traceback import format_exception
from typing import Any

import datasets
import pyarrow as pa
from datasets import Dataset, Image, List, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetsError
from PIL import Image as PillowImage

from modeling_spatialboost.encoder_loading import first_line

COLUMNS = ("images", "messages")
ROW_COLUMN = "id"  # names a row in errors
ROLES = ("system", "user", "assistant")


@dataclass(frozen=True)
class DataSource:
    """One entry of `datasets`: how it was named, how many rows it gave, and the SHA-256 of their two columns."""

    name: str
    rows: int
    fingerprint: str


def load_training_data(
    names: list[str], needs_images: bool = False, num_proc: int | None = None
) -> tuple[Dataset, list[DataSource]]:
    """Load, check and join data sets.

    Args:
        names: each "PATH[:CONFIG[:SPLIT]]"; PATH is a folder or a Hub id, SPLIT defaults to "train".
        needs_images: refuse rows without images, which give a stage nothing to train where the text side is frozen.
        num_proc: processes that read the images; the outcome is cached by `datasets`, so that it is done once.

    Returns:
        One data set of the columns `images`, `messages` and `id` (of the row, a text), and what it is made of.

    Raises:
        ValueError: no such data set, columns missing, or a row that cannot be trained on; names the row and its id.
    """
    parts, sources = [], []
    for name in names:
        dataset = load_source(name)
        missing = [column for column in COLUMNS if column not in dataset.column_names]
        if missing:
            raise ValueError(
                f"datasets={name!r} has no column {' and no column '.join(map(repr, missing))}, only "
                f"{dataset.column_names}: pass a data set made by `spatialboost build`."
            )
        if dataset.features["images"] != List(Image()):
            raise ValueError(
                f"datasets={name!r}: its column 'images' is of type {dataset.features['images']}, not List(Image()): "
                "pass a data set made by `spatialboost build`."
            )
        sources.append(DataSource(name, len(dataset), _check_rows(dataset, name, needs_images, num_proc)))
        parts.append(_with_row_ids(dataset, name).select_columns([*COLUMNS, ROW_COLUMN]))
    try:
        return concatenate_datasets(parts), sources
    except ValueError as error:
        raise ValueError(
            f"datasets={names}: their columns have different types, so they cannot be joined: give the messages of "
            "all of them as lists of {type, text} parts."
        ) from error


def _with_row_ids(dataset: Dataset, name: str) -> Dataset:
    """The rows with their `id` as a text; where a data set has none, its name and the row's number."""
    if ROW_COLUMN not in dataset.column_names:
        return dataset.add_column(ROW_COLUMN, [f"{name} row {row}" for row in range(len(dataset))])
    if dataset.features[ROW_COLUMN] == Value("string"):
        return dataset
    texts = [str(value) for value in dataset[ROW_COLUMN][:]]  # `cast_column` would copy the images
    return dataset.remove_columns(ROW_COLUMN).add_column(ROW_COLUMN, texts)


def load_source(name: str) -> Dataset:
    """The rows of "PATH[:CONFIG[:SPLIT]]", unchecked.

    Raises:
        ValueError: no such data set, configuration or split.
    """
    path, *rest = name.split(":", maxsplit=2)
    config = rest[0] if rest and rest[0] else None
    split = rest[1] if len(rest) == 2 else "train"
    try:
        return load_dataset(path, config, split=split, cache_dir=_cache_dir(path))
    except (OSError, ValueError, DatasetsError) as error:
        raise ValueError(
            f"datasets={name!r} is neither a folder with a data set nor one on the Hub that can be reached. Write "
            f"PATH:CONFIG:SPLIT, such as outputs/data:single_view:train. ({first_line(error)})"
        ) from error


def _cache_dir(path: str) -> str | None:
    """A cache folder of its own for each state of a local data folder, None for a data set on the Hub.

    By itself `datasets` knows a local folder by its name and its card only: after a new build, or for another folder
    of that name, it would go on giving the rows that it has cached.
    """
    folder = Path(path)
    if not folder.is_dir():
        return None
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    state = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(json.dumps(state).encode()).hexdigest()[:32]
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "local_folders" / key)


@contextmanager
def damage_named(names: list[str], num_proc: int | None = None) -> Iterator[None]:
    """Name the row whose image could be read when the data was checked and cannot be read any more.

    What fails in a worker of a data loader comes without the row, so all of them are read again.

    Args:
        names: of the data sets, as `load_training_data` takes them.
        num_proc: processes that read the images.

    Raises:
        ValueError: names the row, or says what a worker said of the cached features.
    """
    try:
        yield
    except (OSError, SyntaxError) as error:  # what Pillow raises
        if "datasets/features/image" in "".join(format_exception(error)).replace("\\", "/"):
            for name in names:
                _check_rows(load_source(name), name, False, num_proc, use_cache=False)
        raise
    except ValueError as error:
        _, ours, sentence = str(error).rpartition("ValueError: cache_features=")
        if ours and "DataLoader worker" in str(error):  # which adds its traceback to the message
            raise ValueError(f"cache_features={sentence.strip()}") from error
        raise


def _check_rows(dataset: Dataset, name: str, needs_images: bool, num_proc: int | None, use_cache: bool = True) -> str:
    """Read every row once; returns the SHA-256 of the two columns."""
    ids = dataset["id"] if "id" in dataset.column_names else None
    raw = dataset.select_columns(list(COLUMNS)).with_format("arrow")  # images as they are stored, nothing copied
    checked = raw.map(
        _examine_batch,
        batched=True,
        batch_size=64,
        fn_kwargs={"needs_images": needs_images},
        remove_columns=raw.column_names,
        num_proc=num_proc,
        load_from_cache_file=use_cache,
        desc=f"Checking {name}",
    ).with_format(None)
    bad = [row for row, problem in enumerate(checked["problem"]) if problem]
    if bad:
        row = bad[0]
        identity = f" (id {ids[row]!r})" if ids is not None else ""
        raise ValueError(
            f"datasets={name!r}: row {row}{identity} {checked['problem'][row]}; {len(bad)} of {len(checked)} rows "
            "cannot be trained on. Repair or drop them."
        )
    return hashlib.sha256("".join(checked["digest"]).encode()).hexdigest()


def _examine_batch(batch: pa.Table, needs_images: bool) -> dict[str, list[str]]:
    checked = [examine_row(row, needs_images) for row in batch.to_pylist()]
    return {key: [row[key] for row in checked] for key in ("problem", "digest")}


def examine_row(row: dict[str, Any], needs_images: bool) -> dict[str, str]:
    """What is wrong with a row ("" if nothing), and the SHA-256 of its columns.

    Args:
        row: `images` undecoded, as `{"bytes", "path"}`, and `messages`.
        needs_images: whether a row without images is wrong.
    """
    digest = hashlib.sha256(json.dumps(row["messages"], sort_keys=True).encode())
    problem = _message_problem(row["messages"], len(row["images"]))
    if needs_images and not row["images"]:
        problem = problem or "has no images, and this stage trains nothing that reads text alone"
    for number, image in enumerate(row["images"], start=1):
        try:
            data = image["bytes"] if image["bytes"] is not None else open(image["path"], "rb").read()  # noqa: SIM115
            digest.update(data)
            PillowImage.open(io.BytesIO(data)).load()
        except (OSError, SyntaxError, ValueError, TypeError, PillowImage.DecompressionBombError) as error:
            problem = problem or f"has an image that cannot be read, number {number} ({error})"
    return {"problem": problem, "digest": digest.hexdigest()}


def _message_problem(messages: list[dict[str, Any]], num_images: int) -> str:
    roles = [message["role"] for message in messages]
    if unknown := sorted(set(roles) - set(ROLES)):
        return f"has messages of role {unknown[0]!r}, known are {', '.join(ROLES)}"
    contents = [message["content"] for message in messages]
    # TRL itself puts all images before the first question where the contents are plain strings
    if not all(isinstance(content, str) for content in contents):
        placeholders = sum(part["type"] == "image" for content in contents for part in content)
        if placeholders != num_images:
            return f"has {num_images} images and {placeholders} image placeholders in its messages"
    if not any(role == "assistant" and _has_text(content) for role, content in zip(roles, contents)):
        return "has no assistant message with text, so it carries no loss"
    return ""


def _has_text(content: str | list[dict[str, Any]]) -> bool:
    return bool(content) if isinstance(content, str) else any(part["text"] for part in content)
