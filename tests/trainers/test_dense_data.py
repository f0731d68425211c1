"""Views with depth, classes, masks and cameras from what the real builder writes, and what is refused."""

import io
import json
import shutil

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value, load_dataset
from PIL import Image as PillowImage

from tests.trainers.conftest import image, row, save_data
from trainers.baselines.view_data import View, load_view_data, nearest_pixels, resize_nearest

ALL = ("depth", "classes", "masks", "cameras")


@pytest.fixture(scope="module")
def views(rooms):
    return load_view_data([f"{rooms}:single_view", f"{rooms}:multi_view"], ALL)


def test_every_image_of_the_language_run_has_its_maps(rooms, views):
    assert [source.rows for source in views.sources] == [
        load_dataset(str(rooms), config, split="train").num_rows for config in ("single_view", "multi_view")
    ]
    assert len(views.dataset) == sum(source.rows for source in views.sources)
    assert views.class_names == tuple(json.loads((rooms / "classes.json").read_text()))
    for index in range(len(views.dataset)):
        for view in views.dataset[index]["views"]:
            assert view.image.size == (64, 64) == view.depth_m.shape == view.classes.shape
            assert view.depth_m.min() > 0.3 and view.depth_m.max() < 20
            assert view.classes.max() < len(views.class_names)
            assert all(mask.shape == (64, 64) and mask.any() for mask in view.masks)
    assert any(view.masks for view in views.dataset[0]["views"])


def test_maps_belong_to_their_image(rooms, views):
    """The dense row of the same id, and masks that lie on one class each (they were rendered together)."""
    dense = {one["id"]: one for one in load_dataset(str(rooms), "dense", split="train")}
    conversations = load_dataset(str(rooms), "single_view", split="train")
    for index, conversation in enumerate(conversations):
        found = views.dataset[index]
        assert found["id"] == conversation["id"]
        (view,) = found["views"]
        assert np.array_equal(np.asarray(view.image), np.asarray(dense[found["id"]]["image"].convert("RGB")))
        assert np.allclose(view.depth_m * 1000, np.asarray(dense[found["id"]]["depth"]), atol=0.01)
        named = [one for one in conversation["objects"] if one["mask"]]
        for one, mask in zip(named, view.masks, strict=True):
            assert len(np.unique(view.classes[mask])) == 1, one["name"]


def test_masks_of_several_views_lie_in_their_own_view(rooms, views):
    first = len(load_dataset(str(rooms), "single_view", split="train"))
    numbers = set()
    for index in range(first, len(views.dataset)):
        for number, view in enumerate(views.dataset[index]["views"]):
            assert all(len(np.unique(view.classes[mask])) == 1 for mask in view.masks)
            numbers |= {number} if view.masks else set()
    assert numbers == {0, 1}


def test_the_configuration_dense_serves_by_itself(rooms):
    data = load_view_data([f"{rooms}:dense"], ("depth", "cameras"))
    (view,) = data.dataset[0]["views"]
    assert view.depth_m is not None and np.array_equal(view.camera.to_world, np.eye(4))
    sliced = load_view_data([f"{rooms}:single_view:train[:2]"], ("depth",))
    assert len(sliced.dataset) == 2 and sliced.dataset[1]["views"][0].depth_m is not None


def test_fingerprints_know_the_maps(rooms, tmp_path):
    before = load_view_data([f"{rooms}:single_view"], ("depth",)).sources
    assert before == load_view_data([f"{rooms}:single_view"], ("depth",)).sources
    changed = shutil.copytree(rooms, tmp_path / "changed")
    table = load_dataset(str(rooms), "dense", split="train").cast_column("depth", Image(decode=False))
    table = table.map(lambda one: one | {"depth": {"bytes": flat_depth(), "path": None}})
    table.to_parquet(str(next((changed / "dense").glob("train-*"))))
    after = load_view_data([f"{changed}:single_view"], ("depth",)).sources
    assert after[0].fingerprint != before[0].fingerprint
    assert load_view_data([f"{changed}:single_view"], ()).sources[0].fingerprint == (
        load_view_data([f"{rooms}:single_view"], ()).sources[0].fingerprint
    )


