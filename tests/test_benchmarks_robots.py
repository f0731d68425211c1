"""The benchmarks of robots: successes are counted with their interval, the path runs small."""

import json

import pytest

from benchmarks import robots

for package in ("metaworld", "gymnasium_robotics", "dm_control"):
    pytest.importorskip(package, reason=f"{package} comes with the extra robot")


def test_successes_are_counted_with_wilson_s_interval():
    row = robots.row("trained", [100.0, 80.0], rollouts=10)
    assert (row["successes"], row["trials"]) == ([10, 8], 20)
    assert row["interval"] == pytest.approx([0.699, 0.972], abs=1e-3)  # 18 of 20, Wilson (1927)
    assert "| trained | 10, 8 | 18 of 20 | 70% to 97% |" in robots.table([row])


def test_an_encoder_is_trained_and_compared_with_its_first_weights(tmp_path):
    command = ["--smallest", "--folder", str(tmp_path), "--output", str(tmp_path / "robots.json")]
    assert robots.main(command) == 0
    folder = tmp_path / "metaworld_button_press_topdown"
    trained = (folder / "trained" / "model.safetensors").read_bytes()
    assert trained != (folder / "random" / "model.safetensors").read_bytes()
    found = json.loads((tmp_path / "robots.json").read_text())
    assert [row["input"] for row in found["rows"]][:3] == ["random", "trained", "control: state"]
    assert found["seconds"]["cpu"] > 0 and len(found["training"]["held_out_share_of_variance"]) > 3
