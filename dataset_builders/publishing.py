"""From the staged files of a finished build to the data set: merged, without duplicates, with a card and a report.

Every file is written in the staging folder and appears under its own name by rename; the report comes last. The layout
follows from the shards' reports alone, so that a run that was killed here finds its files and goes on after them.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from dataset_builders.card import BuildSummary, dataset_card, file_name, report_json, summarise
from dataset_builders.configs import CONFIGS
from dataset_builders.plans import BuildPlan, ShardReport, appearing, full_disk_told
from dataset_builders.shards import write_tables

if TYPE_CHECKING:
    import pyarrow

REPORT_NAME = "build_report.json"
CLASSES_NAME = "classes.json"
CARD_NAME = "README.md"
PICTURE_NAME = "example.png"
BYTES_PER_MB = 1_000_000


@dataclass(frozen=True)
class RowGroup:
    """A row group of a staged file.

    Attributes:
        staged: the file.
        number: of the row group in it.
        count: how many the file has.
        stored_bytes: what the row group takes.
        kept: which of its rows are kept.
    """

    staged: Path
    number: int
    count: int
    stored_bytes: int
    kept: tuple[bool, ...]


@dataclass
class Piece:
    """One published file: a run of row groups."""

    groups: list[RowGroup] = field(default_factory=list)
    stored_bytes: int = 0

    @property
    def staged(self) -> set[Path]:
        """The files that it is read from."""
        return {group.staged for group in self.groups}

    @property
    def is_a_staged_file(self) -> bool:
        """Whether it is one staged file as it is."""
        whole = len(self.staged) == 1 and len(self.groups) == self.groups[0].count
        return whole and all(all(group.kept) for group in self.groups)


def publish(
    plan: BuildPlan, reports: Iterable[ShardReport], command: str, class_names: tuple[str, ...]
) -> dict[str, Any]:
    """Merge the staged files, then write classes, card and, last of all, the report; may be repeated.

    Args:
        plan: of the build, all shards of which are finished.
        reports: of all shards, in order; gone through several times.
        command: that makes this data again.
        class_names: of the ids in class maps.

    Returns:
        The content of `build_report.json`.

    Raises:
        InputError: the disk is full.
    """
    summary = summarise(plan, reports)
    with full_disk_told(plan.output_dir):
        names: list[str] = []
        for config, split in summary.rows:
            pieces = _pieces(
                _row_groups(plan, reports, config, split, summary.duplicates), plan.file_size_mb * BYTES_PER_MB
            )
            names += _write_pieces(plan, config, split, pieces)
        if class_names and "dense" in summary.configs:
            _write(plan, CLASSES_NAME, json.dumps(class_names, indent=1))
        if summary.rows:
            picture = _write_picture(plan, summary, names)
            _write(plan, CARD_NAME, dataset_card(plan, summary, command, class_names, picture))
        content = report_json(plan, summary, reports) | {"files": names}
        _write(plan, REPORT_NAME, json.dumps(content, indent=1))
    remove_staging(plan)
    return content


def remove_staging(plan: BuildPlan) -> None:
    """Remove what a finished build does not need, also if it was killed while doing so."""
    shutil.rmtree(plan.staging_dir.parent, ignore_errors=True)


def _row_groups(
    plan: BuildPlan, reports: Iterable[ShardReport], config: str, split: str, duplicates: dict[str, str]
) -> Iterator[RowGroup]:
    """The row groups of a configuration and split, in the order of the items, those with rows that are kept."""
    for report in reports:
        groups = [group for file in report.files if (file["config"], file["split"]) == (config, split)
                  for group in file["row_groups"]]  # fmt: skip
        kept = [one["item"] not in duplicates for one in report.items if one["split"] == split
                for _ in range(one["rows"].get(config, 0))]  # fmt: skip
        staged = ShardReport.staged_file(plan, report.shard, config, split)
        start = 0
        for number, (num_rows, stored_bytes) in enumerate(groups):
            mask = tuple(kept[start : start + num_rows])
            start += num_rows
            if any(mask):
                yield RowGroup(staged, number, len(groups), stored_bytes, mask)


def _pieces(groups: Iterable[RowGroup], limit_bytes: int) -> list[Piece]:
    """Runs of row groups, each as long as it stays below the limit."""
    pieces = [Piece()]
    for group in groups:
        if pieces[-1].groups and pieces[-1].stored_bytes + group.stored_bytes > limit_bytes:
            pieces.append(Piece())
        pieces[-1].groups.append(group)
        pieces[-1].stored_bytes += group.stored_bytes
    return pieces


def _write_pieces(plan: BuildPlan, config: str, split: str, pieces: list[Piece]) -> list[str]:
    """Write what is not there yet, and free the disk of what was read; returns the names."""
    names = [file_name(config, split, part, len(pieces)) for part in range(len(pieces))]
    bar = tqdm(zip(names, pieces, [*pieces[1:], Piece()]), f"{config}/{split}", len(pieces), leave=False, unit="file")
    for name, piece, following in bar:
        target = plan.output_dir / name
        if not target.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            if piece.is_a_staged_file:
                os.replace(piece.groups[0].staged, target)
            else:
                _merge(piece, config, target, plan.staging_dir)
        for staged in piece.staged - following.staged:
            staged.unlink(missing_ok=True)
    return names


def _merge(piece: Piece, config: str, target: Path, partial_dir: Path) -> None:
    """Copy row group by row group."""
    with appearing(target, partial_dir) as partial:
        write_tables(map(_read, piece.groups), CONFIGS[config].columns(), partial)


def _read(group: RowGroup) -> "pyarrow.Table":
    from pyarrow.parquet import ParquetFile

    with ParquetFile(group.staged) as staged:
        table = staged.read_row_group(group.number)
    return table if all(group.kept) else table.filter(list(group.kept))


def _write_picture(plan: BuildPlan, summary: BuildSummary, names: list[str]) -> str | None:
    """Draw the record that the card tells; returns the picture's name, None where there is none to draw."""
    from dataset_builders.card_picture import draw_example, example_record  # which draws as `inspection` does

    if summary.example_config is None:
        return None
    files = (plan.output_dir / name for name in names if name.startswith(f"{summary.example_config}/"))
    record = example_record(files, summary.examples[summary.example_config])
    if record is None:
        return None
    with appearing(plan.output_dir / PICTURE_NAME, plan.staging_dir) as partial:
        draw_example(record, partial)
    return PICTURE_NAME


def _write(plan: BuildPlan, name: str, text: str) -> None:
    with appearing(plan.output_dir / name, plan.staging_dir) as partial:
        partial.write_text(text, encoding="utf-8")
