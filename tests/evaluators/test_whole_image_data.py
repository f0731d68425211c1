"""Pictures in class folders and ImageNet in each of its layouts, on miniatures; what is missing is told."""

import io
import json
import tarfile

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from datasets import Image as ImageFeature
from PIL import Image

from evaluators.data_sets.image_folder import PictureFiles, load_image_folder, read_places
from evaluators.data_sets.imagenet import load_imagenet
from tests.evaluators.whole_images import COLOURS, blob, save, write_classes


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def labels_by_name(part):
    return dict(zip(part.pictures.names, part.labels.tolist()))


@pytest.mark.parametrize("test_name", ["test", "val", "validation"])
def test_folders_train_and_test_are_used_as_they_are(tmp_path, test_name):
    data = load_image_folder(str(write_classes(tmp_path / "data", 2, ("train", test_name))))
    assert data.class_names == ("blue", "green", "red") and data.train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert labels_by_name(data.test)["green/001.png"] == 1 and f"reported on `{test_name}`" in data.note
    assert data.describe()["images_in_both_splits"] == 0


def test_without_a_split_a_fifth_of_each_class_is_for_the_test_always_the_same(tmp_path):
    root = write_classes(tmp_path / "data", 10, ("",))
    data = load_image_folder(str(root))
    assert np.bincount(data.train.labels).tolist() == [8, 8, 8] and np.bincount(data.test.labels).tolist() == [2, 2, 2]
    assert not set(data.train.pictures.names) & set(data.test.pictures.names)
    load_image_folder.cache_clear()
    assert load_image_folder(str(root)).test.pictures.names == data.test.pictures.names
    assert len(read_places(str(root)).labels) == 30


def test_a_limit_takes_from_each_class_in_turn(tmp_path):
    data = load_image_folder(str(write_classes(tmp_path / "data", 4)), limit=5)
    assert np.bincount(data.train.labels).tolist() == [2, 2, 1] and len(data.test.labels) == 5


def test_a_picture_in_both_splits_is_found_and_a_changed_one_changes_the_fingerprint(tmp_path):
    root = write_classes(tmp_path / "data", 2)
    (root / "val/red/001.png").write_bytes((root / "train/red/000.png").read_bytes())
    data = load_image_folder(str(root))
    assert data.describe()["images_in_both_splits"] == 1
    before = PictureFiles(root, ("train/red/000.png",)).fingerprint
    save(blob("red", 7), root / "train/red/000.png")
    assert PictureFiles(root, ("train/red/000.png",)).fingerprint != before


def test_folders_without_classes_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is no folder: pass one with a sub-folder of pictures per class"):
        load_image_folder(str(tmp_path / "absent"))
    with pytest.raises(ValueError, match="is no folder: pass one with a sub-folder of pictures per place"):
        read_places(str(tmp_path / "absent"))
    (tmp_path / "empty" / "cats").mkdir(parents=True)
    with pytest.raises(ValueError, match="has no pictures in class folders: lay them out as CLASS/NAME.jpg"):
        load_image_folder(str(tmp_path / "empty"))
    root = write_classes(tmp_path / "data", 1)
    (root / "val" / "red").rename(root / "val" / "pink")
    with pytest.raises(ValueError, match="has the class 'pink' in the test only"):
        load_image_folder(str(root))
    with pytest.raises(ValueError, match="limit 0 leaves no image"):
        load_image_folder(str(root), limit=0)


@pytest.mark.parametrize("below", ["", "ILSVRC/Data/CLS-LOC"])
def test_imagenet_in_folders(tmp_path, below):
    write_classes(tmp_path / "data" / below, 2, suffix="JPEG")
    data = load_imagenet(str(tmp_path / "data"))
    assert (len(data.train.labels), len(data.test.labels)) == (6, 6) and data.class_names == tuple(COLOURS)
    assert data.differs == "not the whole of ImageNet-1k: 3 classes, 6 test pictures"
    assert data.train.pictures[0].mode == "RGB"


