"""ScanNet's layout, and what a language model says of fused features: answers and choices of objects."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics.functional.text import bleu_score

from evaluators.data_sets import scannet, sqa3d
from evaluators.data_sets.ply import read_vertices
from evaluators.encoders import load_encoder
from evaluators.scenes import scene_answers, scene_grounding
from evaluators.scenes.fusion import Job, fuse, seen_points
from evaluators.scenes.language_config import Question
from evaluators.scenes.reader import SceneReader, pad, train_reader
from evaluators.scenes.rooms import load_rooms
from evaluators.scenes.scene import Points
from evaluators.scenes.scene_tokens import Tokens, box_iou, cube_tokens, object_box, object_tokens
from evaluators.scenes.text_metrics import answer_item, answer_scores, first_line, tokens
from experiments.tiny_models import save_tiny_language_model
from tests.commands import build
from tests.commands import evaluate as main

STORIES = Path(__file__).parents[3] / "shared" / "realdata" / "weights" / "stories260K" / "hf"
NYU_IDS = list(scannet.CLASSES)
ALIGNMENT = np.array([[0.0, -1, 0, 2], [1, 0, 0, 3], [0, 0, 1, 0], [0, 0, 0, 1]])


def write_scan(folder, room):
    """Write a synthetic room as SensReader and ScanNet's benchmark have it."""
    for part in ("color", "depth", "pose", "intrinsic"):
        (folder / part).mkdir(parents=True)
    name, back = folder.name, np.linalg.inv(ALIGNMENT)
    for index in range(room.num_views):
        view, number = room.view(index), index * 20 + 3
        view.image.resize((128, 96)).save(folder / "color" / f"{number}.jpg", quality=95)
        depth_mm = np.round(view.depth_m * 1000).astype(np.uint16)
        Image.fromarray(depth_mm).save(folder / "depth" / f"{number}.png")
        np.savetxt(folder / "pose" / f"{number}.txt", back @ view.camera.camera_to_world)
        matrix = np.eye(4)
        matrix[[0, 1, 0, 1], [0, 1, 2, 2]] = view.camera[:4]
        np.savetxt(folder / "intrinsic" / "intrinsic_depth.txt", matrix)
    np.savetxt(folder / "pose" / "0.txt", np.full((4, 4), -np.inf))  # tracking was lost
    room.view(0).image.save(folder / "color" / "0.jpg")
    points = room.points()
    write_ply(folder / f"{name}_vh_clean_2.labels.ply", points.xyz_m @ back[:3, :3].T + back[:3, 3], points.class_ids)
    segments, groups = scannet.object_files(folder)
    segments.write_text(json.dumps({"segIndices": (points.class_ids + 100).tolist()}))
    present = np.unique(points.class_ids).tolist()
    listed = [{"objectId": place, "segments": [number + 100]} for place, number in enumerate(present)]
    groups.write_text(json.dumps({"segGroups": listed}))
    numbers = " ".join(map(str, ALIGNMENT.ravel()))
    (folder / f"{name}.txt").write_text(f"appVersion = 1\naxisAlignment = {numbers} \nnumDepthFrames = 4\n")


def write_ply(file, xyz, class_ids):
    layout = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("red", "u1"), ("label", "<u2")]
    vertices = np.zeros(len(xyz), layout)
    for axis, column in zip("xyz", xyz.T):
        vertices[axis] = column
    vertices["label"] = np.array([*NYU_IDS, 40])[class_ids]
    kinds = ("float x", "float y", "float z", "uchar red", "ushort label")
    head = ["ply", "format binary_little_endian 1.0", f"element vertex {len(xyz)}", *(f"property {k}" for k in kinds)]
    head += ["element face 1", "property list uchar int vertex_indices", "end_header\n"]
    file.write_bytes("\n".join(head).encode() + vertices.tobytes() + bytes([3, *[0] * 12]))


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("answers") / "rooms"
    arguments = ["--source", "synthetic", "--num-scenes", "6", "--views", "4", "--resolution", "48"]
    assert build([*arguments, "--output", str(folder), "--seed", "1"]) == 0
    return load_rooms(str(folder))


