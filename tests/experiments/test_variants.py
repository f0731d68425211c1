"""Changed conversations: as the builder itself would have worded them, valid, with the wrong images where asked."""

import io
import re
from collections import Counter

import numpy as np
import pytest
from datasets import Dataset, List, load_dataset
from datasets import Image as ImageColumn
from PIL import Image

from dataset_builders.phrasings import RECALL
from dataset_builders.schema import validate
from experiments.depth_questions import depth_m, depths_of, in_depth, picture_of
from experiments.pointing import NUM_QUESTIONS, masks_of
from experiments.variants import VARIANTS, changed_rows, make_variant, scene_of, with_other_images, worded_again
from tests.commands import build
from trainers.data import load_training_data

CONFIGS = ("single_view", "multi_view")
WORDED = [name for name, one in VARIANTS.items() if not (one.other_images or one.practice or one.in_depth)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The same rooms with the turns in each order, by the builder."""
    root = tmp_path_factory.mktemp("orders")
    for order in ("forward", "reverse", "random"):
        argv = ["--source", "synthetic", "--num-scenes", "8", "--resolution", "64", "--order", order]
        configs = (
            "single_view,multi_view,multi_view_vqa,grounding,dense" if order == "forward" else "single_view,multi_view"
        )
        assert build([*argv, "--configs", configs, "--output", str(root / order)]) == 0
    return root


def rows_of(folder, config):
    files = sorted(str(file) for file in (folder / config).glob("train-*.parquet"))
    return list(Dataset.from_parquet(files).cast_column("images", List(ImageColumn(decode=False))))


def grey_of(row):
    return np.asarray(Image.open(io.BytesIO(row["images"][0]["bytes"])).convert("L"), float)


def texts(row):
    return [part["text"] for message in row["messages"] for part in message["content"] if part["text"]]


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("order", ["forward", "reverse", "random"])
def test_another_order_is_worded_as_the_builder_words_it(order, config, built):
    wanted = {row["id"]: row for row in rows_of(built / order, config)}
    changed = [worded_again(row, order) for row in rows_of(built / "forward", config)]
    assert len(changed) == len(wanted) > 2
    for row in changed:
        assert row == wanted[row["id"]]


@pytest.mark.parametrize("name", WORDED)
def test_a_variant_is_a_valid_conversation_with_the_turns_that_it_names(name, built):
    variant, rows = VARIANTS[name], rows_of(built / "forward", "single_view")
    changed = changed_rows(rows, variant)
    assert [row["id"] for row in changed] == [row["id"] for row in rows]
    for old, new in zip(rows, changed):
        assert validate(new) == []
        levels = {turn["level"] for turn in old["turns"]} - {variant.without}
        assert {turn["level"] for turn in new["turns"]} == ({variant.only} if variant.only else levels)
        assert new["images"] == old["images"] and len(new["messages"]) == 2 * len(new["turns"])


def test_what_is_left_out_is_not_recalled_either(built):
    rows = rows_of(built / "forward", "single_view")
    told = [text for row in rows for text in texts(row)[1::2] if text.startswith(RECALL)]
    assert told  # the whole dialogues do recall
    for row in changed_rows(rows, VARIANTS["without_pixel"]):
        for turn, answer in zip(row["turns"], texts(row)[1::2]):
            # relations of object turns may be recalled by the scene turn, depths at points by nobody
            assert turn["level"] == "scene" or not any(recall in answer for recall in RECALL)
            assert "depth at the point" not in answer


def test_shuffled_answers_keep_every_text_and_image_under_another_scene(built):
    rows = rows_of(built / "forward", "single_view")
    changed = with_other_images(rows)
    assert Counter(map(str, map(texts, changed))) == Counter(map(str, map(texts, rows)))
    scene_by_image = {row["images"][0]["bytes"]: scene_of(row) for row in rows}
    assert Counter(row["images"][0]["bytes"] for row in changed) == Counter(row["images"][0]["bytes"] for row in rows)
    for row in changed:
        assert scene_by_image[row["images"][0]["bytes"]] != scene_of(row)
    with pytest.raises(ValueError, match="are of one scene: build more scenes"):
        with_other_images([row for row in rows if scene_of(row) == scene_of(rows[0])])


def test_the_trainers_read_a_variant_and_it_is_made_once(built, tmp_path):
    folder = make_variant(built / "forward", tmp_path / "captions", "captions_only", CONFIGS, workers=2)
    rows, sources = load_training_data([f"{folder}:single_view:train[:2]", f"{folder}:multi_view"])
    assert sources[0].rows == 2 and len(rows) == sources[0].rows + sources[1].rows
    assert {len(row["messages"]) for row in rows} == {4}
    assert load_dataset(str(folder), "multi_view", split="train").features["images"] == List(ImageColumn())
    written = {file: file.stat().st_mtime_ns for file in folder.rglob("*.*")}
    make_variant(built / "forward", folder, "captions_only", CONFIGS)
    assert written == {file: file.stat().st_mtime_ns for file in folder.rglob("*.*")}


def test_what_cannot_be_changed_is_refused(built, tmp_path):
    with pytest.raises(ValueError, match="variant='upside_down' is not known"):
        make_variant(built / "forward", tmp_path, "upside_down", CONFIGS)
    with pytest.raises(ValueError, match="has no training rows of 'alignment'"):
        make_variant(built / "forward", tmp_path, "captions_only", ("alignment",))
    with pytest.raises(ValueError, match="has no depth maps of split 'train'"):
        make_variant(built / "reverse", tmp_path, "depth_pictures", ("single_view",))
    with pytest.raises(ValueError, match="level 'vqa', which cannot be worded again"):
        worded_again(rows_of(built / "forward", "multi_view_vqa")[0], "forward")


@pytest.mark.parametrize("variant", ["pointing", "pointing_turned"])
def test_practice_asks_about_points_and_answers_by_pixels_and_masks(built, tmp_path, variant):
    folder = make_variant(built / "forward", tmp_path, variant, ("grounding",))
    old, new = rows_of(built / "forward", "grounding"), rows_of(folder, "grounding")
    assert len(new) == len(old) > 2
    names, values, turned = Counter(), Counter(), []
    for before, row in zip(old, new):
        masks = {item["name"]: mask for item, mask in masks_of(row)}
        upright, grey = grey_of(before), grey_of(row)
        turned.append(not np.array_equal(grey, upright))
        if turned[-1]:
            masks = {thing: mask.T for thing, mask in masks.items()}
            np.testing.assert_array_equal(grey, upright.T)
        height, width = grey.shape
        assert len(row["turns"]) == NUM_QUESTIONS == len(row["messages"]) / 2
        for asked, told in zip(row["messages"][::2], row["messages"][1::2]):
            question, answer = asked["content"][-1]["text"].split("camera.\n")[-1], told["content"][0]["text"]
            ((x, y),) = re.findall(r"the point \((0\.\d{3}), (0\.\d{3})\)", question)
            u, v = int(float(x) * width), int(float(y) * height)
            assert f"({x}, {y})" in answer or "point" not in answer
            if "bright" in question:
                value = float(re.search(r"(\d\.\d)\.$", answer).group(1))
                around = grey[max(0, v - 3) : v + 4, max(0, u - 3) : u + 4]
                assert value == pytest.approx(around.mean() / 255 * 9.9, abs=0.051)
                values[value] += 1
            else:
                name = re.search(r"we see the (.+)\.$", answer).group(1)
                assert masks[name][v, u]
                names[name] += 1
    assert len(names) > 3 and len(values) > 10
    assert {*turned} == ({False, True} if variant == "pointing_turned" else {False}), turned
    assert sum(values.values()) > 2 * sum(names.values())
    assert load_training_data([f"{folder}:grounding:train"])


@pytest.mark.parametrize("config", CONFIGS)
def test_a_conversation_under_pictures_of_depth_keeps_its_words(built, tmp_path, config):
    folder = make_variant(built / "forward", tmp_path, "depth_pictures", (config,))
    old, new = rows_of(built / "forward", config), rows_of(folder, config)
    depths = depths_of(built / "forward", "train")
    assert len(new) == len(old) > 2
    for before, row in zip(old, new):
        assert row["messages"] == before["messages"] and row["turns"] == before["turns"]
        for image, shown in zip(before["images"], row["images"], strict=True):
            depth, grey = (
                depth_m(image, depths),
                np.asarray(Image.open(io.BytesIO(shown["bytes"])).convert("L"), float),
            )
            assert np.corrcoef(np.log(depth[depth > 0]), grey[depth > 0])[0, 1] < -0.6
    assert load_training_data([f"{folder}:{config}:train"])


@pytest.mark.parametrize("variant", ["depth_pointing", "depth_questions", "depth_questions_shuffled"])
def test_questions_about_depth_are_answered_by_the_depth_map(built, tmp_path, variant):
    folder = make_variant(built / "forward", tmp_path, variant, ("grounding",))
    depths, read = depths_of(built / "forward", "train"), []
    old, new = rows_of(built / "forward", "grounding"), rows_of(folder, "grounding")
    for before, row in zip(old, new):
        depth = depth_m(before["images"][0], depths)
        if variant == "depth_pointing":
            assert row["images"] == in_depth(before, depths)["images"] != before["images"]
        else:
            assert (row["images"] == before["images"]) == (variant == "depth_questions")
        assert len(row["messages"]) == 2 * NUM_QUESTIONS
        for asked, told in zip(row["messages"][::2], row["messages"][1::2]):
            ((x, y),) = re.findall(r"the point \((0\.\d{3}), (0\.\d{3})\)", asked["content"][-1]["text"])
            value, unit = re.search(r"([\d.]+) (c?m)\.$", told["content"][0]["text"]).groups()
            metres = float(value) / (100 if unit == "cm" else 1)
            assert metres == pytest.approx(depth[int(float(y) * 64), int(float(x) * 64)], abs=0.0006)
            read.append(metres)
    assert len(read) > 3 * NUM_QUESTIONS and np.std(read) > 0.3
    assert load_training_data([f"{folder}:grounding:train"])


def test_a_picture_of_depth_is_light_near_and_dark_far_and_wrong_from_patch_to_patch():
    depth = np.full((64, 60), 2.0)
    depth[:, 30:] = 6.0
    depth[:8, :8] = 0.0  # no reading: as far as it goes
    grey = picture_of(depth, np.random.default_rng(0)).astype(float)
    assert grey.shape == (64, 60, 3) and (grey[..., 0] == grey[..., 2]).all()
    assert grey[8:, :24].mean() > grey[8:, 32:].mean() + 50 > grey[:8, :8].mean() + 50
    levels = {grey[row, column, 0] for row in range(8, 64, 8) for column in range(0, 24, 8)}
    assert len(levels) > 15  # every patch is wrong by itself
    assert all(np.ptp(grey[row : row + 8, 8:16]) == 0 for row in range(8, 64, 8))
