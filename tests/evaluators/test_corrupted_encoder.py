"""In every family a deliberately corrupted encoder scores worse, and equal encoders differ by exactly zero."""

import dataclasses
import json
import shutil

import pytest
import torch
from transformers import AutoModel

from evaluators import depth, segmentation
from evaluators.catalogue import TASKS, families
from evaluators.robots import offline_actions
from tests.commands import build
from tests.commands import evaluate as main
from tests.evaluators.language_models import save_tiny_vlm
from tests.evaluators.test_language_benchmarks import teach_colours, write_colours
from tests.evaluators.test_robots_policy import write_fingers
from tests.evaluators.whole_images import write_classes

STEPS = 60  # of a dense head: enough to tell features from none
ROBOTS = {"robot_actions/trifinger_reach_cube": "action_error_cm"}
# By what a corrupted encoder must lose: of each family what needs no simulator and no download
DECIDING = ROBOTS | {
    "depth_linear/rooms": "rmse_m",
    "segmentation_linear/rooms": "mean_iou",
    "knn_classification/folder": "top1",
    "linear_classification/folder": "top1",
    "retrieval/landmarks": "map",
    "scene_segmentation/rooms": "accuracy",
    "registration/rooms": "rte_m",
    "cv_bench/cv_bench": "score",
}


@pytest.fixture(scope="module")
def encoders(encoder_folders, tmp_path_factory):
    """Folders of a random encoder with large weights, its equal, and a copy whose tokens all say the same.

    Weights three times as large make patch tokens that tell places apart, eight times class tokens that tell pictures
    apart, which is what robots see. By how much they are larger -> the folders.
    """
    made = {}
    for scale in (3, 8):
        model = AutoModel.from_pretrained(encoder_folders("dinov3"))
        made[scale] = [tmp_path_factory.mktemp(f"times_{scale}") / name for name in ("base", "equal", "corrupted")]
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(scale)
            for folder in made[scale]:
                if folder.name == "corrupted":
                    model.norm.weight.zero_()
                model.save_pretrained(folder)
                shutil.copy(f"{encoder_folders('dinov3')}/preprocessor_config.json", folder)
    return made


@pytest.fixture(scope="module")
def vlms(tmp_path_factory):
    """Folders of a model that tells red from blue, its equal, and a copy whose encoder says nothing."""
    folder = tmp_path_factory.mktemp("vlms")
    taught, silent = teach_colours(save_tiny_vlm(folder), folder)
    return [taught, shutil.copytree(taught, str(folder / "equal")), silent]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """`--data` of every family but robots."""
    folder = tmp_path_factory.mktemp("families")
    rooms = ["--source", "synthetic", "--num-scenes", "14", "--views", "4", "--resolution", "48", "--seed", "1"]
    assert build([*rooms, "--output", str(folder / "rooms")]) == 0
    return [
        f"rooms={folder / 'rooms'}",
        f"folder={write_classes(folder / 'classes', per_class=16)}",
        f"landmarks={write_classes(folder / 'places', per_class=5, splits=('',))}",
        f"cv_bench={write_colours(folder / 'colours')}",
    ]


@pytest.fixture(scope="module")
def fingers(tmp_path_factory):
    """`--data` of the robots."""
    return f"trifinger_reach_cube={write_fingers(tmp_path_factory.mktemp('fingers'), 'reach')}"


@pytest.fixture
def run(data, fingers, tmp_path, monkeypatch):
    """Return a function (base, boosted, their models) -> the tasks of results.json, with short training."""
    for module in (depth, segmentation):
        short = dataclasses.replace(module.FIT_PRESETS["cpu"], steps=STEPS, warmup_steps=6)
        monkeypatch.setitem(module.FIT_PRESETS, "cpu", short)
    monkeypatch.setattr(offline_actions, "HIDDEN_SIZE", 200)
    monkeypatch.setattr(offline_actions, "LEARNING_RATE", 3e-3)
    settings = ["--set", "linear_classification.steps=120", "scene_segmentation.epochs=30"]
    settings += ["registration.resolution=[96, 96]", "depth_linear.limit=16", "segmentation_linear.limit=16"]

    def measure(encoders, models):
        arguments = ["--base", str(encoders[3][0]), "--boosted", str(encoders[3][1]), "--base-vlm", models[0]]
        arguments += ["--boosted-vlm", models[1], "--preset", "cpu", "--output", str(tmp_path / "most")]
        wanted = ",".join(dict.fromkeys(entry.split("/")[0] for entry in DECIDING if entry not in ROBOTS))
        assert main([*arguments, "--tasks", wanted, *settings, "--data", *data]) == 0
        arguments = ["--base", str(encoders[8][0]), "--boosted", str(encoders[8][1]), "--data", fingers]
        arguments += ["--preset", "cpu", "--output", str(tmp_path / "robots"), "--tasks", "robot_actions"]
        assert main(arguments) == 0
        found = (json.loads((tmp_path / name / "results.json").read_text())["tasks"] for name in ("most", "robots"))
        return {entry: row for tasks in found for entry, row in tasks.items()}

    return measure


def pick(encoders, *places):
    return {scale: [folders[place] for place in places] for scale, folders in encoders.items()}


def test_a_corrupted_encoder_is_worse_in_every_family(run, encoders, vlms):
    tasks = run(pick(encoders, 0, 2), vlms[::2])
    for entry, metric in DECIDING.items():
        row = tasks[entry]["metrics"][metric]
        gain = row["difference"]["mean"] * (1 if row["higher_is_better"] else -1)
        assert gain < 0, f"{entry}: base {row['base']['mean']}, corrupted {row['boosted']['mean']}"
    assert {TASKS[entry.split("/")[0]].family for entry in DECIDING} == set(families())


def test_equal_encoders_differ_by_exactly_zero_in_every_family(run, encoders, vlms):
    tasks = run(pick(encoders, 0, 1), vlms[:2])
    assert set(tasks) == set(DECIDING)
    for entry in tasks.values():
        assert entry["base"]["name"] != entry["boosted"]["name"]  # both were measured
        for row in entry["metrics"].values():
            assert row["difference"]["per_seed"] == [0.0] and row["difference"]["interval"] == [0.0, 0.0]
