import io
import shutil

import pytest
from datasets import Dataset

from tests.trainers.conftest import FEATURES, image, part, row, save_data
from trainers.data import examine_row, load_training_data


def bytes_of(picture, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", **options)
    return buffer.getvalue()


def test_joins_configs_and_keeps_what_training_reads(data):
    dataset, sources = load_training_data([f"{data}:single_view", f"{data}:multi_view:train[:2]"])
    assert dataset.column_names == ["images", "messages", "id"]
    assert [source.rows for source in sources] == [8, 2]
    assert [len(row["images"]) for row in dataset] == [1] * 8 + [2, 3]
    assert dataset[0]["images"][0].tobytes() == image(0).tobytes()


def test_fingerprint_follows_the_content(data, tmp_path):
    names = [f"{data}:single_view", f"{data}:single_view:train[:7]"]
    _, (whole, part_of_it) = load_training_data(names)
    assert whole.fingerprint != part_of_it.fingerprint
    copy = save_data(tmp_path / "elsewhere", single_view=[row(index, 1) for index in range(8)])
    _, (same,) = load_training_data([f"{copy}:single_view"])
    assert same.fingerprint == whole.fingerprint
    changed = [row(index, 1) for index in range(8)]
    changed[5]["images"] = [image(1)]
    other = save_data(tmp_path / "changed", single_view=changed)
    _, (different,) = load_training_data([f"{other}:single_view"])
    assert different.fingerprint != whole.fingerprint


def test_a_rebuilt_folder_gives_its_new_rows(tmp_path):
    folder = save_data(tmp_path / "first" / "data", single_view=[row(0, 1)])
    assert len(load_training_data([f"{folder}:single_view"])[0]) == 1
    shutil.rmtree(folder)
    save_data(folder, single_view=[row(0, 1), row(1, 1)])
    assert len(load_training_data([f"{folder}:single_view"])[0]) == 2
    namesake = save_data(tmp_path / "second" / "data", single_view=[row(index, 1) for index in range(3)])
    assert len(load_training_data([f"{namesake}:single_view"])[0]) == 3


def broken_rows() -> dict[str, tuple[dict, str]]:
    too_many = row(0, 1) | {"images": [image(0), image(1)]}
    silent = row(0, 1)
    silent["messages"] = [message for message in silent["messages"] if message["role"] == "user"]
    empty = row(0, 1)
    for message in empty["messages"]:
        if message["role"] == "assistant":
            message["content"] = [part("text", "")]
    stranger = row(0, 1)
    stranger["messages"][0]["role"] = "human"
    truncated = row(0, 1) | {"images": [{"bytes": bytes_of(image(0))[:900], "path": None}]}
    noise = row(0, 1) | {"images": [{"bytes": b"no image at all", "path": None}]}
    gone = row(0, 1) | {"images": [{"bytes": None, "path": "/nowhere/view.png"}]}
    return {
        "count": (too_many, "has 2 images and 1 image placeholders"),
        "no answer": (silent, "has no assistant message with text"),
        "empty answer": (empty, "has no assistant message with text"),
        "role": (stranger, "has messages of role 'human'"),
        "truncated": (truncated, "has an image that cannot be read, number 1"),
        "noise": (noise, "has an image that cannot be read, number 1"),
        "missing file": (gone, "has an image that cannot be read, number 1"),
    }


@pytest.mark.parametrize("kind", broken_rows())
def test_broken_row(kind):
    broken, problem = broken_rows()[kind]
    images = [
        picture if isinstance(picture, dict) else {"bytes": bytes_of(picture), "path": None}
        for picture in broken["images"]
    ]
    assert examine_row(broken | {"images": images}, needs_images=True)["problem"].startswith(problem)


def test_good_row_and_text_only_row():
    good = row(0, 1) | {"images": [{"bytes": bytes_of(image(0)), "path": None}]}
    assert examine_row(good, needs_images=True)["problem"] == ""
    text_only = {
        "images": [],
        "messages": [{"role": role, "content": [part("text", "a")]} for role in ("user", "assistant")],
    }
    assert examine_row(text_only, needs_images=False)["problem"] == ""
    assert examine_row(text_only, needs_images=True)["problem"].startswith("has no images")


def test_plain_string_messages():
    messages = [{"role": "user", "content": "what?"}, {"role": "assistant", "content": "that"}]
    good = {"images": [{"bytes": bytes_of(image(0)), "path": None}], "messages": messages}
    assert examine_row(good, needs_images=True)["problem"] == ""
    assert "no assistant" in examine_row(good | {"messages": messages[:1]}, needs_images=True)["problem"]


def test_error_names_row_id_and_count(tmp_path):
    rows = [row(index, 1) for index in range(4)]
    for bad in (2, 3):
        rows[bad]["images"] *= 2
    folder = save_data(tmp_path / "data", single_view=rows)
    with pytest.raises(ValueError, match=r"row 2 \(id 'scene_2'\) has 2 images and 1 image.*2 of 4 rows") as caught:
        load_training_data([f"{folder}:single_view"])
    assert "\n" not in str(caught.value)


def test_missing_column(tmp_path):
    rows = Dataset.from_list([row(0, 1)], features=FEATURES)
    rows.rename_column("messages", "conversations").to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"has no column 'messages', only .*conversations.*spatialboost build"):
        load_training_data([str(tmp_path)])


def test_images_of_another_type(tmp_path):
    rows = Dataset.from_list([{"images": ["view.png"], "messages": [{"role": "user", "content": "what?"}]}])
    rows.to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match=r"its column 'images' is of type .*not List\(Image\(\)\)"):
        load_training_data([str(tmp_path)])


@pytest.mark.parametrize("name", ["{tmp}/nothing", "{data}:stereo", "{data}:single_view:validation"])
def test_unknown_data_set(name, data, tmp_path):
    name = name.format(tmp=tmp_path, data=data)
    with pytest.raises(ValueError, match="is neither a folder with a data set nor one on the Hub") as caught:
        load_training_data([name])
    assert name in str(caught.value)


def test_corrupt_file(tmp_path):
    (tmp_path / "train.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match="is neither a folder with a data set"):
        load_training_data([str(tmp_path)])


def test_no_rows(data):
    with pytest.raises(ValueError, match=r"train\[:0\].*corresponds to no data"):
        load_training_data([f"{data}:single_view:train[:0]"])


def test_types_that_cannot_be_joined(data, tmp_path):
    plain = row(0, 1)["messages"]
    strings = [{"role": message["role"], "content": message["content"][-1]["text"]} for message in plain]
    features = FEATURES.copy()
    del features["messages"], features["id"], features["source"]
    rows = Dataset.from_list([{"images": row(0, 1)["images"]}], features=features)
    rows.add_column("messages", [strings]).to_parquet(tmp_path / "train.parquet")
    with pytest.raises(ValueError, match="different types"):
        load_training_data([f"{data}:single_view", str(tmp_path)])
