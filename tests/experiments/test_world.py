"""The world of the miniature at its smallest: what the trainers and evaluators find in it, and that it is reused."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
from datasets import load_dataset

from dataset_builders.sources.synthetic_objects import CLASSES
from evaluators.data_sets.image_folder import load_image_folder
from evaluators.data_sets.oxford_paris import load_oxford_paris
from evaluators.dense_data import load_dense
from experiments.world import WorldSize, make_world

SIZE = WorldSize(num_scenes=6, views=2, image_size_px=48, workers=1)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def world(root):
    return make_world(root / "first", SIZE, seed=3)


def digests(folder):
    files = sorted(path for path in folder.rglob("*") if path.suffix in (".parquet", ".png", ".jpg", ".json"))
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_trainers_and_probes_find_their_data(world):
    for config in ("alignment", "grounding", "multi_view_vqa", "single_view"):
        rows = load_dataset(str(world.data), config, split="train")
        assert rows.num_rows and rows[0]["images"][0].size == (48, 48)
    dense = load_dense(str(world.data))
    assert len(dense.train) == 10 and len(dense.test) == 2
    assert dense.class_names[:3] == ("floor", "wall", "ceiling")


def test_objects_are_a_folder_of_classes(world):
    data = load_image_folder(str(world.objects))
    assert set(data.class_names) == {kind for kind, one in CLASSES.items() if not one.is_support}
    assert np.bincount(data.train.labels).tolist() == [4] * 14
    assert np.bincount(data.test.labels).tolist() == [2] * 14
    assert data.train.pictures[0].size == (48, 48)
    assert data.describe()["images_in_both_splits"] == 0


def test_places_are_read_as_roxford(world):
    data = load_oxford_paris("roxford", str(world.places))
    assert len(data.queries) == 3 and len(data.database) == 3 * (5 + 3)
    for index in range(3):
        easy, hard = (data.levels[level][index].relevant for level in ("map_easy", "map_hard"))
        shown = [data.database.names[row] for row in (*easy, *hard)]
        assert all(name.startswith(f"place-{index:04d}") for name in shown)
        assert not set(easy) & set(hard)
    assert sum(len(one.relevant) for one in data.levels["map_medium"]) >= 6


def test_a_second_run_makes_nothing(world, root, capsys):
    def times():
        return {path: path.stat().st_mtime_ns for path in (*root.rglob("*.p*"), root / "first" / "world.json")}

    before = times()
    again = make_world(root / "first", replace(SIZE, workers=2), seed=3)
    said = capsys.readouterr().out
    assert again == world
    assert "nothing to do" in said and said.count("all there already") == 2
    assert before == times()


def test_a_stopped_run_goes_on_and_the_bytes_are_those_of_any_number_of_workers(world, root):
    """What is missing is made anew, by two processes, with the same bytes."""
    whole = digests(root / "first" / "objects") | digests(root / "first" / "places")
    for file in [*sorted(world.objects.rglob("*.png"))[::9], *sorted(world.places.rglob("*.jpg"))[4:6]]:
        file.unlink()
    make_world(root / "first", replace(SIZE, workers=2), seed=3)
    assert whole == digests(root / "first" / "objects") | digests(root / "first" / "places")


@pytest.mark.parametrize(
    ("change", "seed", "words"),
    [
        ({"num_scenes": 7}, 3, "holds a world of num_scenes 6, not 7"),
        ({}, 4, "seed 3, not 4"),
        ({"views": 1}, 3, "views 1 is too few"),
        ({"workers": 0}, 3, "workers 0 is too few"),
    ],
)
def test_a_mistake_is_told(world, root, change, seed, words):
    with pytest.raises(ValueError, match=words):
        make_world(root / "first", replace(SIZE, **change), seed)


def test_the_record_says_what_it_is(world, root):
    record = json.loads((root / "first" / "world.json").read_text())
    assert record["num_scenes"] == 6 and record["seed"] == 3 and "workers" not in record