@pytest.fixture(scope="module")
def root(rooms, tmp_path_factory):
    """A folder with scans and the questions of ScanQA, SQA3D and ScanRefer about them."""
    folder = tmp_path_factory.mktemp("scannet")
    names = {"train": ["scene0000_00", "scene0001_00"], "val": ["scene0011_00", "scene9999_00"]}
    for split, listed in names.items():
        (folder / f"scannetv2_{split}.txt").write_text("\n".join(listed) + "\n")
    places = [*names["train"], names["val"][0]]
    for name, room in zip(places, (*rooms.train, *rooms.test)):
        write_scan(folder / "scans" / name, room)
    questions = {"train": [], "val": [], "test": []}
    described = {"train": [], "val": []}
    for name in places:
        split = "train" if name in names["train"] else "val"
        for number in range(6):
            row = {"scene_id": name, "question_id": f"{split}-{name}-{number}", "question": f"What is item {number}?"}
            row |= {"answers": ["a chair", "chair"], "object_ids": [1], "object_names": ["chair"]}
            questions[split].append(row)
            about = {"scene_id": name, "object_id": str(number % 3), "object_name": "x", "ann_id": "0"}
            described[split].append({**about, "description": f"this is thing {number % 3}"})
    questions["val"].append({**row, "scene_id": "scene9999_00"})
    questions["test"] = questions["val"]
    for split in ("train", "val"):
        (folder / f"ScanQA_v1.0_{split}.json").write_text(json.dumps(questions[split]))
        (folder / f"ScanRefer_filtered_{split}.json").write_text(json.dumps(described[split]))
    (folder / "balanced").mkdir()
    for split in ("train", "test"):
        asked = [{**row, "situation": "I stand by a chair."} for row in questions[split]]
        answers = [
            {"question_id": row["question_id"], "answers": [{"answer": "chair", "answer_id": 1}]}
            for row in questions[split]
        ]
        for kind, key, rows in (("questions", "questions", asked), ("sqa_annotations", "annotations", answers)):
            file = folder / "balanced" / f"v1_balanced_{kind}_{split}_scannetv2.json"
            file.write_text(json.dumps({key: rows}))
    return folder


@pytest.fixture(scope="module")
def language_model(tmp_path_factory):
    texts = ["Question: What is item 3? Answer: a chair. Scene: Find the object: this is thing 0 Objects:"] * 3
    return str(save_tiny_language_model(tmp_path_factory.mktemp("language") / "model", texts, 300, 32))


def test_scannet_s_layout_is_read(root, rooms):
    data = scannet.load(str(root))
    scan, room = data.train[0], rooms.train[0]
    assert (scan.id, scan.num_views) == ("scene0000_00", 4)  # one frame per step; the lost one is passed over
    assert data.describe()["splits"]["val"]["dropped"] == {"scan_is_not_there": 1}
    assert len(data.class_names) == 20 and data.class_names[12:14] == ("desk", "curtain")
    points, own = scan.points(), room.points()
    assert np.allclose(points.xyz_m, own.xyz_m, atol=1e-4)  # the alignment undoes what `write_scan` did
    assert np.array_equal(points.class_ids, own.class_ids)
    assert points.object_ids.min() == 0
    view = scan.view(0)
    assert view.depth_m.shape == (240, 320) and view.image.size == (128, 96)
    places, rows, _ = seen_points(points.xyz_m, view)
    expected, _, _ = seen_points(points.xyz_m, room.view(0))
    assert len(np.intersect1d(places, expected)) > 0.9 * len(expected)
    assert rows.max() < 230
    assert scannet.load(str(root), frame_step=100).train[0].num_views == 1
    assert scannet.load(str(root), limit=1).train[0].fingerprint == scan.fingerprint


def test_fused_features_of_a_scan_resemble_those_of_its_room(root, rooms, encoder_folders):
    encoder = load_encoder(encoder_folders("dinov3"))
    scan, room = scannet.load(str(root)).train[0], rooms.train[0]
    xyz = room.points().xyz_m[:500]
    one, other = (fuse(encoder, Job(scene, range(4), xyz), (64, 64)).astype(float) for scene in (scan, room))
    both = np.isfinite(one[:, 0]) & np.isfinite(other[:, 0])
    assert both.sum() > 300
    assert np.corrcoef(one[both].ravel(), other[both].ravel())[0, 1] > 0.9


