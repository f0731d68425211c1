"""The page tells what is in a data set, shows it, and finds what is wrong with it."""

import json
import re

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import Dataset

from dataset_builders.inspection import MAX_FAILURES, reading
from dataset_builders.inspection.drawing import bars, histogram
from dataset_builders.schema import features
from tests.commands import build, inspect


@pytest.fixture(scope="module")
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inspected") / "rooms"
    arguments = ["--source", "synthetic", "--num-scenes", "3", "--resolution", "96x128", "--output", str(folder)]
    assert build(arguments) == 0
    return folder


@pytest.fixture(scope="module")
def page(rooms):
    assert inspect([str(rooms), "--samples", "2"]) == 0
    return (rooms / "inspect.html").read_text()


def test_the_page_is_one_file_without_scripts_or_addresses(page):
    assert page.startswith("<!DOCTYPE html>") and "$" not in page
    assert "<script" not in page
    assert not re.findall(r'(?:href|src)="(?!#|data:)', page), "everything is embedded"


def test_every_turn_of_a_sample_stands_on_the_page(rooms, page):
    rows = pq.read_table(rooms / "single_view" / "train-00000-of-00001.parquet").to_pylist()
    assert rows[0]["id"] in page
    for message in rows[0]["messages"]:
        text = message["content"][-1]["text"].split("\n")[-1]
        assert text.replace("'", "&#x27;") in page


def test_points_masks_and_boxes_are_drawn(page):
    single = page[page.index('<section id="single_view"') : page.index('<section id="multi_view"')]
    assert 'class="ring"' in single and "data:image/png" in single
    article = single[single.index("<article") :]
    assert len(re.findall(r"<path d=", article)) % 12 == 0, "a box has twelve edges"
    assert "<path d=" in article


def test_a_box_is_drawn_where_its_object_is(rooms):
    from dataset_builders.inspection.drawing import views_svg

    row = pq.read_table(rooms / "single_view" / "train-00000-of-00001.parquet").to_pylist()[0]
    thing = max((one for one in row["objects"] if one["usable"]), key=lambda one: one["pixel_count"])
    (svg,) = views_svg(row | {"objects": [thing], "turns": []})
    corners = np.array(re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", svg), dtype=float)
    width, height = row["cameras"][0]["width"], row["cameras"][0]["height"]
    x, y = thing["x"] * width, thing["y"] * height
    assert corners[:, 0].min() <= x <= corners[:, 0].max() and corners[:, 1].min() <= y <= corners[:, 1].max()


def test_a_record_that_contradicts_itself_is_found_and_told(rooms, tmp_path, capsys):
    report = json.loads((rooms / "build_report.json").read_text())
    (tmp_path / "build_report.json").write_text(json.dumps(report | {"rows": {"single_view": {"train": 2}}}))
    source = pq.read_table(rooms / "single_view" / "train-00000-of-00001.parquet").to_pylist()[:2]
    source[1]["turns"][0]["value"] += 1.0
    (tmp_path / "single_view").mkdir()
    Dataset.from_list(source, features=features()).to_parquet(tmp_path / "single_view" / "train-0.parquet")
    assert inspect([str(tmp_path)]) == 1
    assert source[1]["id"] in capsys.readouterr().out
    page = (tmp_path / "inspect.html").read_text()
    assert "2 records checked again: 1 fail" in page and 'class="failures"' in page
    assert inspect([str(tmp_path), "--check", "1"]) == 0, "only as many are checked as were asked for"


def test_drops_are_told_by_reason_with_an_example(rooms, tmp_path):
    from dataset_builders.inspection.page import page

    report = json.loads((rooms / "build_report.json").read_text())
    drops = [{"config": "*", "item": "a<b", "reason": "bad_pose", "detail": "a<b: the pose is <not> rigid"}]
    counted = [{"config": "*", "reason": "bad_pose", "count": 1}]
    text = page("rooms", report | {"drops": drops, "drops_by_reason": counted}, [])
    assert "whole scene: bad_pose" in text and "a&lt;b: the pose is &lt;not&gt; rigid" in text


def test_charts_count_right():
    assert bars({"a": 1, "b": 4}).count("width:25.0%") == 1
    assert "3 values, median 2.00 m" in histogram([1.0, 2.0, 3.0], "depths")
    assert "No question" in histogram([], "depths")


def test_what_is_no_data_set_is_refused(tmp_path, rooms, capsys):
    for arguments, told in [
        ([str(tmp_path)], "holds no build_report.json"),
        ([str(rooms), "--samples", "0"], "--samples 0"),
        ([str(rooms), "--check", "0"], "--check 0"),
    ]:
        assert inspect(arguments) == 2 and told in capsys.readouterr().err
    broken = tmp_path / "broken"
    (broken / "single_view").mkdir(parents=True)
    (broken / "build_report.json").write_text(json.dumps({"rows": {"single_view": {"train": 1}}}))
    assert inspect([str(broken)]) == 2 and "holds no file of the split 'train'" in capsys.readouterr().err
    (broken / "single_view" / "train-0.parquet").write_bytes(b"PAR1 but no more")
    assert inspect([str(broken)]) == 2 and "is no whole Parquet file" in capsys.readouterr().err


def test_many_failures_do_not_fill_the_page():
    from dataset_builders.inspection.page import _failures

    config = reading.InspectedConfig("single_view", {"train": 100})
    config.failures = [(f"scene-{number}", "odd") for number in range(100)]
    assert _failures([config]).count("<li>") == MAX_FAILURES
