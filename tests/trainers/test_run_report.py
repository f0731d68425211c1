"""The page at the end of a run: complete, self-contained, and drawn from what was logged."""

import json
import re
import shutil
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from tests.commands import train
from tests.trainers.conftest import common
from trainers.curves import MAX_POINTS, Axis, Curve, line_chart, number_text, thin, value_range
from trainers.run_report import figures_table, main, points, read_run, render, write_report

VOID = {"meta", "br", "link"}


class Balance(HTMLParser):
    """Checks that every tag is closed, and collects what a page refers to."""

    def __init__(self):
        super().__init__()
        self.open, self.links = [], []

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def charts(page):
    return {svg.find("title").text: svg for svg in map(ElementTree.fromstring, re.findall(r"<svg.*?</svg>", page))}


def text_of(page):
    return re.sub(r"<[^>]+>", " ", page)


@pytest.fixture(scope="module")
def page(runs):
    return (runs[3] / "report.html").read_text()


def test_the_page_stands_alone_and_is_well_formed(page):
    checker = Balance()
    checker.feed(page)
    assert checker.open == [] and checker.links == []
    assert "http" not in page and "@import" not in page and "url(" not in page and "<script" not in page
    assert "prefers-color-scheme: dark" in page and "@media print" in page and "width=device-width" in page


def test_it_says_what_was_trained_as_the_record_has_it(page, runs):
    record = json.loads((runs[3] / "run.json").read_text())
    text = text_of(page)
    for part in (
        "Stage 3: encoder fine-tuning",
        "Finished: step 3 of 3",
        "alpha 0.05",
        f"torch {record['versions']['torch']}",
    ):
        assert part in text
    for name, count in record["trainable_parameters"].items():
        assert f"{name} {count:,}" in text
    for source in record["data"]:
        assert f"{source['rows']:,} rows, {source['fingerprint'][:12]}" in text


def test_every_chart_has_title_description_axis_and_line(page):
    drawn = charts(page)
    wanted = {
        "Training loss",
        "Gradient norm before clipping",
        "Tokens per second",
        "Images per second",
        "Peak memory",
    }
    wanted |= {"Waiting for data, and padding", "Learning rate: alpha", "Learning rate: attn_plus, projector"}
    wanted |= {"Alpha of each layer at the end", "Distance of each layer at the end", "Distance over the steps"}
    assert wanted | {"Layer 0", "Layer 1"} <= drawn.keys()
    ids = [svg.find("title").get("id") for svg in drawn.values()]
    assert len(set(ids)) == len(ids)
    for title, svg in drawn.items():
        assert svg.get("role") == "img" and svg.find("desc").text
        assert svg.get("aria-labelledby").split() == [svg.find("title").get("id"), svg.find("desc").get("id")]
        ticks = [text for text in svg.iter("text") if text.get("class") == "tick"]
        assert len({text.text for text in ticks if text.get("text-anchor") == "end"}) >= 2, title
        units = [text.text for text in svg.iter("text") if text.get("class") == "unit"]
        assert title.startswith("Layer") or (units[0] and units[1] in ("step", "layer"))


def test_lines_stay_in_the_frame_and_follow_the_log(page, runs):
    logs = json.loads((runs[3] / "trainer_state.json").read_text())["log_history"]
    losses = [log["loss"] for log in logs if "loss" in log]
    svg = charts(page)["Training loss"]
    assert svg.find("desc").text == f"From {losses[0]:.4g} at step 1 to {losses[-1]:.4g} at step 3"
    (line,) = [path for path in svg.iter("path") if path.get("class") == "line one"]
    numbers = [float(number) for number in re.findall(r"-?[\d.]+", line.get("d"))]
    heights = numbers[1::2]
    assert all(0 <= number <= 420 for number in numbers)
    assert (heights[0] > heights[-1]) == (losses[0] < losses[-1])  # down on the page is less


def test_stages_without_a_second_channel_show_none(runs):
    page = (runs[1] / "report.html").read_text()
    assert "<section hidden>" in page and "Distance over the steps" not in page and "Tokens per second" in page


@pytest.fixture
def folder(runs, tmp_path):
    for name in ("run.json", "trainer_state.json"):
        shutil.copy(runs[3] / name, tmp_path / name)
    return tmp_path


def change(folder, name, **changes):
    content = json.loads((folder / name).read_text()) | changes
    (folder / name).write_text(json.dumps(content))


