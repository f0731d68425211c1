"""The `hub` source on local data sets in the layouts of the Hub, and on a Hub that this file serves itself."""

import pickle

import numpy as np
import pytest
from datasets import Dataset, Features, Image, Value
from datasets.exceptions import DatasetNotFoundError

from dataset_builders.scene import DropItem, InputError
from dataset_builders.sources import SourceOptions, open_source
from dataset_builders.sources import hub as module
from dataset_builders.sources.hub import HubSource
from tests.dataset_builders.miniatures_images import encoded, picture, write_image

ROWS = 7


@pytest.fixture(autouse=True)
def _nothing_cached(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for function in (module._open, module._stream, module._licence):
        function.cache_clear()


def write_parquet(folder, files=2, card="", columns=("image",), broken=()):
    """A data set of the Hub: Parquet shards in data/, a card with or without the number of rows."""
    (folder / "data").mkdir(parents=True)
    features = Features({name: Image() for name in columns} | {"caption": Value("string")})
    for part, numbers in enumerate(np.array_split(range(ROWS), files)):
        rows = []
        for number in numbers.tolist():
            content = b"no image" if number in broken else encoded(picture(number))
            stored = None if number in broken and number % 2 else {"bytes": content, "path": f"{number}.jpg"}
            rows.append({name: stored for name in columns} | {"caption": str(number)})
        name = f"train-{part:05d}-of-{files:05d}.parquet"
        Dataset.from_list(rows, features=features).to_parquet(folder / "data" / name)
    if card:
        (folder / "README.md").write_text(f"---\n{card}\n---\n# A data set\n")
    return folder


def card(columns=("image",), rows=ROWS):
    features = "".join(f"  - name: {name}\n    dtype: image\n" for name in columns)
    features += "  - name: caption\n    dtype: string\n"
    splits = f"  - name: train\n    num_examples: {rows}\n    num_bytes: 1000\n"
    return f"license: cc-by-4.0\ndataset_info:\n  features:\n{features}  splits:\n{splits}"


def source(folder, **options):
    return HubSource(SourceOptions(dataset=str(folder), **options))


def test_rows_become_scenes_with_their_own_bytes(tmp_path):
    one = source(write_parquet(tmp_path / "photos", card=card()))
    assert list(one.list_items()) == [f"row-{number:08d}" for number in range(ROWS)]
    for number, item in enumerate(one.list_items()):
        scene = one.load(item)
        assert scene.views[0].image_bytes == encoded(picture(number))
        assert scene.id == f"photos-train-{item}"
        assert (scene.source, scene.licence, scene.split) == ("hub", "cc-by-4.0", "train")
    assert HubSource.how_to_get.endswith(".")


def test_any_order_and_any_process_gives_the_same_scene(tmp_path):
    one = source(write_parquet(tmp_path / "photos", card=card()))
    again = pickle.loads(pickle.dumps(one))
    for number in (5, 1, 1, 3, 6, 0):
        item = f"row-{number:08d}"
        assert one.load(item).views[0].image_bytes == encoded(picture(number)) == again.load(item).views[0].image_bytes


def test_consecutive_rows_are_read_once(tmp_path):
    one = source(write_parquet(tmp_path / "photos", card=card()))
    opened = []
    stream = module._stream(*module._address(one.options), "image")
    skip = stream._dataset.skip
    stream._dataset.skip = lambda number: opened.append(number) or skip(number)
    for number in (0, 1, 2, 4, 6, 2, 3):
        one.load(f"row-{number:08d}")
    assert opened == [0, 2]


def test_a_folder_of_images_is_a_data_set_too(tmp_path):
    contents = [write_image(tmp_path / "set" / f"{number}.png", number, kind="PNG") for number in range(3)]
    one = source(tmp_path / "set", num_scenes=3)
    assert [one.load(item).views[0].image_bytes for item in one.list_items()] == contents
    assert one.load("row-00000000").licence == "unknown"


def test_rows_without_a_usable_image(tmp_path):
    one = source(write_parquet(tmp_path / "photos", card=card(rows=9), broken=(2, 3)))
    reasons = {}
    for item in one.list_items():
        try:
            one.load(item)
        except DropItem as drop:
            assert item in drop.detail
            reasons[int(item[-1])] = drop.reason
    assert reasons == {2: "unreadable_image", 3: "missing_image", 7: "missing_row", 8: "missing_row"}


def test_a_damaged_shard_drops_its_rows(tmp_path):
    folder = write_parquet(tmp_path / "photos", card=card())
    one = source(folder)
    content = bytearray((folder / "data" / "train-00001-of-00002.parquet").read_bytes())
    content[4 : len(content) // 2] = bytes(len(content) // 2 - 4)
    (folder / "data" / "train-00001-of-00002.parquet").write_bytes(content)
    assert one.load("row-00000001").views[0].image_bytes == encoded(picture(1))
    for item in ("row-00000005", "row-00000006"):
        with pytest.raises(DropItem, match=item) as caught:
            one.load(item)
        assert caught.value.reason == "unreadable_row"
    assert one.load("row-00000002").views[0].image_bytes == encoded(picture(2))


def test_the_number_of_rows_must_be_known(tmp_path):
    folder = write_parquet(tmp_path / "photos")
    with pytest.raises(InputError, match="does not say how many rows it has; pass --num-scenes"):
        source(folder).list_items()
    assert len(source(folder, num_scenes=4).list_items()) == 4
    (folder / "README.md").write_text(f"---\n{card()}\n---\n")
    module._open.cache_clear()
    assert len(source(folder, num_scenes=1000).list_items()) == ROWS
    assert len(source(folder, num_scenes=3).list_items()) == 3


def test_which_column(tmp_path):
    folder = write_parquet(tmp_path / "photos", columns=("left", "right"), card=card(("left", "right")))
    with pytest.raises(InputError, match="--image-column is missing: .* has left, right; choose one"):
        source(folder)
    assert source(folder, image_column="right").load("row-00000001").views[0].image_bytes == encoded(picture(1))
    with pytest.raises(InputError, match="--image-column caption holds no images; columns with images: left, right"):
        source(folder, image_column="caption")
    with pytest.raises(InputError, match="--image-column middle does not exist"):
        source(folder, image_column="middle")
    text = tmp_path / "text" / "data.csv"
    text.parent.mkdir()
    text.write_text("caption,number\nhello,1\n")
    with pytest.raises(InputError, match="has no column of type Image, only caption, number"):
        source(text.parent)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset": None}, "--dataset is missing"),
        ({"input_dir": "x"}, "--input x is of no use to --source hub"),
        ({"views": 2}, "--views 2 is of no use to --source hub"),
        ({"dataset": "/nowhere/at/all"}, "--dataset /nowhere/at/all is neither a folder with data nor on the Hub"),
        ({"dataset": "org/not-there"}, "--dataset org/not-there cannot be reached; go online or pass a local folder"),
        ({"dataset_split": "test"}, "--dataset-split test does not fit .*Available splits: .'train'"),
        ({"dataset_config": "small"}, "--dataset-config small does not fit .*Available: .'default'"),
    ],
)
def test_mistakes(tmp_path, options, message):
    folder = write_parquet(tmp_path / "photos", card=card())
    with pytest.raises(InputError, match=message):
        open_source("hub", SourceOptions(**({"dataset": str(folder)} | options)))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (
            "Dataset 'org/set' is a gated dataset on the Hub. You must be authenticated to access it.",
            "is gated; accept its licence at https://huggingface.co/datasets/org/set and set HF_TOKEN",
        ),
        (
            "Dataset 'org/set' doesn't exist on the Hub or cannot be accessed.",
            "does not exist on the Hub or is private",
        ),
    ],
)
def test_what_the_hub_refuses(monkeypatch, said, message):
    def refuse(*arguments, **options):
        raise DatasetNotFoundError(said)

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(InputError, match=message):
        source("org/set")
