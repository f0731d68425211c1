"""Reading and checking the `dense` configuration."""

import shutil

import numpy as np
import pytest

from evaluators.dense_data import load_dense, resize_nearest

from .conftest import CLASS_NAMES, DEPTHS_MM, make_row, png, write_dense


def test_maps_come_back_in_metres_and_class_ids(dense_folder):
    data = load_dense(str(dense_folder))
    assert (len(data.train), len(data.test), data.class_names) == (24, 8, tuple(CLASS_NAMES))
    depth_m, class_ids = data.train.dense_map("depth", 0), data.train.dense_map("segmentation", 0)
    assert depth_m.dtype == np.float32 and data.train[0].size == (32, 32)
    assert (depth_m[0, :4] == 0).all() and (class_ids[0, 4:8] == 255).all()
    inner = slice(1, None)
    np.testing.assert_allclose(depth_m[inner], DEPTHS_MM[class_ids[inner]] / 1000)


def test_targets_are_nearest_pixels(dense_folder, tmp_path):
    data = load_dense(str(dense_folder))
    targets_m = data.train.training_targets("depth", (16, 8), tmp_path)
    assert targets_m.shape == (24, 16, 8)
    assert set(np.unique(targets_m.numpy()).tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}
    assert resize_nearest(np.array([[1, 2], [3, 4]]), (4, 4)).tolist() == [[1, 1, 2, 2]] * 2 + [[3, 3, 4, 4]] * 2
    assert resize_nearest(np.arange(6).reshape(1, 6), (1, 2)).tolist() == [[1, 4]]


def test_fingerprint_follows_the_content_and_not_the_place(tmp_path):
    rows = [make_row(seed) for seed in range(3)]
    one, two = write_dense(tmp_path / "one", rows, rows[:1]), write_dense(tmp_path / "two", rows, rows[:1])
    changed = write_dense(tmp_path / "changed", [*rows[:2], {**rows[2], "depth": rows[1]["depth"]}], rows[:1])
    fingerprints = [load_dense(str(folder)).train.fingerprint for folder in (one, two, changed)]
    assert fingerprints[0] == fingerprints[1] != fingerprints[2]
    assert load_dense(str(one)).describe()["images_in_both_splits"] == 1


def test_a_rebuilt_folder_gives_its_new_rows(tmp_path):
    folder = write_dense(tmp_path / "rooms", [make_row(0), make_row(1)], [make_row(2)])
    assert len(load_dense(str(folder)).train) == 2
    shutil.rmtree(folder)
    write_dense(folder, [make_row(0), make_row(1), make_row(3)], [make_row(2)])
    assert len(load_dense(str(folder)).train) == 3  # load_dataset would give the two old ones


def test_unusable_rows_are_dropped_and_counted(tmp_path):
    rows = [make_row(seed) for seed in range(6)]
    rows[0]["image"] = rows[0]["image"][:200]
    rows[1]["depth"] = b"no picture"
    rows[2]["depth"] = png(np.ones((16, 32), np.uint16))
    rows[3]["depth"] = png(np.ones((32, 32), np.uint8))
    data = load_dense(str(write_dense(tmp_path / "data", rows, rows[4:])))
    assert data.train.dropped == {"unreadable_file": 2, "size_mismatch": 1, "wrong_bit_depth": 1}
    assert len(data.train) == 2 and data.test.dropped == {}
    assert data.train.rows["id"][0] == "room_4"


def test_limit_cuts_both_splits(dense_folder):
    data = load_dense(str(dense_folder), limit=5)
    assert (len(data.train), len(data.test)) == (5, 5)
    with pytest.raises(ValueError, match="limit 0 leaves no image"):
        load_dense(str(dense_folder), limit=0)


def test_classes_without_names_are_numbered(tmp_path):
    rows = [make_row(seed) for seed in range(8)]
    data = load_dense(str(write_dense(tmp_path / "data", rows, rows, class_names=None)))
    assert data.class_names == ("class 0", "class 1", "class 2", "class 3")


def test_errors_name_the_data_and_the_remedy(tmp_path, dense_folder):
    rows = [make_row(seed) for seed in range(8)]
    with pytest.raises(ValueError, match=r"class id 3 but classes.json names 2"):
        load_dense(str(write_dense(tmp_path / "names", rows, rows, class_names=["wall", "red"])))
    with pytest.raises(ValueError, match=r"absent.*has no split 'train' of the configuration 'dense'"):
        load_dense(str(tmp_path / "absent"))
    broken = [{**row, "image": b"no picture"} for row in rows]
    with pytest.raises(ValueError, match=r"no usable row in split 'test' \({'unreadable_file': 8}\)"):
        load_dense(str(write_dense(tmp_path / "broken", rows, broken)))
    other = write_dense(tmp_path / "other", rows, rows)
    (other / "README.md").write_text((other / "README.md").read_text().replace("dense\n", "single_view\n", 1))
    with pytest.raises(ValueError, match="has no split 'train' of the configuration 'dense'"):
        load_dense(str(other))


def test_a_missing_column_is_named(tmp_path):
    from datasets import Dataset

    folder = write_dense(tmp_path / "data", [make_row(0)], [make_row(1)])
    for file in (folder / "dense").iterdir():
        Dataset.from_parquet(str(file)).remove_columns("segmentation").to_parquet(file)
    with pytest.raises(ValueError, match="lacks the column 'segmentation'"):
        load_dense(str(folder))
