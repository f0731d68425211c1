"""The quickstart in its smallest form: what it makes, and that a second run reuses it."""

import json

from datasets import load_dataset
from transformers import AutoModel

from experiments import quickstart


def test_the_whole_path_runs_and_a_second_run_reuses_it(tmp_path, capsys):
    root = tmp_path / "quickstart"
    assert quickstart.main(["--smallest", "--output", str(root)]) == 0
    first = capsys.readouterr().out
    assert "transformers_modules.SpatialBoostModel read" in first  # by a process that cannot see the clone
    for part in ("data", "stage3", "stage3/encoder", "report/report.md"):
        assert str(root / part) in first and (root / part).exists()

    for stage in (1, 2, 3):
        run = json.loads((root / f"stage{stage}" / "run.json").read_text())
        assert run["status"] == "finished" and run["steps"] == quickstart.SIZES["smallest"].max_steps
    boosted = AutoModel.from_pretrained(root / "stage3" / "encoder")
    assert boosted.verify_base_channel(str(root / "encoder"))  # training left the frozen channel alone
    assert any(row["min"] < 0.5 or row["max"] > 0.5 for row in boosted.alpha_table())  # and moved the new one
    rows = load_dataset(str(root / "data"), "single_view", split="train")
    assert max(len(row["messages"]) for row in rows) == 24  # twelve questions, twelve answers
    tasks = json.loads((root / "report" / "results.json").read_text())["tasks"]
    assert tasks.keys() == {"depth_linear/rooms", "segmentation_linear/rooms"}
    assert tasks["depth_linear/rooms"]["metrics"]["rmse_m"]["difference"]["mean"] != 0

    written = {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors")}
    assert quickstart.main(["--smallest", "--output", str(root)]) == 0
    second = capsys.readouterr().out
    assert "nothing to do" in second and "Reusing" in second
    assert written == {path: path.stat().st_mtime_ns for path in root.rglob("*.safetensors")}
