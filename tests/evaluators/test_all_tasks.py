"""`spatialboost evaluate --tasks all` as a user runs it: built rooms and real samples of every family, one command."""

import dataclasses
import json
from pathlib import Path

import pytest
from PIL import Image

from evaluators import depth, depth_dpt, linear_classification, segmentation, segmentation_multiscale
from evaluators.catalogue import DATA_SETS, TASKS, families, kind_of, parse_data
from evaluators.contract import NotMeasurable
from evaluators.data_sets.imagenet import load_imagenet
from evaluators.run import make_parser
from tests.commands import boost, build
from tests.commands import evaluate as main
from tests.evaluators.language_models import save_tiny_vlm
from tests.evaluators.test_robots_policy import write_fingers
from tests.evaluators.test_voc import write_real_photographs
from tests.evaluators.whole_images import write_classes

REAL = Path(__file__).parents[3] / "shared" / "realdata"
PICTURES = ("depth", "segmentation", "classification", "retrieval", "registration", "scene_segmentation", "spatial")


@pytest.fixture(scope="module")
def sides(encoder_folders, tmp_path_factory):
    """The arguments that name both encoders and both vision-language models."""
    base, folder = encoder_folders("dinov3"), tmp_path_factory.mktemp("sides")
    assert boost([base, "--output", str(folder / "boosted")]) == 0
    (folder / "one").mkdir(), (folder / "two").mkdir()
    models = [str(save_tiny_vlm(folder / name, seed)) for seed, name in enumerate(("one", "two"))]
    encoders = ["--base", base, "--boosted", str(folder / "boosted")]
    return [*encoders, "--base-vlm", models[0], "--boosted-vlm", models[1]]


@pytest.fixture
def short_training(monkeypatch):
    for module in (depth, depth_dpt, segmentation, segmentation_multiscale):
        short = dataclasses.replace(module.FIT_PRESETS["cpu"], steps=8, warmup_steps=2, batch_size=2)
        monkeypatch.setitem(module.FIT_PRESETS, "cpu", short)


@pytest.mark.skipif(not REAL.is_dir(), reason="needs ../shared/realdata")
def test_one_command_measures_every_family_on_rooms_and_real_samples(sides, short_training, tmp_path, capsys):
    rooms = ["--source", "synthetic", "--num-scenes", "12", "--views", "4", "--resolution", "48", "--seed", "1"]
    assert build([*rooms, "--output", str(tmp_path / "rooms")]) == 0
    research = REAL / "research_only"
    places = {
        "rooms": tmp_path / "rooms",
        "nyud": research / "nyuv2_mini",
        "kitti": research / "kitti_object",
        "ade20k": research / "ade20k_val3",
        "voc": write_real_photographs(tmp_path / "VOC2012"),
        "folder.signs": REAL / "sign_digits",
        "folder.cifar10": research / "cifar10",
        "landmarks": research / "phototourism_loftr",
        "trifinger_reach_cube": write_fingers(tmp_path / "fingers", "reach"),
    }
    data = [f"{name}={place}" for name, place in places.items()]
    quick = ["--preset", "cpu", "--limit", "4", "--resolution", "32", "--set", "linear_classification.steps=20"]
    quick += ["scene_segmentation.epochs=4", "robot_actions.epochs=2", "spatial_questions.max_new_tokens=8"]
    output = tmp_path / "report"
    assert main([*sides, "--tasks", "all", *quick, "--data", *data, "--output", str(output)]) == 0

    results = json.loads((output / "results.json").read_text())
    wanted = {f"{task}/{name}" for name in places for task in DATA_SETS[kind_of(name)].tasks}
    assert set(results["tasks"]) == wanted
    assert {TASKS[entry.split("/")[0]].family for entry in wanted} == set(families())
    others = {f"{task}/{name}" for name, row in DATA_SETS.items() for task in row.tasks if name not in places}
    assert set(results["not_measured"]) == {entry for entry in others if not entry.endswith("/folder")}
    assert "not measured: knn_classification/imagenet, linear_classification/imagenet: no data" in (
        said := capsys.readouterr().out
    )
    assert "not measured: robot_success/metaworld_bin_picking: a simulator runs for minutes" in said
    page, report = ((output / f"report.{kind}").read_text() for kind in ("html", "md"))
    for entry, row in results["tasks"].items():
        assert f'<article id="{entry}">' in page and row["num_items"] > 0
        if entry.split("/")[0].startswith(PICTURES):
            with Image.open(output / row["picture"]) as picture:
                assert picture.width > 500
    assert page.count("data:image/png") == sum("picture" in row for row in results["tasks"].values())
    assert "PARTIAL: at most 4 items" in report
    assert "pictures in class folders (signs)" in report
    assert not (output / "model-index.yaml").exists()  # such numbers belong on no card


def test_what_cannot_be_measured_takes_nothing_else_with_it(encoder_folders, tmp_path, monkeypatch, capsys):
    folder, output = encoder_folders("dinov3"), tmp_path / "out"
    data = ["--data", f"folder={write_classes(tmp_path / 'classes', per_class=4)}"]
    arguments = ["--base", folder, "--boosted", folder, "--preset", "cpu", "--output", str(output), *data]

    def measure(error, tasks):
        monkeypatch.setattr(linear_classification, "evaluate", lambda *_: (_ for _ in ()).throw(error))
        code = main([*arguments, "--tasks", tasks])
        return code, json.loads((output / "results.json").read_text())

    code, results = measure(NotMeasurable("there is too little of it"), "all")
    assert code == 0 and set(results["tasks"]) == {"knn_classification/folder"}
    assert results["not_measured"]["linear_classification/folder"] == "there is too little of it"
    assert "linear_classification/folder: there is too little of it" in (output / "report.md").read_text()
    # what was asked for by name, and what is broken, ends in an error, behind the report of the others
    with pytest.raises(NotMeasurable):
        measure(NotMeasurable("there is too little of it"), "classification")
    code, results = measure(FileNotFoundError(2, "no such file", "lost.png"), "all")
    assert code == 2 and set(results["tasks"]) == {"knn_classification/folder"}
    assert "lost.png" in capsys.readouterr().err
    with pytest.raises(RuntimeError, match="ours to mend"):
        measure(RuntimeError("ours to mend"), "all")


def test_pictures_that_are_no_imagenet_are_sent_to_their_own_name(tmp_path):
    folder = write_classes(tmp_path / "classes", per_class=1, splits=("train", "test"))
    with pytest.raises(ValueError, match="has train/ and no val/, so it is no ImageNet-1k: pass it as folder="):
        load_imagenet(str(folder))


def test_a_data_set_may_have_several_places():
    assert parse_data(["folder.one=a", "folder.two=b", "c"]) == {"folder.one": "a", "folder.two": "b", "rooms": "c"}
    sides = ["--base", "a", "--boosted", "b", "--output", "c"]
    assert make_parser().parse_args([*sides, "--data", "d", "--data", "e=f", "g=h"]).data == ["d", "e=f", "g=h"]
    with pytest.raises(ValueError, match="--data names 'folder' twice: write folder.LABEL=PLACE"):
        parse_data(["folder=a", "folder=b"])
    with pytest.raises(ValueError, match="--data names 'rooms' twice"):
        parse_data(["a", "b"])
    with pytest.raises(ValueError, match="write NAME.LABEL=PLACE, the label of letters"):
        parse_data(["folder.a/b=c"])
    with pytest.raises(ValueError, match="'folders.one' is no data set"):
        parse_data(["folders.one=a"])
