"""The benchmarks of batches, loss head and data loading run, small, and their figures are what they say."""

import json

import pytest
import torch

from benchmarks import batching, data_loading, loss_head


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_forms_of_the_loss_head_agree():
    rows = [
        {"case": loss_head.SMALLEST[0], "trains": trains, "form": form, "turns": 1, "on_gpu": False}
        for trains in (False, True)
        for form in (loss_head.FULL, loss_head.FUSED, loss_head.ANSWERS)
    ]
    rows = [row | loss_head.measure(**row) for row in rows]
    assert all(row["loss"] == pytest.approx(rows[0]["loss"], rel=1e-5) for row in rows)
    assert all(row["seconds"] > 0 for row in rows)
    assert loss_head.table(rows).count("fused, answers only") == 2


def test_a_form_runs_in_its_own_process():
    row = {"case": loss_head.SMALLEST[0], "trains": False, "form": loss_head.ANSWERS, "turns": 1, "on_gpu": False}
    assert loss_head.in_a_process(row, threads=1)["loss"] == pytest.approx(loss_head.measure(**row)["loss"])


def test_padding_is_counted():
    assert batching.count([4, 2, 3], [[0, 1], [2]]) == {
        "padding": 1 - 9 / 11, "median_positions": 5.5, "largest_positions": 8, "rows_in_a_batch": [1, 2],
    }  # fmt: skip


def test_like_lengths_pad_less(tmp_path, capsys):
    assert batching.main(["--smallest", "--output", str(tmp_path / "batching.json")]) == 0
    assert "batch_rebalance" in capsys.readouterr().out
    rows = json.loads((tmp_path / "batching.json").read_text())["rows"]
    shares = {row["strategy"]: row["padding"] for row in rows if (row["tokens_per_image"], row["batch"]) == (196, 8)}
    assert shares["batch_rebalance"] < shares["random"] / 3


def test_the_loader_is_measured_beside_the_step(tmp_path):
    rows = data_loading.measure(data_loading.SMALLEST, 4, [0], 1, 2, tmp_path, True)
    assert rows[0]["loader"] > 0 and rows[0]["step"] > 0
    assert "A sample of 4 views" in data_loading.table(rows)
