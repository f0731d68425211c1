"""The `hub` source: the images of any data set that `datasets.load_dataset` reads, streamed, nothing downloaded whole.

`--dataset` is an id of the Hub or a folder in any layout that `datasets` knows (Parquet, image folder, WebDataset).
Rows are read in order through one open stream per process, so that a row is read once; going back opens it anew. With
several workers each of them reads the whole stream at most once.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.scene import DropItem, InputError, Scene
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.image_files import photograph, read_image, refuse_views, safe_id


class HubSource:
    """One scene per row; the other columns are not read."""

    how_to_get: ClassVar[str] = (
        "Pass --dataset ORG/NAME of an image data set on https://huggingface.co/datasets; if it is gated accept the "
        "licence on its page and set HF_TOKEN."
    )

    def __init__(self, options: SourceOptions) -> None:
        """Open the data set and find its images.

        Raises:
            InputError: no data set, or it cannot be opened, or it is not said which of its columns holds the images.
        """
        if options.dataset is None:
            raise InputError("--dataset is missing; pass ORG/NAME of a data set on the Hub, or a folder.")
        if options.input_dir is not None:
            raise InputError(f"--input {options.input_dir} is of no use to --source hub; pass --dataset instead.")
        refuse_views(options, "hub")
        self.options = options
        self.column = _image_column(_open(*_address(options)), options)

    def list_items(self) -> Sequence[str]:
        """Row numbers: as many as the data set says it has, or as the user wants of it.

        Raises:
            InputError: neither is known.
        """
        splits = _open(*_address(self.options)).info.splits or {}
        known = splits[self.options.dataset_split].num_examples if self.options.dataset_split in splits else None
        limits = [number for number in (known, self.options.num_scenes) if number]
        if not limits:
            raise InputError(
                f"--dataset {self.options.dataset} does not say how many rows it has; pass --num-scenes with that."
            )
        return [f"row-{row:08d}" for row in range(min(limits))]

    def load(self, item: str) -> Scene:
        """Read one row.

        Raises:
            DropItem: "missing_row", "unreadable_row", "missing_image", or a reason of `read_image` or `photograph`.
        """
        address = _address(self.options)
        name = f"{Path(address[0]).name}-{self.options.dataset_split}-{item}"
        stored = _stream(*address, self.column).row(int(item.rpartition("-")[2]), name)
        file = read_image(_content(stored, name), name)
        return Scene(
            id=safe_id(name),
            source="hub",
            licence=_licence(address[0]),
            views=(photograph(file, self.options.intrinsics),),
            scale_source="none",
            split="test" if self.options.dataset_split == "test" else "train",
        )


class _Stream:
    """The rows of one column, read forwards."""

    def __init__(self, dataset: Any, column: str) -> None:
        from datasets import Image

        self._dataset = dataset.select_columns([column]).cast_column(column, Image(decode=False))
        self._column = column
        self._rows: Iterator[dict[str, Any]] | None = None
        self._next = 0

    def row(self, number: int, name: str) -> dict[str, Any] | None:
        """What row `number` holds: {"bytes", "path"} or None; `name` is what a drop calls it."""
        if self._rows is None or number < self._next:
            self._rows, self._next = iter(self._dataset.skip(number)), number
        try:
            while True:
                found = next(self._rows)[self._column]
                self._next += 1
                if self._next > number:
                    return found
        except StopIteration:
            self._rows = None
            raise DropItem("missing_row", f"{name} is beyond the end of the data set") from None
        except Exception as error:  # a damaged Parquet page, a connection that is lost for good
            self._rows = None
            raise DropItem("unreadable_row", f"{name} cannot be read: {error}") from error


def _address(options: SourceOptions) -> tuple[str, str | None, str]:
    assert options.dataset is not None
    return options.dataset, options.dataset_config, options.dataset_split


@lru_cache(maxsize=1)
def _open(dataset: str, config: str | None, split: str) -> Any:
    """The data set as a stream.

    Raises:
        InputError: it does not exist, cannot be reached, is gated, or has no such configuration or split.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetNotFoundError

    try:
        return load_dataset(dataset, config, split=split, streaming=True)
    except DatasetNotFoundError as error:
        if "gated" in str(error):
            page = f"https://huggingface.co/datasets/{dataset}"
            raise InputError(
                f"--dataset {dataset} is gated; accept its licence at {page} and set HF_TOKEN."
            ) from error
        raise InputError(f"--dataset {dataset} does not exist on the Hub or is private; check the id.") from error
    except FileNotFoundError as error:
        raise InputError(f"--dataset {dataset} is neither a folder with data nor on the Hub: {error}") from error
    except (ConnectionError, TimeoutError) as error:
        raise InputError(
            f"--dataset {dataset} cannot be reached; go online or pass a local folder ({error})."
        ) from error
    except (
        ValueError
    ) as error:  # "BuilderConfig 'x' not found. Available: [...]", "Bad split: x. Available splits: ..."
        argument = f"--dataset-split {split}" if "split" in str(error) else f"--dataset-config {config}"
        raise InputError(f"{argument} does not fit --dataset {dataset}: {' '.join(str(error).split())}") from error


@lru_cache(maxsize=1)
def _stream(dataset: str, config: str | None, split: str, column: str) -> _Stream:
    return _Stream(_open(dataset, config, split), column)


@lru_cache(maxsize=1)
def _licence(dataset: str) -> str:
    """The licence in the data set's card, "unknown" where there is none."""
    from huggingface_hub import DatasetCard

    local = Path(dataset) / "README.md"
    try:
        stated = DatasetCard.load(local if Path(dataset).is_dir() else dataset).data.license
    except (OSError, ValueError):  # no card, or no connection to it
        return "unknown"
    return " ".join([stated] if isinstance(stated, str) else stated or ["unknown"])


def _image_column(dataset: Any, options: SourceOptions) -> str:
    """The column that holds the images."""
    from datasets import Image

    features = dataset.features or dataset._resolve_features().features or {}
    images = [name for name, feature in features.items() if isinstance(feature, Image)]
    chosen = options.image_column
    if chosen is not None and chosen not in images:
        what = "holds no images" if chosen in features else "does not exist"
        raise InputError(f"--image-column {chosen} {what}; columns with images: {', '.join(images) or 'none'}.")
    if not images:
        raise InputError(f"--dataset {options.dataset} has no column of type Image, only {', '.join(features)}.")
    if chosen is None and len(images) > 1:
        raise InputError(
            f"--image-column is missing: --dataset {options.dataset} has {', '.join(images)}; choose one."
        )
    return chosen or images[0]


def _content(stored: dict[str, Any] | None, name: str) -> bytes:
    """The bytes of an image, from the row or from the file that it names."""
    import fsspec

    if stored is None:
        raise DropItem("missing_image", f"{name} holds no image")
    if stored["bytes"] is not None:
        return stored["bytes"]
    try:
        with fsspec.open(stored["path"], "rb") as stream:
            return stream.read()
    except OSError as error:
        raise DropItem("missing_file", f"{name}: {stored['path']} cannot be read") from error
