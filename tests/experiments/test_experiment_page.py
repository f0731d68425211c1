"""docs/reproduction.md: its numbers come from kept results alone, and its facts are those of the code."""

import json

import pytest

from experiments import reproduction
from experiments.presets import PRESETS
from experiments.tables import TABLES

FOUND = {
    "table": "main", "title": "Tables 1-5", "note": "", "reference": "base", "seeds": [0], "preset": "cpu",
    "command": "experiment main", "commits": ["abc"], "hardware": "CPU", "minutes": 3.0, "paper_columns": [],
    "measures": {"depth": {"label": "depth RMSE", "higher_is_better": False, "entry": "e", "metric": "m"}},
    "arms": {
        "base": {"label": "base", "paper": [], "measures": {"depth": {"mean": 0.5, "deviation": None}}},
        "language": {
            "label": "boosted", "paper": [],
            "measures": {"depth": {
                "mean": 0.4, "deviation": None, "verdict": "better",
                "difference": {"mean": -0.1, "interval": [-0.2, -0.05], "per_seed": [-0.1]},
            }},
        },
    },
    "controls": {"depth": {"constant": 0.9}},
    "gate": {"admitted": False, "reasons": ["classes 3 %: failed"]},
    "reading": {
        "alignment": {"own": 0.5, "other": 0.9, "none": 0.8}, "grounding": {"own": 0.6, "other": 0.601, "none": 0.7},
    },
    "aims": [{"claim": "depth falls", "found": "-20 %", "met": True}],
}  # fmt: skip


@pytest.fixture
def tables(tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    (folder / "main.json").write_text(json.dumps(FOUND))
    (folder / "main.png").write_bytes(b"\x89PNG")
    return folder


def test_kept_results_stand_on_the_page_between_the_marks(tables, tmp_path):
    page = tmp_path / "docs" / "page.md"
    page.parent.mkdir()
    page.write_text(f"before\n{reproduction.BEGIN}\nold\n{reproduction.END}\nafter\n")
    assert reproduction.keep(tables, tmp_path / "results") == ["cpu/main"]
    text = reproduction.render(tmp_path / "results", page)
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "\nold\n" not in text
    assert "| boosted | **-0.1 [-0.2, -0.05]** |" in text and "BASE TOO WEAK" in text
    assert "| cpu (base too weak) | main | depth falls | -20 % | yes |" in text
    assert "`alignment` 0.500 / 0.900 / 0.800: looks; `grounding` 0.600 / 0.601 / 0.700: **does not look**." in text
    assert "* cpu: of 1 differences between two arms (random encoders left out) 1 are better and 0 worse" in text
    assert "](../results/cpu/main.png)" in text and "gpu: main, table6" in text and "cpu: table6" in text
    page.write_text(text)
    assert reproduction.render(tmp_path / "results", page) == text


def test_a_difference_that_stands_in_several_tables_counts_once():
    base = FOUND["arms"]["base"]["measures"]["depth"] | {"verdict": "worse"}
    turned = FOUND | {"reference": "language", "arms": FOUND["arms"] | {"base": {"measures": {"depth": base}}}}
    told = reproduction.beyond_chance({"main": FOUND, "levels": turned})
    assert "of 1 differences" in told and " 1 are better and 0 worse" in told
    assert " 0 are better and 1 worse" in reproduction.beyond_chance({"levels": turned})


def test_numbers_that_mean_nothing_are_not_kept(tables, tmp_path):
    (tables / "main.json").write_text(json.dumps(FOUND | {"preset": "smallest"}))
    with pytest.raises(ValueError, match="preset 'smallest', whose numbers mean nothing"):
        reproduction.keep(tables, tmp_path / "results")
    with pytest.raises(ValueError, match="has no tables"):
        reproduction.keep(tmp_path / "absent", tmp_path / "results")
    with pytest.raises(ValueError, match="lacks the marks"):
        (tmp_path / "page.md").write_text("no marks")
        reproduction.render(tmp_path / "results", tmp_path / "page.md")


def test_the_committed_page_is_the_rendered_one_and_tells_the_presets():
    text = reproduction.PAGE.read_text(encoding="utf-8")
    assert reproduction.render(reproduction.RESULTS, reproduction.PAGE) == text
    for name, preset in PRESETS.items():
        row = next(line for line in text.splitlines() if line.startswith(f"| {name} | "))
        steps = ", ".join(map(str, preset.stage_steps))
        assert f"| {preset.world.num_scenes:,} rooms, {preset.world.views} views, 64 px |" in row
        assert row.endswith(f"| {steps} | {preset.batch_size} | {', '.join(map(str, preset.seeds))} |")
        starting = preset.starting
        assert f"ViT {starting.encoder.num_layers} x {starting.encoder.width}" in row
        assert f"Qwen3 {starting.language.num_layers} x {starting.language.width}" in row
    assert all(f"| {name} | " in text for name in TABLES)