def test_what_is_missing_is_told_at_once(root, tmp_path):
    with pytest.raises(ValueError, match="has no scannetv2_train.txt: copy it from Tasks/Benchmark"):
        scannet.load(str(tmp_path))
    for split in ("train", "val"):
        (tmp_path / f"scannetv2_{split}.txt").write_text("scene0000_00")
    with pytest.raises(ValueError, match="holds no scan of scannetv2_train.txt in scans/: export"):
        scannet.load(str(tmp_path))
    (tmp_path / "scans" / "scene0000_00" / "color").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"8 files are missing: .*depth, .*pose, .*intrinsic_depth.txt"):
        scannet.load(str(tmp_path))
    with pytest.raises(ValueError, match=r"has no v1_balanced_sqa_annotations_train_scannetv2.json: download"):
        sqa3d.load(str(tmp_path), None)
    (tmp_path / "scans" / "scene0000_00").rename(tmp_path / "scans" / "other")
    (tmp_path / "balanced").symlink_to(root / "balanced")
    with pytest.raises(ValueError, match=r"holds none of the scans that split train .* --set TASK.scannet=ROOT"):
        sqa3d.load(str(tmp_path), None)


def test_ply_files(tmp_path):
    file = tmp_path / "a.ply"
    file.write_text(
        "ply\nformat ascii 1.0\nelement vertex 2\nproperty float x\nproperty uchar label\nend_header\n1 2\n3 4\n"
    )
    assert read_vertices(file)["label"].tolist() == [2, 4]
    write_ply(file, np.ones((5, 3)), np.zeros(5, int))
    file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(ValueError, match="is cut off"):
        read_vertices(file)
    file.write_text("no")
    with pytest.raises(ValueError, match="is no PLY file"):
        read_vertices(file)


def test_sqa3d_joins_situations_and_answers(root):
    data = sqa3d.load(str(root), None, limit=2)
    assert data.train[0].text == "I stand by a chair. What is item 0?" and data.train[0].answers == ("chair",)
    assert data.test_split == "test" and data.dropped["test"] == {"scan_is_not_there": 1}
    assert len(data.train) == 2 and data.scenes.keys() == {"scene0000_00", "scene0011_00"}


def test_exact_match_strips_and_does_nothing_else():
    assert first_line("  brown chair \nThe next") == "brown chair"
    assert answer_item("brown chair", ["table", " brown chair "])[0] == 1
    assert answer_item("Brown chair", ["brown chair"])[0] == 0
    assert answer_item("brown chair.", ["brown chair"])[0] == 0


def test_bleu_of_hand_made_answers():
    # clipped to two of three "the"; lengths 3 and 2 are equally near to nothing: 3
    assert answer_item("the the the", ["the the chair", "the"]).tolist() == [0, 2, 3, 3]
    # the shorter of two references that are equally near
    assert answer_item("a b", ["a", "b c d"]).tolist() == [0, 2, 2, 1]
    items = np.array([[0, 2, 3, 3], [1, 2, 2, 4]], float)
    assert answer_scores(items)["bleu1"] == pytest.approx(100 * 4 / 5 * np.exp(1 - 7 / 5))
    assert answer_scores(items)["em1"] == 50
    assert answer_scores(np.array([[0, 0, 0, 2]], float)) == {"bleu1": 0, "em1": 0}


def test_bleu_equals_torchmetrics():
    random = np.random.default_rng(0)
    words = np.array(["left", "right", "chair", "table", "brown", "the", "a", "of"])
    predictions = [" ".join(random.choice(words, random.integers(1, 6))) for _ in range(50)]
    answers = [[" ".join(random.choice(words, random.integers(1, 6))) for _ in range(2)] for _ in range(50)]
    items = np.stack([answer_item(*pair) for pair in zip(predictions, answers)])
    # of references equally near in length it takes the first, pycocoevalcap (and we) the shorter
    answers = [sorted(pair, key=lambda text: len(text.split())) for pair in answers]
    expected = 100 * float(bleu_score(predictions, answers, n_gram=1))
    assert answer_scores(items)["bleu1"] == pytest.approx(expected, rel=1e-5)


def test_tokens_are_the_ptb_tokenizer_s():
    assert tokens("It's on the left-hand side, isn't it?") == [
        "it", "'s", "on", "the", "left-hand", "side", "is", "n't", "it",
    ]  # fmt: skip
    assert tokens("2.5 chairs (brown)") == ["2.5", "chairs", "brown"]


