"""Retrieval: the benchmarks in their layouts, junk and boxes, the tuned vote, the command on real landmarks."""

import json
import os
import pickle
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluators import retrieval
from evaluators.data_sets.amstertime import load_amstertime
from evaluators.data_sets.image_folder import read_places
from evaluators.data_sets.met import load_met
from evaluators.data_sets.oxford_paris import load_oxford_paris
from evaluators.data_sets.rankings import leave_one_out
from evaluators.encoders import load_encoder
from tests.commands import evaluate
from tests.evaluators.whole_images import COLOURS, blob, save, write_classes

REAL = Path(__file__).parents[3] / "shared" / "realdata" / "research_only" / "phototourism_loftr"


@pytest.fixture(scope="module")
def oxford(tmp_path_factory):
    """Two queries, twelve pictures: of each colour four, easy, easy, hard and junk."""
    root = tmp_path_factory.mktemp("oxford") / "roxford5k"
    names = [f"{colour}_{number:06d}" for colour in COLOURS for number in range(4)]
    for name in names:
        save(blob(name.split("_")[0], int(name[-6:])), root / "jpg" / f"{name}.jpg")
    truth = []
    for first, colour in ((0, "blue"), (4, "green")):
        save(blob(colour, 99, (60, 80)), root / "jpg" / f"{colour}_query.jpg")
        rows = {"easy": np.array([first, first + 1]), "hard": np.array([first + 2]), "junk": np.array([first + 3])}
        truth.append({"bbx": np.array([8.0, 4.0, 72.0, 52.0]), **rows})
    found = {"gnd": truth, "imlist": names, "qimlist": ["blue_query", "green_query"]}
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(found, protocol=2))
    return root


@pytest.fixture(scope="module")
def amstertime(tmp_path_factory):
    root = tmp_path_factory.mktemp("amstertime") / "amstertime"
    for number, colour in enumerate(COLOURS):
        save(blob(colour, number).convert("L"), root / "old" / f"{number:04d}.jpg")
        save(blob(colour, number), root / "new" / f"{number:04d}.png")
    return root


@pytest.fixture(scope="module")
def met(tmp_path_factory):
    root = tmp_path_factory.mktemp("met") / "met"
    lists = {"MET_database": [], "valset": [], "testset": []}
    for number, colour in enumerate(COLOURS):
        for picture in range(3):
            path = f"MET/{number}/{picture}.jpg"
            save(blob(colour, picture), root / "images" / path)
            lists["MET_database"].append({"id": number, "path": path})
        for offset, name in ((50, "valset"), (60, "testset")):
            path = f"test_met/{name}_{number}.jpg"
            save(blob(colour, offset + number), root / "images" / path)
            lists[name].append({"path": path, "MET_id": number})
    for name in ("valset", "testset"):
        path = f"test_other/{name}.jpg"
        save(Image.new("RGB", (40, 40), (120, 120, 120)), root / "images" / path)
        lists[name].append({"path": path})
    (root / "ground_truth").mkdir()
    for name, rows in lists.items():
        (root / "ground_truth" / f"{name}.json").write_text(json.dumps(rows))
    return root


@pytest.fixture(scope="module")
def places(tmp_path_factory):
    return write_classes(tmp_path_factory.mktemp("places") / "places", per_class=5, splits=("",))


@pytest.fixture(scope="module")
def benchmarks(oxford, amstertime, met, places):
    return {"roxford": oxford, "amstertime": amstertime, "met": met, "landmarks": places}


def config_of(data_set, data, tmp_path, **settings):
    return retrieval.Config(
        data_set=data_set, data=str(data), cache_dir=tmp_path, preset="cpu", seeds=(0,), **settings
    )


def test_levels_of_oxford_follow_the_revisited_protocol(oxford):
    data = load_oxford_paris("roxford", str(oxford))
    told = {name: (of[1].relevant.tolist(), sorted(of[1].junk.tolist())) for name, of in data.levels.items()}
    assert told == {"map_hard": ([6], [4, 5, 7]), "map_medium": ([4, 5, 6], [7]), "map_easy": ([4, 5], [6, 7])}
    assert data.trapezoidal and "not the 70 queries and 4,993 pictures" in data.differs
    assert (len(data.queries), len(data.database)) == (2, 12)


def test_queries_are_cut_to_their_boxes_unless_told_otherwise(oxford):
    cut, whole = (load_oxford_paris("roxford", str(oxford), crop) for crop in (True, False))
    assert cut.queries[0].size == (64, 48) and whole.queries[0].size == (80, 60)
    assert cut.queries.fingerprint != whole.queries.fingerprint
    assert "NOT cut" in whole.notes[0]