def flat_depth(size: tuple[int, int] = (64, 64)) -> bytes:
    buffer = io.BytesIO()
    PillowImage.fromarray(np.full(size, 1500, np.uint16)).save(buffer, format="PNG")
    return buffer.getvalue()


def test_pixels_keep_their_place_when_resized():
    assert nearest_pixels(4, 4).tolist() == [0, 1, 2, 3]
    assert nearest_pixels(4, 2).tolist() == [1, 3]
    assert nearest_pixels(2, 4).tolist() == [0, 0, 1, 1]
    assert resize_nearest(np.arange(6).reshape(2, 3), (2, 3)).tolist() == [[0, 1, 2], [3, 4, 5]]
    assert View(image(0)).masks == []


def dense_folder(folder, size=(40, 32), class_id=255, depth_mm=0, names=None):
    """One conversation, and its image as a dense row with flat maps."""
    picture = image(100)
    maps = {"depth": np.full(size[::-1], depth_mm, np.uint16), "segmentation": np.full(size[::-1], class_id, np.uint8)}
    dense = {"image": picture, "id": "one"} | {name: PillowImage.fromarray(array) for name, array in maps.items()}
    save_data(folder, single_view=[row(1, 1)])
    features = Features({**dict.fromkeys(("image", "depth", "segmentation"), Image()), "id": Value("string")})
    (folder / "dense").mkdir()
    Dataset.from_list([dense], features=features).to_parquet(folder / "dense" / "train-00000-of-00001.parquet")
    card = (folder / "README.md").read_text()
    entry = "- config_name: dense\n  data_files:\n  - split: train\n    path: dense/train-*.parquet\n---"
    (folder / "README.md").write_text(card.rstrip().removesuffix("---") + entry + "\n")
    if names is not None:
        (folder / "classes.json").write_text(json.dumps(names))
    return folder


def test_what_is_missing_is_told_in_one_sentence(data, tmp_path):
    with pytest.raises(ValueError, match=r"depth and class maps are read from '.*:dense:train', which is not there"):
        load_view_data([f"{data}:single_view"], ("depth",))
    with pytest.raises(ValueError, match="has no masks: pass the column 'objects'"):
        load_view_data([f"{data}:single_view"], ("masks",))
    folder = dense_folder(tmp_path / "empty")
    for need in ("depth", "classes"):
        with pytest.raises(ValueError, match=f"nothing in them has {need}, which come from"):
            load_view_data([f"{folder}:single_view"], (need,))
    with pytest.raises(ValueError, match="nothing in them has cameras"):
        load_view_data([f"{data}:multi_view"], ("cameras",))
    folder = dense_folder(tmp_path / "size", size=(20, 16))
    with pytest.raises(ValueError, match=r"row 0 has maps of \(20, 16\) and \(20, 16\) for an image of \(40, 32\)"):
        load_view_data([f"{folder}:single_view"], ("depth",))
    folder = dense_folder(tmp_path / "names", class_id=7, names=["floor"])
    with pytest.raises(ValueError, match="has class id 7, but classes.json names 1"):
        load_view_data([f"{folder}:single_view"], ("classes",))
    with pytest.raises(ValueError, match="has no images: pass a data set"):
        load_view_data([text_only(tmp_path / "text")], ())


def text_only(folder):
    folder.mkdir()
    Dataset.from_list([{"text": "no image"}]).to_parquet(folder / "train.parquet")
    return str(folder)


def test_classes_without_names_are_numbered_and_must_agree(tmp_path):
    first = dense_folder(tmp_path / "first", class_id=2)
    assert load_view_data([f"{first}:single_view"], ("classes",)).class_names == ("class 0", "class 1", "class 2")
    second = dense_folder(tmp_path / "second", class_id=2, names=["floor", "wall", "box"])
    with pytest.raises(ValueError, match=r"their classes.json differ"):
        load_view_data([f"{first}:single_view", f"{second}:single_view"], ("classes",))


def test_an_image_that_cannot_be_read_is_refused(tmp_path):
    broken = row(0, 1) | {"images": [{"bytes": b"no image", "path": None}]}
    folder = save_data(tmp_path / "broken", single_view=[row(1, 1), broken])
    with pytest.raises(ValueError, match="row 1 has an image that cannot be read, number 1"):
        load_view_data([f"{folder}:single_view"], ())
