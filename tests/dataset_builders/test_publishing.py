"""Merging: sizes, order, row groups, duplicates, and what a kill on the way leaves."""

import itertools
import json
import shutil
from dataclasses import replace

import pyarrow.parquet as pq
import pytest
from datasets import Features, load_dataset

from dataset_builders import publishing
from dataset_builders.configs import CONFIGS
from dataset_builders.executors import run_shards
from dataset_builders.plans import ShardReport
from dataset_builders.publishing import publish
from dataset_builders.tallies import balance
from tests.dataset_builders.builds_for_tests import build, digests, rooms_plan


@pytest.fixture(scope="module")
def staged(tmp_path_factory):
    """A build of eight rooms in shards of two whose files are not merged yet."""
    plan = rooms_plan(tmp_path_factory.mktemp("staged") / "data", num_scenes=8)
    run_shards(plan, 1)
    return plan


def copy_of(staged, folder, **changes):
    """The same staged files for another plan."""
    plan = replace(staged, output_dir=folder, **changes)
    shutil.copytree(staged.staging_dir, plan.staging_dir)
    return plan


def finish(plan):
    return publish(plan, run_shards(plan, 1), "spatialboost build", ("floor",))


def ids(plan, config, split):
    rows = load_dataset(str(plan.output_dir), config, split=split, streaming=True)
    return [row["id"] for row in rows]


def test_one_file_holds_all_rows_in_item_order(staged, tmp_path):
    plan = copy_of(staged, tmp_path / "data")
    expected = [row for report in run_shards(plan, 1) for row in _staged_ids(plan, report)]
    report = finish(plan)
    assert report["files"] == sorted(report["files"], key=report["files"].index)
    assert all(name.endswith("00000-of-00001.parquet") for name in report["files"])
    assert ids(plan, "dense", "train") == expected
    assert not plan.staging_dir.parent.exists()


def _staged_ids(plan, report):
    staged = ShardReport.staged_file(plan, report.shard, "dense", "train")
    return pq.read_table(staged, columns=["id"])["id"].to_pylist() if staged.is_file() else []


def test_files_are_as_datasets_writes_them(staged, tmp_path):
    plan = copy_of(staged, tmp_path / "data")
    one_shard = pq.read_metadata(ShardReport.staged_file(plan, 1, "single_view", "train"))
    finish(plan)
    merged = pq.read_metadata(tmp_path / "data/single_view/train-00000-of-00001.parquet")
    assert Features.from_arrow_schema(merged.schema.to_arrow_schema()) == CONFIGS["single_view"].columns()
    assert merged.num_row_groups > 1 and merged.metadata.keys() == one_shard.metadata.keys()
    for column in range(merged.num_columns):
        ours, theirs = merged.row_group(0).column(column), one_shard.row_group(0).column(column)
        assert ours.has_offset_index and theirs.has_offset_index  # the page index
        assert (ours.compression, ours.has_column_index) == (theirs.compression, theirs.has_column_index)
    assert any(merged.row_group(0).column(column).has_column_index for column in range(merged.num_columns))


def test_sizes(staged, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "BYTES_PER_MB", 60_000)
    plan = copy_of(staged, tmp_path / "data", file_size_mb=1)
    report = finish(plan)
    whole = build(rooms_plan(tmp_path / "whole", num_scenes=8))
    train = [name for name in report["files"] if name.startswith("dense/train")]
    assert len(train) > 1 and train[-1].endswith(f"{len(train) - 1:05d}-of-{len(train):05d}.parquet")
    assert report["rows"] == whole["rows"]
    sizes = [(plan.output_dir / name).stat().st_size for name in train]
    assert max(sizes) < 1.4 * 60_000
    whole_ids = ids(rooms_plan(tmp_path / "whole", num_scenes=8), "dense", "train")
    assert ids(plan, "dense", "train") == whole_ids


@pytest.mark.parametrize("megabyte", [10**6, 60_000, 1])
def test_killed_anywhere_while_publishing(staged, tmp_path, monkeypatch, megabyte):
    """Every rename in turn is the last thing that happens; with the smallest size every shard keeps its own file."""
    monkeypatch.setattr(publishing, "BYTES_PER_MB", megabyte / 500)
    undisturbed = copy_of(staged, tmp_path / "undisturbed")
    finish(undisturbed)
    expected = digests(undisturbed.output_dir)
    replace_file = publishing.os.replace
    for deadly in itertools.count():
        plan = copy_of(staged, tmp_path / f"killed-{deadly}")
        renames = itertools.count()

        def dies(source, target, renames=renames, deadly=deadly):
            if next(renames) == deadly:
                raise KeyboardInterrupt
            replace_file(source, target)

        with monkeypatch.context() as patch:
            patch.setattr(publishing.os, "replace", dies)
            try:
                finish(plan)
            except KeyboardInterrupt:
                for path in plan.output_dir.glob("*/*.parquet"):
                    pq.read_table(path)  # what has its name is whole
                finish(plan)
            else:
                break
        assert digests(plan.output_dir) == expected, f"killed at rename {deadly}"
    assert deadly >= 5


