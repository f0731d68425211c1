"""The one function that builds a shard, whoever runs it.

A shard is a run of items. It is built in memory, written to a staging folder file by file, each appearing by rename,
and ends with its marker, so that a shard with a marker is whole and a build that was killed goes on where it stopped.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dataset_builders.configs import CONFIGS, Job, Record
from dataset_builders.duplicates import UNIQUE_SOURCES, hashes_of
from dataset_builders.perception import Models, PerceptualDistance
from dataset_builders.plans import (
    SPLITS,
    BuildPlan,
    ShardReport,
    appearing,
    full_disk_told,
    write_by_rename,
)
from dataset_builders.quality import check_quality, needs_gate
from dataset_builders.scene import DropItem, Scene, drop_for
from dataset_builders.schema import message_text
from dataset_builders.sources import Source, open_source
from dataset_builders.tallies import should_be_balanced

if TYPE_CHECKING:
    import pyarrow
    from datasets import Features

    from dataset_builders.text_client import ChatClient

Rows = dict[tuple[str, str], list[Record]]  # by configuration and split


@dataclass(frozen=True)
class Tools:
    """The outside models that the shard function asks, made once per process; nothing is loaded before it is used."""

    models: Models
    chat: "ChatClient | None" = None

    @cached_property
    def distance(self) -> PerceptualDistance | None:
        """The model that pairs of views are chosen by; small and asked for every scene, it stays in memory."""
        if not self.models.has("distance"):
            return None
        with self.models.use("distance") as model:
            return model

    @classmethod
    def of(cls, plan: BuildPlan) -> "Tools":
        """Those that a plan names."""
        return cls(Models(plan.perception), open_chat(plan))


def open_chat(plan: BuildPlan) -> "ChatClient | None":
    """The client of the plan's chat model."""
    if plan.chat is None:
        return None
    from dataset_builders.text_client import ChatClient

    return ChatClient(plan.chat)


def build_shard(
    plan: BuildPlan, shard: int, tools: Tools | None = None, on_item: Callable[[], object] = lambda: None
) -> ShardReport:
    """Build and store one shard.

    Args:
        plan: of the whole build; its staging folder exists.
        shard: which of its shards.
        tools: the models of this process; None = opened for this shard alone.
        on_item: called after every item.

    Raises:
        InputError: the disk is full, or a model cannot be used at all.
    """
    report, rows = ShardReport(shard), Rows()
    with full_disk_told(plan.output_dir):
        for item, scene, records in _scene_records(plan, report, tools or Tools.of(plan)):
            if scene is not None and records:
                report.items.append(_item_report(plan, item, scene, records))
                _add_rows(records, scene.split, rows, report)
            on_item()
        for (config, split), some in sorted(rows.items()):
            stored = _write_parquet(some, config, ShardReport.staged_file(plan, shard, config, split))
            report.files.append({"config": config, "split": split, **stored})
        write_by_rename(ShardReport.marker(plan, shard), json.dumps(vars(report)))
    return report


def _scene_records(
    plan: BuildPlan, report: ShardReport, tools: Tools
) -> Iterator[tuple[str, Scene | None, list[tuple[str, Record]]]]:
    """Every item of a shard, in order, with its scene and records.

    Items are loaded one at a time, unless models want batches or a chat server many questions at once.
    """
    source = open_source(plan.source, plan.source_options)
    items = plan.shard_items(report.shard)
    together = plan.uses_perception or plan.chat is not None
    for block in [items] if together else [(item,) for item in items]:
        loaded = {item: scene for item in block if (scene := _load(source, item, report)) is not None}
        scenes = _prepare(plan, loaded, report, tools)
        jobs = {item: _jobs(plan, scene, item, report, tools) for item, scene in scenes.items()}
        outcomes = _outcomes(plan, [job for some in jobs.values() for job in some])
        for item in block:
            records = []
            for config, *_ in jobs.get(item, ()):
                outcome = next(outcomes)
                if isinstance(outcome, DropItem):
                    report.drop(config, item, outcome)
                else:
                    records.append((config, outcome))
            yield item, scenes.get(item), records


def _load(source: Source, item: str, report: ShardReport) -> Scene | None:
    try:
        scene = source.load(item)
        if scene.split not in SPLITS:
            raise DropItem("unknown_split", f"{item} has the split {scene.split!r}, which is none of {SPLITS}")
        return scene
    except Exception as error:
        report.drop("*", item, drop_for(error, item))
    return None


