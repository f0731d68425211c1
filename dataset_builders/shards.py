"""The one function that builds a shard, whoever runs it, and the marker that a finished shard leaves.

A shard is a run of items. It is built in memory, written to a staging folder file by file, each appearing by rename,
and ends with its marker, so that a shard with a marker is whole and a build that was killed goes on where it stopped.
"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dataset_builders.configs import CONFIGS, DialogueOptions, Record
from dataset_builders.scene import DropItem, Scene
from dataset_builders.schema import GENERATOR_VERSION, message_text
from dataset_builders.sources import Source, SourceOptions, open_source

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

    @property
    def key(self) -> str:
        """Hash of the arguments, the items, the input files' sizes and the generator's version."""
        facts = asdict(self) | {"output_dir": None, "generator_version": GENERATOR_VERSION}
        facts["source_options"]["input_dir"] = None  # its content counts, wherever it lies
        return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]

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
        files: one per configuration and split that got records: config, split, rows and sha256.
        kept_items: how many items gave at least one record.
        drops: config ("*" = the whole item), item, reason and detail of everything left out.
        sources: rows per source name, licence and scale source, as "source | licence | scale source".
        example: the texts of the first dialogue of each dialogue configuration.
    """

    shard: int
    files: list[dict[str, Any]] = field(default_factory=list)
    kept_items: int = 0
    drops: list[dict[str, str]] = field(default_factory=list)
    sources: dict[str, int] = field(default_factory=dict)
    example: dict[str, list[str]] = field(default_factory=dict)

    @staticmethod
    def marker(plan: BuildPlan, shard: int) -> Path:
        """The file whose presence says that the shard is whole."""
        return plan.staging_dir / f"shard-{shard:05d}.json"

    @classmethod
    def read(cls, plan: BuildPlan, shard: int) -> "ShardReport | None":
        """The report of a finished shard, None if it is not finished."""
        marker = cls.marker(plan, shard)
        return cls(**json.loads(marker.read_text())) if marker.is_file() else None

    @staticmethod
    def staged_file(plan: BuildPlan, shard: int, config: str, split: str) -> Path:
        """Where a shard's Parquet file waits."""
        return plan.staging_dir / f"{config}-{split}-{shard:05d}.parquet"


def build_shard(plan: BuildPlan, shard: int, on_item: Callable[[], object] = lambda: None) -> ShardReport:
    """Build and store one shard.

    Args:
        plan: of the whole build.
        shard: which of its shards.
        on_item: called after every item.
    """
    report, records = _collect(plan, shard, on_item)
    plan.staging_dir.mkdir(parents=True, exist_ok=True)
    for (config, split), rows in sorted(records.items()):
        digest = _write_parquet(rows, config, ShardReport.staged_file(plan, shard, config, split))
        report.files.append({"config": config, "split": split, "rows": len(rows), "sha256": digest})
    write_by_rename(ShardReport.marker(plan, shard), json.dumps(asdict(report), indent=1))
    return report


def write_by_rename(path: Path, text: str) -> None:
    """Write a text file so that it is there whole or not at all."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def _collect(
    plan: BuildPlan, shard: int, on_item: Callable[[], object]
) -> tuple[ShardReport, dict[tuple[str, str], list[Record]]]:
    """All records of a shard by configuration and split, and what was left out."""
    source = open_source(plan.source, plan.source_options)
    report = ShardReport(shard)
    records: dict[tuple[str, str], list[Record]] = {}
    counts: Counter[str] = Counter()
    for item in plan.shard_items(shard):
        scene = _load(source, item, report)
        kept = [] if scene is None else _scene_records(plan, scene, item, report)
        for config, record in kept:
            assert scene is not None
            records.setdefault((config, scene.split), []).append(record)
            counts[f"{scene.source} | {scene.licence} | {scene.scale_source}"] += 1
            if CONFIGS[config].is_dialogue and config not in report.example:
                report.example[config] = [message_text(one).strip() for one in record["messages"]]
        report.kept_items += bool(kept)
        on_item()
    report.sources = dict(counts)
    return report, records


def _load(source: Source, item: str, report: ShardReport) -> Scene | None:
    try:
        scene = source.load(item)
        if scene.split not in SPLITS:
            raise DropItem("unknown_split", f"{item} has the split {scene.split!r}, which is none of {SPLITS}")
        return scene
    except DropItem as drop:
        _count_drop(report, "*", item, drop.reason, drop.detail)
    except Exception as error:  # one bad item never ends a build of many; it is counted under its own reason
        _count_drop(report, "*", item, "unexpected_error", f"{type(error).__name__}: {error}")
    return None


def _scene_records(plan: BuildPlan, scene: Scene, item: str, report: ShardReport) -> list[tuple[str, Record]]:
    """The valid records that a scene gives to each configuration."""
    kept = []
    for config in plan.configs:
        for name, build in CONFIGS[config].jobs(scene, plan.dialogue):
            try:
                record = build()
                problems = CONFIGS[config].check(record)
            except DropItem as drop:
                _count_drop(report, config, item, drop.reason, drop.detail)
                continue
            except Exception as error:  # as in `_load`
                _count_drop(report, config, item, "unexpected_error", f"{name}: {type(error).__name__}: {error}")
                continue
            if problems:
                _count_drop(report, config, item, "invalid_record", f"{name}: {problems[0]}")
            else:
                kept.append((config, record))
    return kept


def _count_drop(report: ShardReport, config: str, item: str, reason: str, detail: str) -> None:
    report.drops.append({"config": config, "item": item, "reason": reason, "detail": detail})


def _write_parquet(rows: list[Record], config: str, path: Path) -> str:
    """Write a Parquet file that appears by rename; returns its sha256."""
    from datasets import Dataset

    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    Dataset.from_list(rows, features=CONFIGS[config].columns()).to_parquet(str(partial))
    with partial.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    os.replace(partial, path)
    return digest