def test_json_gives_what_the_pickle_gives(oxford, tmp_path):
    truth = pickle.loads((oxford / "gnd_roxford5k.pkl").read_bytes())
    (tmp_path / "jpg").symlink_to(oxford / "jpg")
    (tmp_path / "gnd_roxford5k.json").write_text(json.dumps(truth, default=lambda array: array.tolist()))
    ours, theirs = (load_oxford_paris("roxford", str(root)) for root in (tmp_path, oxford))
    for level, other in zip(ours.levels["map_hard"], theirs.levels["map_hard"]):
        assert level.relevant.tolist() == other.relevant.tolist() and level.junk.tolist() == other.junk.tolist()
    assert ours.queries.boxes == theirs.queries.boxes


RAN = Path(tempfile.gettempdir()) / f"a-pickle-ran-{os.getpid()}"


class Runs:
    """What a pickle can hold: a call."""

    def __reduce__(self):
        return Path.touch, (RAN,)


def test_limits_keep_relevant_pictures_first(oxford, met, amstertime):
    data = load_oxford_paris("roxford", str(oxford)).cut(1)
    assert (len(data.queries), len(data.database)) == (1, 1)
    assert data.database.names == ("blue_000002.jpg",) and data.levels["map_hard"][0].relevant.tolist() == [0]
    four = load_oxford_paris("roxford", str(oxford)).cut(4)
    assert len(four.database) == 4 and sum(len(level.relevant) for level in four.levels["map_medium"]) == 4
    exhibits = load_met(str(met)).cut(2)
    assert [len(getattr(exhibits, split).labels) for split in ("train", "val", "test")] == [2, 2, 2]
    assert len(load_amstertime(str(amstertime)).cut(2).database) == 2


def test_amstertime_ranks_the_other_time_only(amstertime):
    data = load_amstertime(str(amstertime))
    assert len(data.queries) == 6 and not data.trapezoidal
    assert data.levels["map"][1].relevant.tolist() == [4] and data.levels["map"][1].junk.tolist() == [0, 1, 2]
    assert data.levels["map"][4].relevant.tolist() == [1] and data.levels["map"][4].junk.tolist() == [3, 4, 5]
    assert data.queries.names[1] == "old/0001.jpg" and data.queries.names[4] == "new/0001.png"


def test_a_picture_of_a_place_is_asked_for_the_others_and_is_itself_junk(places):
    data = leave_one_out("here", read_places(str(places)))
    assert data.levels["map"][6].relevant.tolist() == [5, 7, 8, 9] and data.levels["map"][6].junk.tolist() == [6]
    assert len(data.queries) == len(data.database) == 15


def test_met_tells_exhibits_from_distractors(met):
    data = load_met(str(met))
    assert data.train.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert data.test.labels.tolist() == [0, 1, 2, -1] and "9 of the 397,121" in data.differs


@pytest.mark.parametrize("data_set", ["roxford", "amstertime", "met", "landmarks"])
def test_every_benchmark_runs_and_equal_encoders_differ_by_zero(encoder_folders, benchmarks, tmp_path, data_set):
    folder = encoder_folders("dinov3")
    data = f"{data_set}={benchmarks[data_set]}"
    arguments = ["--base", folder, "--boosted", folder, "--output", str(tmp_path), "--data", data]
    assert evaluate([*arguments, "--tasks", "retrieval", "--preset", "cpu"]) == 0
    entry = json.loads((tmp_path / "results.json").read_text())["tasks"][f"retrieval/{data_set}"]
    metrics = {"roxford": {"map_hard", "map_medium", "map_easy"}, "met": {"gap"}}.get(data_set, {"map"})
    assert set(entry["metrics"]) == metrics and entry["seeds"] == [0]
    for row in entry["metrics"].values():
        assert row["difference"] == {"per_seed": [0.0], "mean": 0.0, "deviation": None, "interval": [0.0, 0.0]}
        assert set(row["controls"]) == {"random_encoder", "colour_histogram"} and 0 <= row["base"]["mean"] <= 100
    report = (tmp_path / "report.md").read_text()
    assert "feature: class token" in report and ("chosen on the validation queries" in report) == (data_set == "met")
    with Image.open(tmp_path / entry["picture"]) as picture:
        assert picture.width > 600


def test_a_damaged_encoder_finds_less(encoder_folders, damaged_encoder, places, tmp_path):
    scores = []
    for folder in (encoder_folders("dinov3"), damaged_encoder):
        result = retrieval.evaluate(load_encoder(folder), config_of("landmarks", places, tmp_path))
        scores.append(retrieval.aggregate(result["items"][0])["map"])
    assert scores[1] < scores[0]


def test_hits_are_shown_without_junk_and_told_right_or_wrong(encoder_folders, places, tmp_path):
    result = retrieval.evaluate(load_encoder(encoder_folders("dinov3")), config_of("landmarks", places, tmp_path))
    example = result["examples"][0]
    assert example["query"].shape == (160, 160, 3) and example["hits"].shape == (5, 160, 160, 3)
    assert not any((hit == example["query"]).all() for hit in example["hits"])  # the query itself is junk
    assert example["right"].sum() <= 4


