"""What decides the bytes of a data set, and what its finished shards say of themselves."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builders.configs import DialogueOptions
from dataset_builders.perception import MODELS, PerceptionOptions
from dataset_builders.scene import FULL_DISK, DropItem, InputError
from dataset_builders.schema import GENERATOR_VERSION
from dataset_builders.sources import SourceOptions

if TYPE_CHECKING:
    from dataset_builders.text_client import ChatOptions

STAGING_FOLDER = ".build"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class BuildPlan:
    """Everything that decides the bytes of a data set; `output_dir` decides only where they go."""

    source: str
    source_options: SourceOptions
    dialogue: DialogueOptions
    configs: tuple[str, ...]
    items: tuple[str, ...]
    shard_size: int
    input_fingerprint: str
    output_dir: Path
    perception: PerceptionOptions = field(default_factory=PerceptionOptions)
    chat: "ChatOptions | None" = None
    notices: tuple[str, ...] = ()
    file_size_mb: int = 500

    @cached_property
    def key(self) -> str:
        """Hash of the arguments, the items, the input files' sizes and the generator's version.

        Where the input lies, on what device and in what batches models run, and which server serves the chat model
        may change from run to run of one build.
        """
        here = replace(
            self,
            output_dir=Path(),
            source_options=replace(self.source_options, input_dir=None),
            perception=replace(self.perception, device="auto", batch_size=1, keep_models=False),
            chat=None,
        )
        asked = ("model", "seed", "temperature", "max_answer_tokens", "max_requests", "max_tokens")
        chat = self.chat and [getattr(self.chat, name) for name in asked]
        facts = asdict(here) | {"chat": chat, "generator_version": GENERATOR_VERSION}
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def uses_perception(self) -> bool:
        """Whether any model is named that completes scenes."""
        return any(getattr(self.perception, kind) is not None for kind in MODELS if kind != "distance")

    @property
    def num_shards(self) -> int:
        """How many shards the items make."""
        return -(-len(self.items) // self.shard_size)

    @property
    def staging_dir(self) -> Path:
        """Where finished shards wait for the others."""
        return self.output_dir / STAGING_FOLDER / self.key

    def shard_items(self, shard: int) -> tuple[str, ...]:
        """The items of a shard."""
        return self.items[shard * self.shard_size : (shard + 1) * self.shard_size]


@dataclass
class ShardReport:
    """What became of the items of a shard; its JSON form is the marker.

    Attributes:
        shard: its number.
        files: one per configuration and split that got records: config, split, digest, and rows and stored bytes of
            each row group.
        items: one per item that gave records, in order: item, split, rows per configuration, source as "source |
            licence | scale source", hashes of its views, answers counted as "configuration | kind | answer", and
            captions counted by who wrote them.
        drops: config ("*" = the whole item), item, reason and detail of everything left out.
        example: the texts of the first dialogue of each dialogue configuration.
    """

    shard: int
    files: list[dict[str, Any]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    drops: list[dict[str, str]] = field(default_factory=list)
    example: dict[str, list[str]] = field(default_factory=dict)

    @staticmethod
    def marker(plan: BuildPlan, shard: int) -> Path:
        """The file whose presence says that the shard is whole."""
        return plan.staging_dir / f"shard-{shard:05d}.json"

    @classmethod
    def read(cls, plan: BuildPlan, shard: int) -> "ShardReport":
        """The report of a finished shard."""
        return cls(**json.loads(cls.marker(plan, shard).read_text(encoding="utf-8")))

    @staticmethod
    def staged_file(plan: BuildPlan, shard: int, config: str, split: str) -> Path:
        """Where a shard's Parquet file waits."""
        return plan.staging_dir / f"{config}-{split}-{shard:05d}.parquet"

    def drop(self, config: str, item: str, reason: DropItem) -> None:
        """Count what is left out."""
        self.drops.append({"config": config, "item": item, "reason": reason.reason, "detail": reason.detail})


@dataclass(frozen=True)
class ShardReports:
    """The reports of all shards of a build, in order, read from disk one at a time."""

    plan: BuildPlan

    def __iter__(self) -> Iterator[ShardReport]:
        """Read them anew; they may be gone through several times."""
        return (ShardReport.read(self.plan, shard) for shard in range(self.plan.num_shards))


@contextmanager
def appearing(path: Path, partial_dir: Path | None = None) -> Iterator[Path]:
    """A path to write to, which becomes `path` when all went well, and is removed otherwise."""
    partial = (partial_dir or path.parent) / f"{path.name}.{os.getpid()}.partial"
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_by_rename(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    with appearing(path) as partial:
        partial.write_text(text, encoding="utf-8")


@contextmanager
def full_disk_told(output_dir: Path) -> Iterator[None]:
    """Turn a full disk into one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise InputError(
            f"no space is left on the disk of --output {output_dir}; free some and run the same command again, it "
            "goes on where it stopped."
        ) from error
