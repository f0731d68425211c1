"""`spatialboost experiment`: a table from nothing at a size that means nothing, and what the command refuses."""

import json
from dataclasses import replace

import pytest

import spatialboost_cli
from experiments import presets, run, tables
from experiments.world import WorldSize


def experiment(*argv):
    return spatialboost_cli.main(["experiment", *map(str, argv)])


@pytest.fixture
def tiny(monkeypatch):
    """One table with one control and one cheap probe, in the smallest preset."""
    smallest = presets.PRESETS["smallest"]
    world = WorldSize(num_scenes=6, views=2, image_size_px=32, workers=1)
    starting = replace(smallest.starting, encoder=replace(smallest.starting.encoder, image_size_px=32))
    monkeypatch.setitem(presets.PRESETS, "smallest", replace(smallest, world=world, starting=starting))
    monkeypatch.setitem(tables.CALLS, "probes", ("depth_linear",))
    table = tables.Table("A tiny table", ("base", "language"), ("depth",), controls=("captions_only",))
    monkeypatch.setitem(tables.TABLES, "tiny", table)


def test_a_table_from_nothing_and_a_second_run_that_only_reads(tiny, tmp_path, capsys):
    argv = ["tiny", "--preset", "smallest", "--output", tmp_path]
    assert experiment(*argv, "--budget-minutes", 0) == run.MORE_TO_DO
    assert "The same command goes on with tiny" in capsys.readouterr().out
    assert experiment(*argv) == 0
    first = capsys.readouterr().out
    assert first.count("$ spatialboost train") == 8 and first.count("$ spatialboost evaluate") == 2

    found = json.loads((tmp_path / "tables" / "tiny.json").read_text())
    assert found["command"] == "spatialboost experiment tiny --preset smallest" and found["seeds"] == [0]
    assert found["hardware"] and found["commits"] and found["numbers"]["batch_size"] == 2
    assert set(found["arms"]) == {"base", "language", "captions_only"}
    cell = found["arms"]["language"]["measures"]["depth"]
    base = found["arms"]["base"]["measures"]["depth"]
    assert cell["difference"]["mean"] == pytest.approx(cell["mean"] - base["mean"]) and cell["difference"]["mean"] != 0
    assert {"constant", "position_only"} == found["controls"]["depth"].keys()
    assert "alignment" in found["reading"]
    assert all(loss["own"] > 0 for loss in found["reading"].values())
    markdown = (tmp_path / "tables" / "tiny.md").read_text()
    assert "| base | " in markdown and "captions only" in markdown and (tmp_path / "tables" / "tiny.png").is_file()
    stage3 = json.loads((tmp_path / "seed0" / "arms" / "captions_only" / "run.json").read_text())
    assert stage3["status"] == "finished" and stage3["steps"] == 3

    assert experiment(*argv) == 0
    again = capsys.readouterr().out
    assert "$ spatialboost train" not in again and "$ spatialboost evaluate" not in again
    again = json.loads((tmp_path / "tables" / "tiny.json").read_text())
    assert again == found

    other = [*argv, "--seeds", 1]
    (tmp_path / "seed1").symlink_to(tmp_path / "seed0")  # what another seed has left is not taken for this one's
    assert experiment(*other) == 2
    assert "was made by another command or from other models" in capsys.readouterr().err


def test_the_list_and_what_is_unknown(capsys):
    assert experiment("list") == 0
    printed = capsys.readouterr().out
    assert all(f"{name} " in printed and table.title in printed for name, table in tables.TABLES.items())
    assert experiment("table5") == 2
    assert "NAME='table5' is no table: pass list, all, or some of main, table6" in capsys.readouterr().err
