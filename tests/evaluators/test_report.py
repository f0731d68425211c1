"""The report of made-up results: intervals, the paper's column, the page, and what goes onto a card."""

import json
from fnmatch import fnmatchcase

import numpy as np
import pytest
import yaml
from PIL import Image

from evaluators.card_results import write_card_results
from evaluators.catalogue import DATA_SETS, task_module
from evaluators.comparison import RESAMPLES, bootstrap, compare
from evaluators.metrics import Metric
from evaluators.paper import _tables, published
from evaluators.report import verdict, write_report
from evaluators.report_page import interval_svg

METRICS = (Metric("rmse_m", "RMSE (m)", higher_is_better=False),)
SEVEN_B = {"model_type": "dinov3_vit", "hidden_size": 4096, "num_hidden_layers": 40, "patch_size_px": 16}


def aggregate(items):
    return {"rmse_m": float(items.mean())}


def result(items, **encoder):
    described = {
        "name": "me/<encoder>", "revision": None, "class": "a.Model", "parameters": 6_700_000_000, "dtype": "float32",
        "preprocessing": {}, "weights_hash": "0", "resolution_px": [224, 224], **SEVEN_B, **encoder,
    }  # fmt: skip
    return {
        "protocol": {"id": "depth-linear/1", "notes": ["a note"], "settings": {"steps": 3}, "differs": ""},
        "data": {"source": "nyu", "splits": {"test": {"items": len(items[0]), "dropped": {}, "fingerprint": "f"}}},
        "encoder": described,
        "seeds": list(range(len(items))),
        "items": items,
        "controls": {"constant": {"rmse_m": 2.0}},
        "examples": [],
    }


@pytest.fixture
def results():
    random = np.random.default_rng(0)
    base = random.normal(1.0, 0.3, (50, 1))
    entry = compare(METRICS, aggregate, result([base]), result([base - 0.1]))
    chance = compare(METRICS, aggregate, result([base]), result([random.normal(1.0, 0.3, (50, 1))]))
    entries = {"depth_linear/rooms": chance, "segmentation_linear/rooms": entry}
    return {
        "preset": "full",
        "limit": None,
        "partial": False,
        "changed": [],
        "tasks": entries,
        "not_measured": {"depth_linear/nyud": "no data"},
        "environment": {"torch": "2"},
    }


def test_a_constant_gain_has_an_interval_of_no_width_because_items_are_paired():
    base = np.random.default_rng(1).normal(1.0, 0.5, (40, 1))
    low, high = bootstrap(aggregate, [base, base + 1], [base - 0.1, base + 0.9])["rmse_m"]
    assert low == pytest.approx(-0.1) and high == pytest.approx(-0.1)


def test_the_interval_has_the_width_that_theory_gives():
    random = np.random.default_rng(2)
    gain = random.normal(0.0, 1.0, (400, 1))
    low, high = bootstrap(aggregate, [np.zeros((400, 1))], [gain])["rmse_m"]
    assert (high - low) / 2 == pytest.approx(1.96 * gain.std() / 20, rel=0.1)
    assert RESAMPLES >= 1000


def test_a_verdict_may_be_chance():
    metric = METRICS[0]
    assert verdict(metric, {"mean": -0.1, "interval": [-0.2, -0.05]}, 10) == "better"
    assert verdict(metric, {"mean": 0.1, "interval": [0.05, 0.2]}, 10) == "worse"
    assert verdict(metric, {"mean": 0.1, "interval": [-0.05, 0.2]}, 10) == "worse, may be chance"
    assert verdict(metric, {"mean": -0.1, "interval": [-0.1, -0.1]}, 9) == "better, too few items"
    assert verdict(metric, {"mean": 0.0, "interval": [0.0, 0.0]}, 1) == "equal"


def test_better_is_drawn_to_the_right_whatever_the_direction():
    smaller = {"higher_is_better": False, "difference": {"mean": -0.1, "interval": [-0.2, -0.05]}}
    larger = {"higher_is_better": True, "difference": {"mean": 0.1, "interval": [0.05, 0.2]}}
    assert interval_svg(smaller, "better") == interval_svg(larger, "better")
    centre = float(interval_svg(smaller, "better").split('cx="')[1].split('"')[0])
    assert 60 < centre < 120


def test_the_papers_numbers_need_the_same_backbone():
    row = published("depth_linear/nyud", "rmse_m", SEVEN_B)
    assert row == ("DINOv3 ViT-7B/16", 0.31, 0.25, "")
    hammer = published("robot_success/metaworld_hammer", "success_best", SEVEN_B)
    assert hammer is not None and hammer[1:] == (83.8, 92.0, "the paper gives the mean over the five MetaWorld tasks")
    assert published("robot_success/metaworld_hammer", "success_last", SEVEN_B) is None
    assert published("depth_linear/nyud", "rmse_m", SEVEN_B | {"hidden_size": 1024}) is None
    assert published("depth_linear/rooms", "rmse_m", SEVEN_B) is None
    assert published("depth_linear/nyud", "abs_rel", SEVEN_B) is None