def test_a_scene_becomes_few_tokens():
    random = np.random.default_rng(0)
    xyz = random.uniform(0, 3, (500, 3)).astype(np.float32)
    features = torch.from_numpy(random.normal(size=(500, 4)).astype(np.float16))
    features[:50] = float("nan")
    points = Points(xyz, np.zeros(500, np.uint8), np.repeat([-1, 0, 7], [100, 200, 200]).astype(np.int32))
    found = cube_tokens(points, features, 20)
    assert 8 <= len(found.features) <= 20 and found.features.isfinite().all()
    assert found.places.abs().max() <= 1.5  # the middle is the origin
    objects = object_tokens(points, features)
    assert objects.object_ids.tolist() == [0, 7] and objects.places.shape == (2, 6)
    assert torch.allclose(objects.features[1], features[300:].float().mean(0), atol=1e-3)
    assert np.allclose(objects.boxes_m[0], [xyz[100:300].min(0), xyz[100:300].max(0)])
    assert np.isnan(object_box(points, 5)).all()


def test_overlap_of_boxes():
    box = np.array([[0, 0, 0], [2, 2, 2.0]])
    assert box_iou(box, box) == 1 and box_iou(box, box + 5) == 0
    assert box_iou(box, box + np.eye(3)[0]) == pytest.approx(4 / 12)
    assert box_iou(box, np.full((2, 3), np.nan)) == 0
    found = Tokens(torch.zeros(2, 1), torch.zeros(2, 6), np.array([4, 9]), np.stack([box, box + np.eye(3)[0]]))
    assert scene_grounding.choice_item(found, 0, 4, box).tolist() == [1, 1, 1]
    assert scene_grounding.choice_item(found, 1, 4, box).tolist() == [0, 1, 0]
    scores = scene_grounding.aggregate(np.array([[1, 1, 1], [0, 1, 0]]))
    assert scores == {"accuracy": 50.0, "accuracy_25": 100.0, "accuracy_50": 50.0}


def test_padding_on_both_sides():
    padded, mask = pad([torch.ones(2, 3), torch.ones(1, 3)], left=True)
    assert mask.tolist() == [[1, 1], [0, 1]] and padded[1, 0].abs().sum() == 0
    assert pad([torch.ones(2), torch.ones(1)])[1].tolist() == [[1, 1], [1, 0]]


def reader_config(language_model, tmp_path, **settings):
    settings = {"preset": "cpu", "data_set": "scanqa", "data": "x", "seeds": (0,), **settings}
    return scene_answers.Config(cache_dir=tmp_path, language_model=language_model, **settings)


def test_the_language_model_is_frozen_but_for_lora(language_model, tmp_path):
    frozen = SceneReader(reader_config(language_model, tmp_path), 8, 3, torch.float32)
    names = {name.split(".")[0] for name, parameter in frozen.named_parameters() if parameter.requires_grad}
    assert names == {"norm", "projector", "place", "score"}
    tuned = SceneReader(reader_config(language_model, tmp_path, lora_rank=2), 8, 3, torch.float32)
    more = [name for name, parameter in tuned.named_parameters() if parameter.requires_grad]
    assert all("lora" in name for name in more if name.startswith("language_model")) and len(more) > 7
    embeddings = frozen.language_model.get_input_embeddings().weight
    scene = Tokens(torch.randn(500, 8), torch.zeros(500, 3), np.empty(0), np.empty(0))
    assert float(frozen.scene(scene).detach().std()) == pytest.approx(float(embeddings.std()), rel=0.2)


def test_a_reader_tells_scenes_apart_by_their_features_alone(language_model, tmp_path):
    config = reader_config(language_model, tmp_path, epochs=40, learning_rate=1e-2, lora_rank=4, batch_size=4)
    questions = [Question(name, "What is it?", (answer,)) for name, answer in (("one", "chair"), ("two", "item"))] * 4
    places = torch.zeros(3, 3)
    random = torch.Generator().manual_seed(0)
    scenes = {
        name: Tokens(torch.randn(3, 8, generator=random), places, np.empty(0), np.empty(0)) for name in ("one", "two")
    }
    make = partial(SceneReader, config, 8, 3, torch.float32)
    loss = partial(scene_answers._loss, questions, scenes)
    *_, reader = train_reader(make, loss, len(questions), config, 0, torch.device("cpu"))
    assert scene_answers.answer_questions(reader, questions[:2], scenes, config) == ["chair", "item"]