def test_the_disk_holds_the_data_once(staged, tmp_path, monkeypatch):
    """A staged file goes as soon as its rows are published."""
    monkeypatch.setattr(publishing, "BYTES_PER_MB", 400)
    plan = copy_of(staged, tmp_path / "data")
    total = sum(path.stat().st_size for path in plan.staging_dir.glob("*.parquet"))
    sums = []
    merge = publishing._merge

    def watched(*arguments):
        merge(*arguments)
        sums.append(sum(path.stat().st_size for path in plan.output_dir.rglob("*.parquet")))

    monkeypatch.setattr(publishing, "_merge", watched)
    finish(plan)
    assert len(sums) >= 2 and total < max(sums) < 1.6 * total


def test_single_pieces_are_renamed(staged, tmp_path, monkeypatch):
    monkeypatch.setattr(publishing, "BYTES_PER_MB", 0)
    monkeypatch.setattr(publishing, "_merge", None)  # must not be called
    plan = copy_of(staged, tmp_path / "data")
    before = sorted(digests(plan.staging_dir).items())
    report = finish(plan)
    files = [digest for name, digest in before if name.endswith(".parquet")]
    assert sorted(files) == sorted(digests(plan.output_dir)[name] for name in report["files"])


def test_report_and_card_tell_the_balance(staged, tmp_path):
    plan = copy_of(staged, tmp_path / "data", notices=("The held-out scenes were left out: 3.",))
    report = finish(plan)
    assert sum(one["n"] for one in report["balance"] if one["kind"] != "all kinds") > 0
    card = (plan.output_dir / "README.md").read_text()
    assert "## Answer balance" in card and "captions, 100.0% from the geometry" in card
    assert "No outside model was used." in card
    assert "The held-out scenes were left out: 3." in card
    assert json.loads((plan.output_dir / "build_report.json").read_text()) == report


def test_balance_is_judged():
    answers = {
        "c | left_right | yes": 120,
        "c | left_right | no": 100,
        "c | common | left": 90,
        "c | common | right": 110,
    }
    entries = {(one["kind"], *one["answers"]): one for one in balance(answers)}
    assert entries["left_right", "yes", "no"]["balanced"] is True  # 54.5 %
    assert entries["common", "left", "right"]["balanced"] is True  # 45 %, on the limit
    worse = balance(answers | {"c | left_right | yes": 130})
    assert [one["balanced"] for one in worse if one["kind"] == "left_right"] == [False]
    assert [one["balanced"] for one in balance({"c | k | yes": 199})] == [None, None]
    choices = {f"c | k | {letter}": 50 for letter in "ABCD"}
    assert all(one["balanced"] for one in balance(choices))
    assert not any(one["balanced"] for one in balance(choices | {"c | k | A": 90}))


def test_croissant_reads_the_files(staged, tmp_path):
    """The Hub derives its Croissant from the Parquet files; here it is written by hand and read without a network."""
    croissant = pytest.importorskip("mlcroissant")
    plan = copy_of(staged, tmp_path / "data")
    name = next(name for name in finish(plan)["files"] if name.startswith("single_view/train"))
    fields = [
        croissant.Field(
            id=f"rows/{column}",
            name=column,
            data_types=[kind],
            source=croissant.Source(file_object="file", extract=croissant.Extract(column=column)),
        )
        for column, kind in (("id", croissant.DataType.TEXT), ("metric", croissant.DataType.BOOL))
    ]
    digest = digests(plan.output_dir)[name]
    file = croissant.FileObject(
        id="file", name="file", content_url=name, encoding_formats=["application/x-parquet"], sha256=digest
    )
    rows = croissant.RecordSet(id="rows", name="rows", fields=fields)
    described = croissant.Metadata(
        name="rooms", description="rooms", url="https://example.org", distribution=[file], record_sets=[rows]
    )
    path = plan.output_dir / "croissant.json"
    path.write_text(json.dumps(described.to_json(), default=str))
    read = [row["rows/id"].decode() for row in croissant.Dataset(jsonld=str(path)).records("rows")]
    assert read == ids(plan, "single_view", "train")