def _prepare(plan: BuildPlan, scenes: dict[str, Scene], report: ShardReport, tools: Tools) -> dict[str, Scene]:
    """The scenes, in order, with what models add to them, without those that stay incomplete or cannot be trusted."""
    from dataset_builders.perception.pipeline import perceive, with_gravity

    drops: list[tuple[str, DropItem]] = []
    if plan.uses_perception:
        scenes, drops = perceive(scenes, tools.models, tools.chat)
    prepared = {}
    for item, scene in scenes.items():
        try:
            if needs_gate(scene, asks_chat=plan.chat is not None):
                check_quality(scene)
            prepared[item] = with_gravity(scene)
        except Exception as error:
            drops.append((item, drop_for(error, item)))
    for item, drop in drops:
        report.drop("*", item, drop)
    return prepared


def _jobs(plan: BuildPlan, scene: Scene, item: str, report: ShardReport, tools: Tools) -> list[tuple[str, Job]]:
    """What every configuration wants to make of a scene."""
    jobs: list[tuple[str, Job]] = []
    for config in plan.configs:
        try:
            jobs += [(config, job) for job in CONFIGS[config].jobs(scene, plan.dialogue, tools)]
        except Exception as error:
            report.drop(config, item, drop_for(error, scene.id))
    return jobs


def _outcomes(plan: BuildPlan, jobs: list[tuple[str, Job]]) -> Iterator[Record | DropItem]:
    """What the jobs give, in order; several wait for the chat server at once."""
    if plan.chat is None:
        yield from map(_attempt, jobs)
    else:
        with ThreadPoolExecutor(plan.chat.concurrency) as pool:
            yield from pool.map(_attempt, jobs)


def _attempt(config_and_job: tuple[str, Job]) -> Record | DropItem:
    """A record that may be written, or why there is none."""
    config, (name, build) = config_and_job
    try:
        record = build()
        problems = CONFIGS[config].check(record)
    except Exception as error:
        return drop_for(error, name)
    return DropItem("invalid_record", f"{name}: {problems[0]}") if problems else record


def _add_rows(records: list[tuple[str, Record]], split: str, rows: Rows, report: ShardReport) -> None:
    for config, record in records:
        rows.setdefault((config, split), []).append(record)
        if CONFIGS[config].is_dialogue and config not in report.example:
            report.example[config] = [message_text(one).strip() for one in record["messages"]]


def _item_report(plan: BuildPlan, item: str, scene: Scene, records: list[tuple[str, Record]]) -> dict[str, Any]:
    """An entry of `ShardReport.items`."""
    answers: Counter[str] = Counter()
    captions: Counter[str] = Counter()
    for config, record in records:
        for turn in record.get("turns", ()):
            if should_be_balanced(turn["answer"]):
                answers[f"{config} | {turn['kind']} | {turn['answer']}"] += 1
            if turn["level"] == "caption":
                captions["by a chat model" if turn["template"].endswith(".external") else "from the geometry"] += 1
    return {
        "item": item,
        "split": scene.split,
        "rows": Counter(config for config, _ in records),
        "source": f"{scene.source} | {scene.licence} | {scene.scale_source}",
        "hashes": [] if plan.source in UNIQUE_SOURCES else hashes_of(scene),
        "answers": answers,
        "captions": captions,
    }


def _write_parquet(rows: list[Record], config: str, path: Path) -> dict[str, Any]:
    """Write a Parquet file that appears by rename; returns a hash of it and what its row groups hold.

    The row groups are as large as `datasets` makes them for the viewer and for streaming.
    """
    import pyarrow
    import xxhash
    from datasets.arrow_writer import get_writer_batch_size_from_data_size

    columns = CONFIGS[config].columns()
    table = pyarrow.Table.from_pylist(rows, schema=columns.arrow_schema)
    size = get_writer_batch_size_from_data_size(table.num_rows, table.nbytes)
    with appearing(path) as partial:
        groups = write_tables(
            (table[start : start + size] for start in range(0, table.num_rows, size)), columns, partial
        )
        with partial.open("rb") as stream:
            digest = hashlib.file_digest(stream, xxhash.xxh3_128).hexdigest()
    return {"digest": digest, "row_groups": groups}


def write_tables(tables: "Iterable[pyarrow.Table]", columns: "Features", path: Path) -> list[list[int]]:
    """Write tables as row groups, with the options of `datasets` (page index, features in the metadata).

    Returns:
        Rows and stored bytes of each row group.
    """
    from datasets.arrow_writer import ParquetWriter
    from pyarrow.parquet import read_metadata

    with path.open("wb") as stream:
        writer = ParquetWriter(stream=stream, features=columns)
        for table in tables:
            writer.write_table(table, writer_batch_size=table.num_rows)
        writer.finalize(close_stream=False)
    metadata = read_metadata(path)
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    return [[group.num_rows, sum(group.column(one).total_compressed_size for one in range(group.num_columns))]
            for group in groups]  # fmt: skip