def test_an_unfinished_run_is_drawn_from_its_last_whole_checkpoint(runs, data, tmp_path, capsys):
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    arguments = ["--stage", "3", "--model", str(runs[2]), *common(data, tmp_path, **settings)]
    assert train(arguments) == 0
    change(tmp_path, "run.json", status="started")
    shutil.rmtree(tmp_path / "checkpoint-4")
    (tmp_path / "checkpoint-9").mkdir()  # half written
    (tmp_path / "report.html").unlink()
    assert main([str(tmp_path)]) == 0
    assert str(tmp_path / "report.html") in capsys.readouterr().out
    assert "Not finished, at the checkpoint of step 2 of 4" in (tmp_path / "report.html").read_text()


def test_resumptions_are_marked(folder):
    state = json.loads((folder / "trainer_state.json").read_text())
    state["log_history"].insert(1, {"resumed_at": 2, "step": 2})
    page = render(json.loads((folder / "run.json").read_text()), state)
    assert "resumed at 2" in page and "Dashed verticals" in page
    assert [path for path in charts(page)["Training loss"].iter("path") if path.get("class") == "mark"]
    assert 'class="mark"' not in (write_report(folder)).read_text()


def test_what_cannot_be_drawn_is_left_out(folder):
    record, state = read_run(folder)
    logs = [log for log in state["log_history"] if "loss" in log]
    logs[1]["loss"] = float("nan")
    logs[2]["grad_norm"] = float("inf")
    assert [step for step, _ in points(logs, "loss")] == [1, 3]
    assert "nan" not in "".join(re.findall(r' d="[^"]*"', render(record, state)))
    state["log_history"] = []
    page = render(record, state)
    assert "nothing was logged" in page and charts(page) == {} and figures_table([]).count("<tr>") == 1


def test_names_cannot_break_the_page(folder):
    record, state = read_run(folder)
    record["data"][0]["name"] = "<script>alert(1)</script>"
    assert "<script" not in render(record, state)


def test_a_folder_without_a_run_or_without_a_checkpoint_is_refused(folder, tmp_path):
    with pytest.raises(ValueError, match=r"nowhere' holds no run.json: pass the output_dir of a run"):
        main([str(tmp_path / "nowhere")])
    change(folder, "run.json", status="started")
    with pytest.raises(ValueError, match="holds no checkpoint yet: wait for one, or save more often"):
        main([str(folder)])


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 1, ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
        (0, 2344, ["0", "500", "1,000", "1,500", "2,000"]),
        (0, 31000, ["0", "10k", "20k", "30k"]),
        (0, 1.05e-3, ["0", "2.5e-4", "5e-4", "7.5e-4", "1e-3"]),
        (0.364, 0.37, ["0.364", "0.366", "0.368", "0.370"]),
        (-3, 2.5, ["-2", "0", "2"]),
    ],
)
def test_ticks_are_round_and_short(low, high, texts):
    assert [text for _, text in Axis(low, high, 0, 100).ticks()] == texts


def test_other_ticks():
    assert number_text(0.25, 0.05, percent=True) == "25 %"
    assert number_text(3e6, 1e6) == "3M"
    assert [text for _, text in Axis(0.0007, 20, 0, 100, logarithmic=True).ticks()] == [
        "0.001",
        "0.01",
        "0.1",
        "1",
        "10",
    ]


def test_flat_lines_and_single_points_have_a_range():
    assert value_range([Curve([(1, 5.0)])]) == pytest.approx((4.7, 5.3))
    assert value_range([Curve([(1, 0.0), (2, 0.0)])], from_zero=True) == (0, 1.0)
    assert "<circle" in line_chart("One", "unit", [Curve([(1, 5.0)])], 1)


def test_wide_positive_values_get_a_log_scale():
    spread = Curve([(1, 0.01), (2, 100.0)])
    assert "log scale" in line_chart("Norm", "L2", [spread], 2)
    assert "log scale" not in line_chart("Norm", "L2", [spread], 2, from_zero=True)
    assert "log scale" not in line_chart("Norm", "L2", [Curve([(1, -0.01), (2, 100.0)])], 2)


def test_long_lines_are_thinned_and_keep_their_extremes():
    points_of_line = [(step, float(step % 7)) for step in range(1, 5001)]
    curve = thin(Curve(points_of_line, band=[(value - 1, value + 1) for _, value in points_of_line]))
    assert len(curve.points) <= MAX_POINTS and len(curve.band) == len(curve.points)
    assert min(low for low, _ in curve.band) == -1 and max(high for _, high in curve.band) == 7
    assert curve.points[0][0] < 20 and curve.points[-1][0] > 4980