def test_every_published_number_is_a_pair_of_a_known_backbone_and_an_entry_of_ours():
    tables = _tables()
    known = {f"{task}/{name}": task for name, row in DATA_SETS.items() for task in row.tasks}
    for row in tables["results"]:
        pairs = {name: row[name] for name in tables["backbones"] if name in row}
        assert pairs and set(row) - {"differs"} == {"entry", "metric", *pairs}
        tasks = [task for entry, task in known.items() if fnmatchcase(entry, row["entry"])]
        assert tasks and row["metric"] in {metric.name for metric in task_module(tasks[0]).METRICS}
        assert all(len(pair) == 2 for pair in pairs.values())
    assert len(tables["results"]) == 22


def test_the_page_needs_nothing_beside_it_and_escapes_what_it_shows(results, tmp_path):
    results["tasks"]["depth_linear/rooms"]["picture"] = "picture.png"
    Image.new("RGB", (40, 20)).save(tmp_path / "picture.png")
    write_report(results, tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "me/&lt;encoder&gt;" in page and "<encoder>" not in page
    assert "data:image/png;base64," in page
    assert "http://" not in page and "https://" not in page and 'src="picture' not in page
    assert page.count('<svg class="interval') == 2 and "Partial" not in page
    assert (
        '<td class="parameters" rowspan="1">6.7&nbsp;B</td>' in page and "<li>depth_linear/nyud: no data</li>" in page
    )
    assert json.loads((tmp_path / "results.json").read_text()) == results
    assert "may be chance" in (tmp_path / "report.md").read_text()
    assert "by the first score of each task and data set: 1 undecided, 1 better." in page


def test_a_warning_or_a_reason_of_many_entries_is_told_once(results, tmp_path):
    for entry in results["tasks"].values():
        entry["warnings"] = ["it is weak."]
    results["not_measured"] = {
        "depth_linear/nyud": "no data",
        "depth_dpt/kitti": "no room",
        "depth_dpt/nyud": "no data",
    }
    write_report(results, tmp_path)
    report, page = ((tmp_path / f"report.{kind}").read_text() for kind in ("md", "html"))
    assert report.count("it is weak.") == 1 == page.count("it is weak.")
    assert "**Warning, depth_linear/rooms, segmentation_linear/rooms:** it is weak." in report
    assert "* depth_linear/nyud, depth_dpt/nyud: no data\n* depth_dpt/kitti: no room" in report


def test_the_papers_numbers_have_footnotes(results, tmp_path):
    entries = [results["tasks"].pop(name) for name in list(results["tasks"])]
    results["tasks"] = {"depth_linear/nyud": entries[0], "depth_linear/kitti": entries[1]}
    for entry in entries:
        entry["protocol"] = entry["protocol"] | {"differs": "preset cpu"}
    write_report(results, tmp_path)
    report = (tmp_path / "report.md").read_text()
    assert "| 0.31 → 0.25 [1] |" in report and "| 2.33 → 2.2 [2] |" in report
    assert "[1] DINOv3 ViT-7B/16, arXiv 2603.22057; what differs here: preset cpu." in report
    assert "[2] DINOv3 ViT-7B/16, arXiv 2603.22057; what differs here: the paper gives no recipe for KITTI" in report
    assert (
        "<li>DINOv3 ViT-7B/16, arXiv 2603.22057; what differs here: preset cpu.</li>"
        in (tmp_path / "report.html").read_text()
    )


def test_a_full_run_leaves_entries_for_the_card_and_a_partial_one_none(results, tmp_path, monkeypatch):
    write_card_results(results | {"partial": True}, tmp_path)
    write_card_results(results | {"preset": "cpu"}, tmp_path)
    write_card_results(results | {"changed": ["--set depth_linear.steps=1"]}, tmp_path)
    assert not list(tmp_path.iterdir())
    monkeypatch.setitem(__import__("evaluators.catalogue").catalogue.DATA_SETS, "rooms", _on_the_hub())
    write_card_results(results, tmp_path)
    (model,) = yaml.safe_load((tmp_path / "model-index.yaml").read_text())["model-index"]
    assert {row["task"]["type"] for row in model["results"]} == {"depth-estimation", "image-segmentation"}
    entries = yaml.safe_load((tmp_path / ".eval_results" / "rooms.yaml").read_text())
    assert {entry["dataset"]["task_id"] for entry in entries} == {"depth_linear_rmse_m", "segmentation_linear_rmse_m"}


def _on_the_hub():
    from evaluators.catalogue import DATA_SETS

    return DATA_SETS["rooms"]._replace(hub_id="me/rooms")
