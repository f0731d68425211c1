"""BLINK, CV-Bench, 3DSRBench and VSI-Bench on miniatures in their real columns and layouts."""

import json

import numpy as np
import pytest
import torch
from datasets import Dataset, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image

from evaluators.data_sets.blink import SUBTASKS, load_blink
from evaluators.data_sets.cv_bench import CATEGORIES as CV_CATEGORIES
from evaluators.data_sets.cv_bench import load_cv_bench
from evaluators.data_sets.threedsrbench import load_threedsrbench, variant_of
from evaluators.data_sets.vsi_bench import CATEGORIES as VSI_CATEGORIES
from evaluators.data_sets.vsi_bench import load_vsi_bench, read_frames
from evaluators.encoders import load_encoder
from evaluators.language import blink, cv_bench, threedsrbench, vsi_bench
from evaluators.language.asking import gathered
from evaluators.language.questions import constant_answers
from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostProcessor
from tests.commands import evaluate as main
from tests.evaluators.conftest import png
from tests.evaluators.language_models import answer_with, save_tiny_vlm, teach

TEXT, WHOLE, IMAGE = Value("string"), Value("int64"), ImageFeature()


def picture(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    return {"bytes": png(pixels), "path": None}


def write(folder, features, **files):
    """Write Parquet files and the README that declares them; keys are CONFIGURATION__SPLIT."""
    lines = ["---", "configs:"]
    for name, rows in files.items():
        configuration, split = name.split("__")
        (folder / configuration).mkdir(parents=True, exist_ok=True)
        columns = {column: [row[column] for row in rows] for column in features}
        table = Dataset.from_dict(columns, features=Features(features))
        table.to_parquet(folder / configuration / f"{split}-00000-of-00001.parquet")
        lines += [f"- config_name: {configuration}", "  data_files:", f"  - split: {split}"]
        lines += [f"    path: {configuration}/{split}-*"]
    (folder / "README.md").write_text("\n".join([*lines, "---", ""]))
    return str(folder)


@pytest.fixture(scope="module")
def blink_folder(tmp_path_factory):
    images = {f"image_{number}": IMAGE for number in range(1, 5)}
    features = {"idx": TEXT, "question": TEXT, "sub_task": TEXT, **images, "choices": List(TEXT)}
    features |= {"answer": TEXT, "prompt": TEXT}

    def row(subtask, number):
        views = 2 if subtask.startswith("Multi") else 1
        shown = {f"image_{k}": picture(10 * number + k) if k <= views else None for k in range(1, 5)}
        prompt = "Which is closer?\nSelect from the following choices.\n(A) left\n(B) right"
        return {
            "idx": f"val_{subtask}_{number}", "question": "Which is closer?", "sub_task": subtask, **shown,
            "choices": ["left", "right"], "answer": "(B)" if number else "(A)", "prompt": prompt,
        }  # fmt: skip

    files = {f"{subtask}__val": [row(subtask, number) for number in range(3)] for subtask in SUBTASKS}
    return write(tmp_path_factory.mktemp("blink"), features, **files)


@pytest.fixture(scope="module")
def cv_bench_folder(tmp_path_factory):
    features = {
        "idx": WHOLE, "type": TEXT, "task": TEXT, "image": IMAGE, "question": TEXT, "choices": List(TEXT),
        "answer": TEXT, "prompt": TEXT, "filename": TEXT, "source": TEXT,
    }  # fmt: skip
    options = {"choices": ["1", "2", "3"], "answer": "(C)", "question": "How many?", "filename": "x"}
    options["prompt"] = "How many? Select from the following choices.\n(A) 1\n(B) 2\n(C) 3"
    asked = [
        ("ADE20K", "Count"),
        ("ADE20K", "Relation"),
        ("COCO", "Count"),
        ("Omni3D", "Depth"),
        ("Omni3D", "Distance"),
    ]
    rows = [
        options | {"idx": idx, "type": "3D" if source == "Omni3D" else "2D", "task": task, "source": source}
        for idx, (source, task) in enumerate(asked)
    ]
    rows = [row | {"image": picture(row["idx"])} for row in rows]
    return write(tmp_path_factory.mktemp("cv_bench"), features, default__test=rows)


@pytest.fixture(scope="module")
def threedsr_folder(tmp_path_factory):
    features = {
        "index": TEXT, "qid": TEXT, "question": TEXT, "A": TEXT, "B": TEXT, "C": TEXT, "D": TEXT, "answer": TEXT,
        "category": TEXT, "image": IMAGE,
    }  # fmt: skip

    def row(qid, answer, category="height_higher"):
        return {
            "index": qid, "qid": qid, "question": "Which is higher?", "A": "cup", "B": "hat", "C": "nan", "D": None,
            "answer": answer, "category": category, "image": picture(len(qid)),
        }  # fmt: skip

    circular = [
        row("AAAAAAAA", "A"), row("AAAAAAAA-1", "B"), row("AAAAAAAA-flip", "A"), row("AAAAAAAA-flip-1", "A"),
        row("BBBBBBBB", "A", "multi_object_facing"), row("BBBBBBBB-1", "A", "multi_object_facing"),
    ]  # fmt: skip
    plain = [row(f"{name * 8}", "A") for name in "AB"]
    # names of configurations as they are on the Hub
    return write(
        tmp_path_factory.mktemp("threedsr"), features, **{"3dsr__test": plain, "3dsr_circular__test": circular}
    )


@pytest.fixture
def vsi_folder(tmp_path):
    features = {
        "id": WHOLE, "dataset": TEXT, "scene_name": TEXT, "question_type": TEXT, "question": TEXT,
        "ground_truth": TEXT, "options": List(TEXT),
    }  # fmt: skip

    def row(number, dataset, kind, truth, options):
        return {
            "id": number, "dataset": dataset, "scene_name": "scene_1", "question_type": kind,
            "question": "How?", "ground_truth": truth, "options": options,
        }  # fmt: skip

    rows = [
        row(0, "scannet", "object_counting", "4", None),
        row(1, "arkitscenes", "route_planning", "B", ["A. left", "B. right"]),
        row(2, "scannet", "object_rel_direction_hard", "A", ["A. front-left", "B. back-left"]),
    ]
    folder = tmp_path / "vsi"
    write(folder, features, default__test=rows)
    (folder / "scannet/scene_1").mkdir(parents=True)
    for number in range(5):
        Image.new("RGB", (16, 12), (40 * number, 0, 0)).save(folder / f"scannet/scene_1/{number:03d}.png")
    return folder


def write_video(file, num_frames):
    av = pytest.importorskip("av")
    file.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(file), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for number in range(num_frames):
            level = 20 * number
            frame = av.VideoFrame.from_image(Image.new("RGB", (32, 32), (level, level, level)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def test_blink_has_three_subtasks_with_one_or_two_images(blink_folder):
    data = load_blink(blink_folder)
    assert [question.category for question in data.questions] == [name for name in SUBTASKS for _ in range(3)]
    first, last = data.questions[0], data.questions[-1]
    assert (first.answer, last.answer) == ("A", "B") and first.choices == ("left", "right")
    assert first.num_images == len(first.images()) == 1 and last.num_images == len(last.images()) == 2
    assert first.text.startswith("Which is closer?\nSelect") and first.text.endswith("letter of the right option.")
    assert data.split == "val" and len(data.thinned(2).questions) < 9


def test_cv_bench_averages_sources_as_its_card_says():
    rows = [("ADE20K Count", 1), ("ADE20K Relation", 0), ("COCO Count", 1), ("Omni3D Depth", 0), ("Omni3D Depth", 0)]
    rows += [("Omni3D Distance", 1), ("Omni3D Distance", 0)]
    items = gathered([(place, (CV_CATEGORIES.index(name), score, 1, 0)) for place, (name, score) in enumerate(rows)])
    scores = cv_bench.aggregate(items)
    assert (scores["ade20k"], scores["coco"], scores["omni3d"]) == (50, 100, 25)
    assert scores["score"] == ((50 + 100) / 2 + 25) / 2 == 50
    assert scores["count"] == 100 and scores["distance"] == 50


def test_cv_bench_rows(cv_bench_folder):
    data = load_cv_bench(cv_bench_folder)
    assert [question.category for question in data.questions][-1] == "Omni3D Distance"
    assert data.questions[0].answer == "C" and data.questions[0].images()[0].size == (30, 20)


def test_3dsrbench_variants_and_their_groups(threedsr_folder):
    assert variant_of("VIN6MS3J") == ("VIN6MS3J", 0) and variant_of("VIN6MS3J-flip-1") == ("VIN6MS3J", 3)
    plain, circular = (load_threedsrbench(threedsr_folder, flag) for flag in (False, True))
    assert len(plain.questions) == 2 and plain.questions[0].choices == ("cup", "hat")
    assert "A. cup\nB. hat\nAnswer" in plain.questions[0].text
    assert [q.variant for q in circular.questions] == [0, 2, 1, 3, 0, 2]
    assert {q.category for q in circular.questions} == {"height", "multi_object"}
    with pytest.raises(ValueError, match="none of the forms"):
        variant_of("VIN6MS3J-mirror")


def test_3dsrbench_scores_by_hand():
    """Thing A: all but the mirrored second order right; thing B: both orders right, never mirrored."""
    rows = [("A", 0, 1), ("A", 2, 1), ("A", 1, 1), ("A", 3, 0), ("B", 0, 1), ("B", 2, 1)]
    scores = threedsrbench.aggregate(gathered([(thing, (0, right, 1, code)) for thing, code, right in rows]))
    assert scores["accuracy"] == pytest.approx(100 * 5 / 6)
    assert scores["flip"] == pytest.approx(75)  # A as it is, A in the second order (wrong), B, B
    assert scores["circular"] == pytest.approx(100 * 2 / 3)  # A, A mirrored (wrong), B
    assert scores["flip_circular"] == pytest.approx(50)
    vanilla = threedsrbench.aggregate(gathered([("A", (0, 1, 1, 0)), ("B", (1, 0, 1, 0))]))
    assert np.isnan(vanilla["flip"]) and vanilla["height"] == 100 and vanilla["location"] == 0


def test_vsi_bench_overall_is_the_mean_of_tasks_with_one_direction():
    scores = {"object_counting": [0.5, 1.0], "route_planning": [1.0], "object_rel_direction_easy": [1.0]}
    scores["object_rel_direction_hard"] = [0.0]
    rows = [(VSI_CATEGORIES.index(name), value, 1, 0) for name, values in scores.items() for value in values]
    result = vsi_bench.aggregate(gathered(list(enumerate(rows))))
    assert result["object_counting"] == 75 and result["object_rel_direction"] == 50
    assert result["overall"] == pytest.approx((75 + 100 + 50) / 3)


def test_vsi_bench_reads_videos_and_folders_of_frames(vsi_folder):
    with pytest.raises(ValueError, match=r"lacks 1 of 2 videos \(arkitscenes/scene_1\): pass a folder with a copy"):
        load_vsi_bench(str(vsi_folder), "full", 4)
    write_video(vsi_folder / "arkitscenes/scene_1.mp4", 10)
    route, count, direction = load_vsi_bench(str(vsi_folder), "full", 4).questions
    assert route.category == "route_planning" and route.choices == ("left", "right")
    assert route.text.startswith("These are frames of a video.\nHow?\nOptions:\nA. left\nB. right\nAnswer with")
    assert count.text.endswith("single word or phrase.") and count.choices == () and direction.answer == "A"
    levels = [np.asarray(frame)[..., 0].mean() for frame in route.images()]
    assert levels == pytest.approx([0, 60, 120, 180], abs=12)  # frames 0, 3, 6 and 9
    frames = [frame.getpixel((0, 0))[0] for frame in count.images()]
    assert frames == [0, 40, 80, 160]
    assert len(read_frames(vsi_folder / "scannet/scene_1", 8)) == 8  # more than there are
    (vsi_folder / "arkitscenes/scene_1.mp4").write_bytes(b"no video")
    with pytest.raises(ValueError, match="cannot be read"):
        load_vsi_bench(str(vsi_folder), "full", 5).questions[0].images()


def test_vsi_bench_numbers_and_choices_are_scored(vsi_folder):
    write_video(vsi_folder / "arkitscenes/scene_1.mp4", 3)
    route, count, _ = load_vsi_bench(str(vsi_folder), "full", 2).questions
    assert route.score("B. right") == (1, 1) and route.score("right") == (1, 1) and route.score("hm") == (0, 0)
    assert count.score("four") == (1, 1) and count.score("3") == (pytest.approx(0.6), 1) and count.score("?") == (0, 0)
    assert constant_answers([route, count]) == ["B", "4.0"]


@pytest.mark.parametrize("load", [load_blink, load_cv_bench, lambda data: load_threedsrbench(data, True)])
def test_other_data_is_told_in_one_sentence(load, tmp_path):
    with pytest.raises(ValueError, match="has no split .* of the configuration .*: pass .* or a copy of that repo"):
        load(write(tmp_path, {"x": WHOLE}, default__train=[{"x": 1}]))


def test_a_missing_column_an_unknown_category_and_a_missing_folder_are_told(cv_bench_folder, vsi_folder, tmp_path):
    rows = [{"image": picture(0), "source": "ADE20K"}]
    with pytest.raises(ValueError, match="has no column 'choices' and no column 'answer'"):
        load_cv_bench(write(tmp_path / "one", {"image": IMAGE, "source": TEXT}, default__test=rows))
    features = {"image": IMAGE, "choices": List(TEXT), "answer": TEXT, "prompt": TEXT, "source": TEXT, "task": TEXT}
    row = {"image": picture(0), "choices": ["1"], "answer": "(A)", "prompt": "?", "source": "Mars", "task": "Count"}
    with pytest.raises(ValueError, match="has questions of 'Mars Count'"):
        load_cv_bench(write(tmp_path / "two", features, default__test=[row]))
    broken = row | {"source": "COCO", "image": {"bytes": b"no image", "path": None}}
    folder = write(tmp_path / "three", features, default__test=[broken, row | {"source": "COCO"}])
    assert load_cv_bench(folder).dropped == {"unreadable_file": 1}
    with pytest.raises(ValueError, match="is no folder: pass a folder with a copy of nyu-visionx/VSI-Bench"):
        load_vsi_bench(str(tmp_path / "absent"), "full", 4)
    with pytest.raises(ValueError, match="of the configuration 'debiased'"):
        load_vsi_bench(str(vsi_folder), "debiased", 4)


@pytest.fixture(scope="module")
def vlm_folder(tmp_path_factory):
    return save_tiny_vlm(tmp_path_factory.mktemp("vlm"))


@pytest.mark.parametrize(
    ("module", "name", "load", "settings", "score"),
    [
        (blink, "blink", load_blink, {}, "mean"),
        (cv_bench, "cv_bench", load_cv_bench, {}, "score"),
        (threedsrbench, "threedsr", lambda data: load_threedsrbench(data, True), {"circular": True}, "flip_circular"),
        (vsi_bench, "vsi", lambda data: load_vsi_bench(data, "full", 2), {"frames": 2}, "overall"),
    ],
)
def test_a_model_that_answers_right_scores_100(
    module, name, load, settings, score, vlm_folder, request, tmp_path, monkeypatch
):
    folder = request.getfixturevalue(f"{name}_folder")
    if name == "vsi":
        write_video(folder / "arkitscenes/scene_1.mp4", 4)
    config = module.Config(data_set=name, data=str(folder), cache_dir=tmp_path / "cache", **settings)
    config = config.for_side("base", str(vlm_folder))
    module.check(config)
    encoder = load_encoder(str(vlm_folder.parent / "encoder"))
    asked = []

    def run(answers):
        asked.clear()
        answer_with(monkeypatch, lambda prompt: asked.append(prompt) or answers[len(asked) - 1])
        return module.evaluate(encoder, config)

    wrong = run(["I do not know."] * 1000)
    num_questions = wrong["protocol"]["settings"]["questions"]
    assert module.aggregate(wrong["items"][0])[score] == 0
    assert module.aggregate(wrong["items"][0])["unreadable"] == 100
    assert len(asked) == 3 * num_questions  # as it is, blind, with other images
    assert all(
        len(prompt.images) == sum(p["type"] == "image" for p in prompt.messages[0]["content"]) for prompt in asked
    )
    assert any("does not answer better with the image" in line for line in wrong["data"]["warnings"])
    for file in (tmp_path / "cache").glob("*.json"):
        file.unlink()
    best = run([question.answer for question in load(str(folder)).questions] + ["?"] * 1000)
    assert module.aggregate(best["items"][0])[score] == 100
    assert best["controls"]["blind_base"]["unreadable"] == 100 and not best["data"]["warnings"]
    module.draw(tmp_path / "picture.png", wrong, best)
    with Image.open(tmp_path / "picture.png") as shown:
        assert shown.width > 1000


PROMPT = "Which colour? Select from the following choices.\n(A) red\n(B) blue"


def coloured(random, red):
    pixels = random.integers(0, 90, (16, 16, 3), dtype=np.uint8)
    pixels[..., 0 if red else 2] += 150
    return pixels


def write_colours(folder):
    """CV-Bench about images of two colours."""
    random = np.random.default_rng(1)
    features = {"image": IMAGE, "choices": List(TEXT), "answer": TEXT, "prompt": TEXT, "source": TEXT, "task": TEXT}
    rows = [
        {
            "image": {"bytes": png(coloured(random, number % 2)), "path": None},
            "choices": ["red", "blue"],
            "answer": "(A)" if number % 2 else "(B)",
            "prompt": PROMPT,
            "source": ("ADE20K", "COCO", "Omni3D")[number % 3],
            "task": "Count",
        }
        for number in range(24)
    ]
    return write(folder, features, default__test=rows)


def teach_colours(vlm_folder, folder):
    """Return a model that tells red from blue, and a copy with a silent encoder."""
    random = np.random.default_rng(0)

    def shown(_):
        reds = random.integers(0, 2, 8).astype(bool)
        question = f"{PROMPT}\nAnswer with the letter of the right option."
        images = [Image.fromarray(coloured(random, red)) for red in reds]
        return images, [question] * 8, ["A" if red else "B" for red in reds]

    trained, damaged = teach(vlm_folder, folder / "trained", shown), folder / "damaged"
    model = SpatialBoostForConditionalGeneration.from_pretrained(trained)
    with torch.no_grad():
        for parameter in model.vision_tower.parameters():
            parameter.zero_()
    model.save_pretrained(damaged)
    SpatialBoostProcessor.from_pretrained(trained).save_pretrained(damaged)
    return str(trained), str(damaged)


def test_a_damaged_encoder_in_a_trained_model_answers_worse(vlm_folder, tmp_path):
    colours_folder = write_colours(tmp_path / "colours")
    trained, damaged = teach_colours(vlm_folder, tmp_path)
    encoder = str(vlm_folder.parent / "encoder")
    models = ["--base-vlm", trained, "--boosted-vlm", damaged]
    argv = ["--base", encoder, "--boosted", encoder, *models, "--tasks", "cv_bench", "--output", str(tmp_path / "out")]
    assert main([*argv, "--data", f"cv_bench={colours_folder}", "--preset", "cpu"]) == 0
    entry = json.loads((tmp_path / "out/results.json").read_text())["tasks"]["cv_bench/cv_bench"]
    score = entry["metrics"]["score"]
    assert score["base"]["mean"] > 90 and score["difference"]["interval"][1] < 0
    assert score["controls"]["blind_base"] < 70 and score["controls"]["other_images_base"] < 70
    assert score["controls"]["constant"] == 50
    assert not any("the base model" in line for line in entry["warnings"])
    assert any("the boosted model does not answer better" in line for line in entry["warnings"])
