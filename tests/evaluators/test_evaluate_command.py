"""The command `spatialboost evaluate` and its report."""

import importlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel

import spatialboost_cli
from evaluators import features as features_module
from evaluators.catalogue import DATA_SETS, TASKS, DataSet, parse_tasks
from evaluators.comparison import compare
from evaluators.depth import aggregate
from evaluators.metrics import DEPTH_METRICS
from evaluators.plan import make_plan, parse_resolution
from evaluators.report import render_table
from evaluators.run import make_parser
from tests.commands import evaluate as main


def evaluate(base, boosted, data, output, *more):
    arguments = ["--base", str(base), "--boosted", str(boosted), "--data", str(data), "--output", str(output)]
    return main([*arguments, "--preset", "cpu", *more])


@pytest.fixture(scope="module")
def changed_encoder(encoder_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("changed") / "encoder"
    shutil.copytree(encoder_folders("dinov3"), folder)
    model = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        model.norm.weight[:24] = 0  # three quarters of each token are lost
    model.save_pretrained(folder)
    return folder


def test_identical_encoders_differ_by_exactly_zero(encoder_folders, dense_folder, tmp_path, capsys):
    folder = encoder_folders("dinov3")
    same = shutil.copytree(folder, tmp_path / "same")  # of another name, so that it is measured by itself
    linear = ["--tasks", "depth_linear,segmentation_linear"]
    assert evaluate(folder, same, dense_folder, tmp_path, "--seeds", "0", "1", *linear) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert set(results["tasks"]) == {"depth_linear/rooms", "segmentation_linear/rooms"}
    for entry in results["tasks"].values():
        for row in entry["metrics"].values():
            assert row["difference"] == {"per_seed": [0.0, 0.0], "mean": 0.0, "deviation": 0.0, "interval": [0.0, 0.0]}
            assert len(row["base"]["per_seed"]) == 2 and row["base"]["deviation"] >= 0
            assert set(row["controls"]) == {"constant", "position_only"}
        assert entry["base"]["parameters"] == 23_456
    assert not results["partial"]
    report = (tmp_path / "report.md").read_text()
    assert "| equal |" in report and "| 32x32 | 23.5 K |" in report
    assert "at most" not in report and "±" in report and "transformers" in report
    assert "| depth, linear head | rooms | RMSE (m) ↓ |" in capsys.readouterr().out
    for entry in results["tasks"].values():
        with Image.open(tmp_path / entry["picture"]) as picture:
            assert picture.width > 600


def test_a_damaged_encoder_is_worse_and_a_second_run_extracts_nothing(
    encoder_folders, changed_encoder, dense_folder, tmp_path, monkeypatch
):
    assert evaluate(encoder_folders("dinov3"), changed_encoder, dense_folder, tmp_path, "--tasks", "depth_linear") == 0
    first = json.loads((tmp_path / "results.json").read_text())
    row = first["tasks"]["depth_linear/rooms"]["metrics"]["rmse_m"]
    assert row["difference"]["mean"] == pytest.approx(row["boosted"]["mean"] - row["base"]["mean"]) and (
        row["difference"]["mean"] > 0
    )
    assert row["base"]["deviation"] is None
    assert "| worse" in (tmp_path / "report.md").read_text()
    monkeypatch.setattr(features_module, "extract", lambda *_: pytest.fail("the encoder ran again"))
    assert evaluate(encoder_folders("dinov3"), changed_encoder, dense_folder, tmp_path, "--tasks", "depth_linear") == 0
    assert json.loads((tmp_path / "results.json").read_text()) == first


def test_limit_marks_the_report_as_partial_and_differences_of_the_encoders_are_told(
    encoder_folders, dense_folder, tmp_path
):
    base, boosted = encoder_folders("dinov3"), encoder_folders("siglip")
    more = ["--limit", "6", "--tasks", "segmentation_linear", "--resolution", "16x24"]
    assert evaluate(base, boosted, dense_folder, tmp_path, *more) == 0
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["partial"] and results["limit"] == 6
    assert results["tasks"]["segmentation_linear/rooms"]["data"]["splits"]["train"]["items"] == 6
    report = (tmp_path / "report.md").read_text()
    assert "**PARTIAL: at most 6 items" in report and "| 16x24 |" in report
    assert "the encoders differ in preprocessing" in report


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--tasks", "dept"],
            "--tasks 'dept' is no task (did you mean 'depth'?): pass depth_linear",
        ),
        (["--tasks", "weather"], "--tasks 'weather' is no task: pass depth_linear"),
        (["--resolution", "big"], "--resolution 'big' is no size"),
        (["--limit", "0"], "limit 0 leaves no image"),
        (["--data", "rooms.other=no-such/data"], "data 'no-such/data' has no split 'train'"),
        (["--base", "no-such/encoder"], "--base: encoder 'no-such/encoder' cannot be loaded"),
        (["--tasks", "depth_linear", "--set", "depth_linear.max_depth_m=0.2"], "no depth between 0.001 and 0.2 m"),
        (["--set", "depth_linear.max_depth=1"], "has no such setting (did you mean 'max_depth_m'?)"),
        (["--set", "depth_linear.max_depth_m=far"], "max_depth_m='far': pass a float such as 10.0"),
        (["--set", "max_depth_m=1"], "--set 'max_depth_m=1' is no TASK.SETTING=VALUE"),
        (["--tasks", "depth", "--set", "segmentation_linear.limit=1"], "is none of the tasks that run: depth_linear"),
        (["--data", "room=x"], "'room' is no data set (did you mean 'rooms'?)"),
        (["--data", "rooms"], "--data 'rooms' is on no Hub that we could name: pass rooms=FOLDER"),
    ],
)
def test_mistakes_end_in_one_sentence_and_code_2(encoder_folders, dense_folder, tmp_path, capsys, arguments, message):
    folder = encoder_folders("dinov3")
    assert evaluate(folder, folder, dense_folder, tmp_path / "report", *arguments) == 2
    error = capsys.readouterr().err.strip().split("\n")[-1]
    assert error.startswith("spatialboost evaluate: ") and message in error