def test_an_encoder_of_one_size_is_given_letterboxes_where_the_protocol_wants_any_size(encoder_folders, met, tmp_path):
    encoder = load_encoder(encoder_folders("dinov3"))
    native = retrieval.evaluate(encoder, config_of("met", met, tmp_path))
    fixed = retrieval.evaluate(
        load_encoder(encoder_folders("dinov3")).__class__(**{**vars(encoder), "any_size": False}),
        config_of("met", met, tmp_path, resolution=(64, 64)),
    )
    assert native["encoder"]["framing"] == "native"
    assert fixed["encoder"]["framing"] == "letterbox" and fixed["encoder"]["resolution_px"] == [32, 32]


@pytest.mark.parametrize(
    ("data_set", "spoil", "message"),
    [
        ("roxford", lambda root: (root / "gnd_roxford5k.pkl").unlink(), "has no gnd_roxford5k.pkl or gnd"),
        (
            "roxford",
            lambda root: [(root / "jpg" / f"{name}.jpg").unlink() for name in ("red_000001", "blue_query")],
            "lacks 2 of 14 pictures: fetch blue_query.jpg, red_000001.jpg",
        ),
        (
            "roxford",
            lambda root: (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps({"gnd": Runs()})),
            "the pickle asks for pathlib.Path.touch, which is no array: refused",
        ),
        ("roxford", lambda root: (root / "gnd_roxford5k.pkl").write_bytes(b"no"), "is no pickle that can be read"),
        (
            "roxford",
            lambda root: (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps({"gnd": [], "imlist": []})),
            "has not the keys imlist, qimlist and gnd with bbx, easy, hard and junk",
        ),
        (
            "roxford",
            lambda root: (root / "gnd_roxford5k.json").write_text(
                json.dumps(
                    {
                        "imlist": ["red_000000"],
                        "qimlist": ["blue_query"],
                        "gnd": [{"bbx": [0, 0, 9, 9], "easy": [0], "hard": [1], "junk": []}],
                    }
                )
            ),
            "marks picture 1 of 1: fetch gnd_roxford5k.pkl anew",
        ),
        ("met", lambda root: (root / "ground_truth" / "valset.json").unlink(), "has no ground_truth/valset.json"),
        ("met", lambda root: (root / "images/MET/0/1.jpg").unlink(), "lacks 1 of 17 pictures: fetch MET/0/1.jpg"),
        ("amstertime", lambda root: (root / "old/0001.jpg").unlink(), "lacks the counterpart of 0001"),
        ("amstertime", lambda root: (root / "old").rename(root / "odd"), "has no pictures in old/"),
        ("landmarks", lambda root: (root / "red/000.png").write_bytes(b"no picture"), "000.png' cannot be read"),
    ],
)
def test_data_that_is_not_whole_ends_in_one_sentence(
    encoder_folders, benchmarks, tmp_path, capsys, data_set, spoil, message
):
    shutil.copytree(benchmarks[data_set], tmp_path / "data")
    spoil(tmp_path / "data")
    folder = encoder_folders("dinov3")
    arguments = ["--base", folder, "--boosted", folder, "--data", f"{data_set}={tmp_path / 'data'}"]
    assert evaluate([*arguments, "--tasks", "retrieval", "--output", str(tmp_path / "report")]) == 2
    assert message in capsys.readouterr().err.strip().split("\n")[-1]
    assert not RAN.exists()


def test_missing_pictures_are_told_before_an_encoder_is_loaded(oxford, tmp_path, monkeypatch, capsys):
    shutil.copytree(oxford, tmp_path / "data")
    (tmp_path / "data" / "jpg" / "red_000003.jpg").unlink()
    monkeypatch.setattr(
        "evaluators.encoders.load_encoder", lambda *_: pytest.fail("loaded before the data was checked")
    )
    arguments = ["--base", "a", "--boosted", "b", "--tasks", "all", "--output", str(tmp_path / "report")]
    assert evaluate([*arguments, "--data", f"roxford={tmp_path / 'data'}"]) == 2
    assert "lacks 1 of 14 pictures: fetch red_000003.jpg" in capsys.readouterr().err


def test_real_landmarks_find_each_other(encoder_folders, tmp_path):
    if not REAL.is_dir():
        pytest.skip(f"{REAL} is absent: the real samples are not part of the project")
    result = retrieval.evaluate(load_encoder(encoder_folders("dinov3")), config_of("landmarks", REAL, tmp_path))
    assert len(result["items"][0]) == 13 and np.isfinite(result["items"][0]).all()