def test_a_reader_learns_which_object_is_meant(language_model, tmp_path):
    config = reader_config(language_model, tmp_path, epochs=40, learning_rate=1e-2, lora_rank=4, batch_size=4)
    # as many letters in both texts, and the same two objects in either order: only the description decides
    questions = [
        Question(name, text, object_id=number)
        for name in ("one", "two")
        for number, text in ((3, "this is thing 3"), (7, "this is thing 7"))
    ] * 2
    features, boxes = torch.eye(2, 8), np.zeros((2, 2, 3))
    scenes = {
        "one": Tokens(features, torch.zeros(2, 6), np.array([3, 7]), boxes),
        "two": Tokens(features.flip(0), torch.zeros(2, 6), np.array([7, 3]), boxes),
    }
    make = partial(SceneReader, config, 8, 6, torch.float32)
    loss = partial(scene_grounding._loss, questions, scenes)
    *_, reader = train_reader(make, loss, len(questions), config, 0, torch.device("cpu"))
    choices = [int(scores.argmax()) for scores in scene_grounding._scores(reader, questions[:4], scenes)]
    assert choices == [0, 1, 1, 0]


def test_answers_and_choices_run_through_the_command(root, language_model, encoder_folders, tmp_path, capsys):
    folder = encoder_folders("dinov3")
    arguments = ["--base", folder, "--boosted", folder, "--preset", "cpu", "--output", str(tmp_path), "--tasks"]
    data = ["--data", f"scanqa={root}", f"sqa3d={root}", f"scanrefer={root}", f"scannet={root}"]
    assert main([*arguments, "scene_answers", "--data", f"scanqa={root}"]) == 2
    assert "pass --set scene_answers.language_model=FOLDER_OR_ID" in capsys.readouterr().err
    assert main([*arguments, "scene_answers", *data[:2], "--set", "scene_answers.language_model=no/model"]) == 2
    assert "scene_answers.language_model='no/model' is no language model" in capsys.readouterr().err
    settings = [
        f"{task}.{name}" for task in ("scene_answers", "scene_grounding") for name in ("epochs=2", "num_tokens=8")
    ]
    settings += [f"{task}.language_model={language_model}" for task in ("scene_answers", "scene_grounding")]
    assert main([*arguments, "scenes", *data, "--resolution", "48x64", "--set", *settings]) == 0
    results = json.loads((tmp_path / "results.json").read_text())["tasks"]
    wanted = "scene_segmentation/scannet registration/scannet scene_answers/scanqa scene_answers/sqa3d"
    assert results.keys() == {*wanted.split(), "scene_grounding/scanrefer"}
    for entry in results.values():
        assert all(row["difference"]["mean"] == 0 for row in entry["metrics"].values())
    assert results["scene_answers/scanqa"]["metrics"]["em1"]["controls"]["constant"] == 100
    assert "3D-LLM" in results["scene_answers/scanqa"]["protocol"]["differs"]


def test_upstream_compat_shows_the_best_epoch(root, language_model, encoder_folders, tmp_path, monkeypatch):
    said = iter([["chair"] * 6, ["none"] * 6])
    monkeypatch.setattr(scene_answers, "answer_questions", lambda *_: next(said))
    monkeypatch.setattr(scene_answers, "cached_value", lambda *_: torch.zeros(6, 4))
    encoder = load_encoder(encoder_folders("dinov3"))
    config = reader_config(language_model, tmp_path, data=str(root), epochs=2, upstream_compat=True)
    result = scene_answers.evaluate(encoder, config)
    assert scene_answers.aggregate(result["items"][0])["em1"] == 100
    assert any("best epoch on the reported split" in note for note in result["protocol"]["notes"])


@pytest.mark.skipif(not STORIES.is_dir(), reason="needs ../shared/realdata")
def test_a_real_language_model_reads_a_scene(tmp_path):
    config = reader_config(str(STORIES), tmp_path, epochs=80, learning_rate=3e-2, batch_size=4, max_new_tokens=8)
    questions = [Question(name, "Who is it?", (answer,)) for name, answer in (("one", "a dog"), ("two", "a cat"))] * 4
    random = torch.Generator().manual_seed(0)
    scenes = {
        name: Tokens(torch.randn(4, 8, generator=random), torch.zeros(4, 3), np.empty(0), np.empty(0))
        for name in ("one", "two")
    }
    make = partial(SceneReader, config, 8, 3, torch.float32)
    loss = partial(scene_answers._loss, questions, scenes)
    *_, reader = train_reader(make, loss, len(questions), config, 0, torch.device("cpu"))
    assert not any(parameter.requires_grad for parameter in reader.language_model.parameters())
    answers = scene_answers.answer_questions(reader, questions[:2], scenes, config)
    # it never ends, for the embedding of its end token was never trained (stories are told apart by the first token)
    assert [answer[:5] for answer in answers] == ["a dog", "a cat"]