def test_a_wrong_boosted_encoder_is_found_before_the_base_is_measured(
    encoder_folders, dense_folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr("evaluators.depth.evaluate", lambda *_: pytest.fail("measured before it was checked"))
    assert evaluate(encoder_folders("dinov3"), tmp_path / "absent", dense_folder, tmp_path / "report") == 2
    assert "--boosted" in capsys.readouterr().err


def test_a_missing_extra_is_named(encoder_folders, dense_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "evaluators.depth", None)
    monkeypatch.setitem(spatialboost_cli.EXTRAS, "evaluators.depth", "eval")
    folder = encoder_folders("dinov3")
    assert evaluate(folder, folder, dense_folder, tmp_path, "--tasks", "depth") == 2
    assert "is missing: pip install 'spatialboost[eval]'" in capsys.readouterr().err
    monkeypatch.delitem(spatialboost_cli.EXTRAS, "evaluators.depth")
    with pytest.raises(ModuleNotFoundError):
        evaluate(folder, folder, dense_folder, tmp_path, "--tasks", "depth")


def test_tasks_and_sizes_are_parsed():
    assert parse_tasks("all") == list(TASKS)
    assert parse_tasks("segmentation_linear, depth_linear,segmentation_linear") == [
        "segmentation_linear",
        "depth_linear",
    ]
    assert parse_tasks("depth") == [task for task, row in TASKS.items() if row.family == "depth"]
    assert parse_resolution(None) is None
    assert parse_resolution("224") == (224, 224)
    assert parse_resolution("480x640") == (480, 640)


def fake_result(rmse_m, position_only):
    controls = {"rmse_m": position_only, "abs_rel": 0.2, "delta1": 0.8}
    encoder = {"parameters": 1_500_000, "resolution_px": [32, 32], "patch_size_px": 8, "hidden_size": 4}
    return {
        "items": [np.tile([error, 0.1, 0.9], (5, 1)) for error in rmse_m],
        "controls": {"constant": controls, "position_only": controls},
        "encoder": {**encoder, "preprocessing": {}},
        "data": {"images_in_both_splits": 2},
        "protocol": {},
        "seeds": [0],
    }


def test_the_table_shows_direction_difference_and_deviation():
    entry = compare(DEPTH_METRICS, aggregate, fake_result([0.5, 0.7], 0.9), fake_result([0.4, 0.4], 0.9))
    row = entry["metrics"]["rmse_m"]
    assert row["difference"]["per_seed"] == pytest.approx([-0.1, -0.3])
    assert row["difference"]["mean"] == pytest.approx(-0.2)
    assert row["difference"]["deviation"] == pytest.approx(0.02**0.5)  # sample deviation
    table = render_table({"tasks": {"depth_linear/rooms": entry}})
    numbers = "| 32x32 | 1.5 M | 0.6 ± 0.14 | 0.4 ± 0 | -0.2 ± 0.14 | -0.2 to -0.2 | better, too few items |"
    assert f"| depth, linear head | rooms | RMSE (m) ↓ {numbers} constant 0.9, position only 0.9 |" in table


def test_a_base_that_loses_to_position_alone_and_shared_images_are_warned_about():
    warnings = compare(DEPTH_METRICS, aggregate, fake_result([1.0], 0.9), fake_result([0.8], 0.9))["warnings"]
    assert any("does not beat a control that sees no image in RMSE (m)" in line for line in warnings)
    assert any("2 images are in both splits" in line for line in warnings)


def test_all_lists_what_has_no_data_and_what_lacks_a_package(dense_folder, tmp_path, monkeypatch):
    lunar = DataSet("the Moon", ("depth_linear",), terms="Free for all.", hub_id="me/moon")
    monkeypatch.setitem(DATA_SETS, "moon", lunar)
    segmentation = importlib.import_module("evaluators.segmentation")
    monkeypatch.setattr(segmentation, "check", lambda _: importlib.import_module("moonlight"), raising=False)
    common, rooms = ["--base", "a", "--boosted", "b", "--output", str(tmp_path)], str(dense_folder)
    plan = make_plan(make_parser().parse_args([*common, "--data", rooms]))
    assert "depth_linear/rooms" in plan.configs and "segmentation_linear/rooms" not in plan.configs
    why = plan.not_measured
    assert why["depth_linear/moon"] == "no data: --data moon (from me/moon) or moon=FOLDER. Free for all."
    assert why["segmentation_linear/rooms"] == "moonlight is missing: pip install 'spatialboost[eval]'"
    with pytest.raises(ValueError, match="--tasks depth_linear has no data: pass --data NAME=FOLDER with a NAME of"):
        make_plan(make_parser().parse_args([*common, "--tasks", "depth_linear"]))
    monkeypatch.undo()
    monkeypatch.setitem(DATA_SETS, "moon", lunar)
    with pytest.raises(ValueError, match="--data 'moon' is read by none of --tasks segmentation_linear"):
        make_plan(make_parser().parse_args([*common, "--tasks", "segmentation_linear", "--data", "moon", rooms]))
