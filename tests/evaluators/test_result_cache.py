"""Results of finished entries: found again after a kill, never when anything that made them has changed."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file, save_file

from evaluators import comparison, depth, result_cache, segmentation
from evaluators.encoders import load_encoder
from evaluators.language.config import LanguageConfig
from evaluators.report import number, strict, verdict
from evaluators.result_cache import load_result, place_state, result_file, save_result
from tests.commands import evaluate as main
from tests.evaluators.conftest import make_row, write_dense

ROOT = Path(__file__).parents[2]
QUICK = """
import dataclasses
from evaluators import comparison, depth, segmentation
comparison.RESAMPLES = 20
for module in (depth, segmentation):
    module.FIT_PRESETS["cpu"] = dataclasses.replace(module.FIT_PRESETS["cpu"], steps=20, warmup_steps=5)
"""
KILLED = """
import os, signal, sys
from evaluators import run
segmentation.evaluate = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
run.main(sys.argv[1:])
"""


def arguments_of(base, boosted, data, output, tasks="depth_linear,segmentation_linear"):
    names = ["--base", base, "--boosted", boosted, "--data", data, "--output", output, "--tasks", tasks]
    return [*map(str, names), "--preset", "cpu", "--limit", "6", "--device", "cpu"]


@pytest.fixture
def measured(monkeypatch):
    """The entries that are measured, in the order in which they are; with few steps."""
    seen = []
    monkeypatch.setattr(comparison, "RESAMPLES", comparison.RESAMPLES)
    for module in (depth, segmentation):

        def counted(encoder, config, name=module.__name__, measure=module.evaluate):
            seen.append(name.removeprefix("evaluators."))
            return measure(encoder, config)

        monkeypatch.setitem(module.FIT_PRESETS, "cpu", module.FIT_PRESETS["cpu"])
        monkeypatch.setattr(module, "evaluate", counted)
    exec(QUICK)
    return seen


def test_a_run_that_is_killed_between_entries_does_not_measure_the_finished_one_again(
    encoder_folders, dense_folder, tmp_path, measured, capsys
):
    base, boosted = encoder_folders("dinov3"), encoder_folders("vit")
    arguments = arguments_of(base, boosted, dense_folder, tmp_path / "report")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    killed = subprocess.run(
        [sys.executable, "-c", QUICK + KILLED, *arguments], cwd=ROOT, env=environment, capture_output=True
    )
    assert killed.returncode == -signal.SIGKILL
    assert not (tmp_path / "report" / "results.json").exists()
    assert main(arguments) == 0
    assert measured == ["segmentation", "depth", "segmentation"]
    assert "depth_linear/rooms: " + base + ", as measured before (remove " in capsys.readouterr().out
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    for file in (tmp_path / "report" / "features" / "results").iterdir():
        file.unlink()
    measured.clear()
    assert main(arguments) == 0 and len(measured) == 4
    assert json.loads((tmp_path / "report" / "results.json").read_text())["tasks"] == results["tasks"]


def test_changed_weights_data_and_settings_are_measured_again(encoder_folders, tmp_path, measured):
    folder = shutil.copytree(encoder_folders("dinov3"), tmp_path / "encoder")
    data = write_dense(tmp_path / "rooms", [make_row(seed) for seed in range(6)], [make_row(7), make_row(8)])
    arguments = arguments_of(folder, folder, data, tmp_path / "report", "depth_linear")
    scores = []

    def run(*more):
        measured.clear()
        assert main([*arguments, *more]) == 0
        entry = json.loads((tmp_path / "report" / "results.json").read_text())["tasks"]["depth_linear/rooms"]
        scores.append(entry["metrics"]["rmse_m"]["base"]["mean"])
        return len(measured)

    assert run() == 1  # the boosted side is the same encoder
    assert run() == 0
    weights = folder / "model.safetensors"
    times = weights.stat()
    tensors = load_file(weights)
    tensors["norm.weight"][:24] = 0
    save_file(tensors, weights, metadata={"format": "pt"})
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert run() == 1
    shutil.rmtree(data)
    write_dense(data, [make_row(seed) for seed in range(10, 16)], [make_row(17), make_row(18)])
    assert run() == 1
    assert run("--seeds", "1") == 1
    assert run("--seeds", "1") == 0
    assert len(set(scores[1:5])) == 4 and scores[0] == scores[1] and scores[4] == scores[5]


def test_a_changed_file_of_the_same_size_and_time_is_noticed_and_so_is_one_behind_a_link(tmp_path):
    folder, behind = tmp_path / "data", tmp_path / "behind"
    folder.mkdir(), behind.mkdir()
    (folder / "labels.txt").write_text("one")
    (behind / "image.png").write_text("old")
    (folder / "images").symlink_to(behind)
    (folder / "loop").symlink_to(folder)
    (folder / "broken").symlink_to(tmp_path / "absent")
    states = [place_state(str(folder)), place_state(str(folder))]
    assert states[0] == states[1]
    for file in (folder / "labels.txt", behind / "image.png"):
        before = file.stat()
        file.write_text("new")
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
        states.append(place_state(str(folder)))
    (folder / "more.txt").write_text("")
    states.append(place_state(str(folder)))
    assert len(set(states)) == 4
    assert place_state(str(folder / "labels.txt")) != place_state(str(folder / "more.txt"))


def test_data_on_a_hub_is_told_by_its_commit_and_never_found_again_without(encoder_folders, tmp_path, monkeypatch):
    encoder = load_encoder(encoder_folders("dinov3"))
    config = depth.Config(data_set="rooms", data="me/rooms", cache_dir=tmp_path)
    assert result_file(encoder, "depth_linear/rooms", config) is None
    references = tmp_path / "hub" / "datasets--me--rooms" / "refs"
    references.mkdir(parents=True)
    monkeypatch.setattr(result_cache, "HF_HUB_CACHE", str(tmp_path / "hub"))
    names = []
    for commit in ("1" * 40, "2" * 40):
        (references / "main").write_text(commit)
        result_cache._hub_commit.cache_clear()
        names.append(result_file(encoder, "depth_linear/rooms", config))
    result_cache._hub_commit.cache_clear()
    assert None not in names and names[0] != names[1]


def test_every_setting_the_other_model_and_the_code_are_part_of_the_name(encoder_folders, tmp_path, monkeypatch):
    encoder = load_encoder(encoder_folders("dinov3"))
    config = LanguageConfig(data_set="blink", data=None, cache_dir=tmp_path, vlm="me/vlm", vlm_state="1")

    def name(changed, entry="blink/blink", encoder=encoder):
        return result_file(encoder, entry, changed)

    changes = {
        "vlm_state": "2",
        "vlm": "me/other",
        "seeds": (1,),
        "limit": 3,
        "upstream_compat": True,
        "preset": "cpu",
    }
    names = [name(config), *(name(dataclasses.replace(config, **{key: value})) for key, value in changes.items())]
    names += [name(config, "blink/other"), name(config, encoder=dataclasses.replace(encoder, weights_hash="other"))]
    monkeypatch.setattr(result_cache, "environment", lambda _: {"torch": "another"})
    names.append(name(config))
    monkeypatch.undo()
    monkeypatch.setattr(result_cache, "_code_digest", lambda: "changed")
    names.append(name(config))
    monkeypatch.undo()
    assert len(set(names)) == len(names) and name(config) == names[0]
    elsewhere = dataclasses.replace(config, cache_dir=tmp_path / "elsewhere")
    assert name(elsewhere).name == names[0].name  # where it is kept is no part of it


def test_a_result_is_read_as_it_was_and_a_damaged_file_as_none(tmp_path):
    result = {
        "protocol": {"id": "x/1", "settings": {"size": (1, 2), "share": np.float32(0.5), "none": None}},
        "items": [np.array([[1.0, np.nan]]), np.zeros((0, 2))],
        "controls": {"constant": {"rmse_m": float("nan")}},
        "examples": [{"image": np.zeros((2, 2, 3), np.uint8), "truth": np.array("a chair")}],
    }
    file = tmp_path / "results" / "x.npz"
    assert load_result(file) is None
    saved = save_result(result, file)
    for read in (saved, load_result(file)):
        assert read["protocol"] == {"id": "x/1", "settings": {"size": [1, 2], "share": 0.5, "none": None}}
        np.testing.assert_array_equal(read["items"][0], result["items"][0])
        assert read["items"][1].shape == (0, 2) and np.isnan(read["controls"]["constant"]["rmse_m"])
        assert str(read["examples"][0]["truth"]) == "a chair" and read["examples"][0]["image"].dtype == np.uint8
    assert [one.name for one in file.parent.iterdir()] == ["x.npz"]
    content = file.read_bytes()
    for damaged in (b"", content[: len(content) // 2], content[:200] + b"\0" * 50 + content[250:]):
        file.write_bytes(damaged)
        assert load_result(file) is None
    with pytest.raises(AssertionError, match="Python objects"):
        save_result({"items": [np.array([object()])]}, file)


def test_results_json_has_null_for_what_is_not_finite_and_can_be_shown_again():
    summary = {"mean": float("nan"), "deviation": None, "interval": [float("nan"), float("inf")], "n": (1, True)}
    told = json.loads(json.dumps(strict(summary), allow_nan=False))
    assert told == {"mean": None, "deviation": None, "interval": [None, None], "n": [1, True]}
    assert number(told) == number(summary) == "nan"
    assert verdict(depth.METRICS[0], told, 10) == verdict(depth.METRICS[0], summary, 10) == "undefined"