def test_imagenet_with_all_of_val_in_one_folder_is_refused(tmp_path):
    root = write_classes(tmp_path / "data", 1)
    save(blob("red", 0), root / "val" / "ILSVRC2012_val_00000001.JPEG")
    with pytest.raises(ValueError, match="all pictures of val/ in one folder: move them into class folders"):
        load_imagenet(str(root))


def png(picture):
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


CARD = """---
configs:
- config_name: default
  data_files:
  - split: train
    path: data/train-*
  - split: validation
    path: data/validation-*
---
"""


def write_parquet(root, seed):
    features = Features({"image": ImageFeature(), "label": ClassLabel(names=list(COLOURS))})
    for offset, split in enumerate(("train", "validation")):
        rows = {
            "image": [{"bytes": png(blob(name, seed + offset)), "path": None} for name in COLOURS],
            "label": [0, 1, 2],
        }
        (root / "data").mkdir(parents=True, exist_ok=True)
        (root / "README.md").write_text(CARD)
        Dataset.from_dict(rows, features=features).to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")


def test_imagenet_in_a_copy_of_the_hubs_parquet_and_a_rebuilt_one_is_read_anew(tmp_path):
    write_parquet(tmp_path / "imagenet-1k", 0)
    data = load_imagenet(str(tmp_path / "imagenet-1k"))
    assert data.class_names == tuple(COLOURS) and data.test.labels.tolist() == [0, 1, 2]
    first = np.asarray(data.train.pictures[0])
    assert (first == np.asarray(blob("blue", 0))).all()
    load_imagenet.cache_clear()
    write_parquet(tmp_path / "imagenet-1k", 50)
    again = load_imagenet(str(tmp_path / "imagenet-1k"))
    assert (np.asarray(again.train.pictures[0]) == np.asarray(blob("blue", 50))).all()
    assert again.train.pictures.fingerprint != data.train.pictures.fingerprint
    assert len(again.train.select(np.array([2])).pictures) == 1
    assert len(load_imagenet(str(tmp_path / "imagenet-1k"), limit=2).train.labels) == 2


def test_a_label_out_of_range_is_told(tmp_path):
    write_parquet(tmp_path / "imagenet-1k", 0)
    rows = {"image": [{"bytes": png(blob("red", 0)), "path": None}], "label": [7]}
    features = Features({"image": ImageFeature(), "label": Value("int64")})
    file = tmp_path / "imagenet-1k" / "data" / "validation-00000-of-00001.parquet"
    Dataset.from_dict(rows, features=features).to_parquet(file)
    with pytest.raises(ValueError, match="has the label 7 but 3 classes: relabel it"):
        load_imagenet(str(tmp_path / "imagenet-1k"))


def test_imagenet_in_a_copy_of_timms_tar_shards(tmp_path):
    root = tmp_path / "imagenet-1k-wds"
    root.mkdir()
    for offset, split in enumerate(("train", "validation")):
        with tarfile.open(root / f"imagenet1k-{split}-0000.tar", "w") as shard:
            for number, name in enumerate(COLOURS):
                files = {"jpg": png(blob(name, offset)), "cls": str(number).encode(), "json": json.dumps({}).encode()}
                for suffix, content in files.items():
                    told = tarfile.TarInfo(f"{number:08d}.{suffix}")
                    told.size = len(content)
                    shard.addfile(told, io.BytesIO(content))
    data = load_imagenet(str(root))
    assert data.train.labels.tolist() == [0, 1, 2] and data.class_names == ("0", "1", "2")
    assert isinstance(data.test.pictures[1], Image.Image)


def test_a_gated_or_unknown_data_set_is_told_in_one_sentence():
    with pytest.raises(ValueError, match="ImageNet-1k on the Hub is gated, accept its terms on its page and log in"):
        load_imagenet("ILSVRC/imagenet-1k")  # the tests are offline
