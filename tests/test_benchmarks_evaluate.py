"""The benchmark of evaluation runs, small, and its figures are what they say."""

import pytest
import torch

from benchmarks import evaluate


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def test_rows_of_the_smallest_form(tmp_path):
    case = evaluate.SMALLEST[0]
    encoder = evaluate.make_encoder(tmp_path, *case[:2], "cpu", torch.float32)
    rows = [
        evaluate.features_row(case, torch.float32, "cpu", 1, tmp_path),
        evaluate.probe_row(encoder, case, 1),
        evaluate.heads_row(3, 8, 1, "cpu", width=16),
        evaluate.heads_with_encoder_row(encoder, case, 3, 1),
    ]
    for row in rows:
        times = [value for name, value in row.items() if name.endswith(", ms")]
        assert len(times) == 2 and min(times) > 0 and row["ratio"] == pytest.approx(times[1] / times[0])  # one turn
        assert evaluate.table([row]).count("\n") == 2


def test_peak_memory_is_told_beside_the_size_of_the_features():
    row = evaluate.remember(6, 64)
    assert row["features, MiB"] == pytest.approx(6 * 384 * 4 * 4 * 4 / 2**20)
    assert row["extraction, peak MiB"] > -1  # Linux counts pages in batches, and may let some go between two readings


def test_photographs_end():
    assert len(list(evaluate.Jpegs(3))) == 3
    with pytest.raises(IndexError):
        evaluate.Jpegs(3)[3]
