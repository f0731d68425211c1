"""Smallest forms of the benchmarks of training: both forms compute the same, the tables are filled."""

import json
import subprocess
from importlib import import_module
from pathlib import Path

import pytest
import torch

from benchmarks import loading, profile_step, scaling, training
from benchmarks.training_forms import OURS, PLAIN, Form, make_parts, save_samples

ROOT = Path(__file__).parent.parent
CASE = training.SMALLEST[0]


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("samples")
    save_samples(folder, 1, 2)
    return folder


@pytest.fixture(scope="module")
def pair(samples):
    """Parts, both forms by whether they are ours, and a batch whose rows are of different lengths."""
    parts = make_parts(CASE, samples, "cpu")
    forms = {name: Form(parts, "cpu", name) for name in (PLAIN, OURS)}
    return parts, forms, training.make_batches(CASE, parts, forms[OURS])[0]


def test_both_forms_share_the_language_model_and_train_the_same(pair):
    parts, forms, batch = pair
    plain, ours = (forms[key].model for key in (PLAIN, OURS))
    assert plain.lm_head.weight is ours.lm_head.weight is parts.language_model.lm_head.weight
    counts = [sum(p.numel() for p in model.parameters() if p.requires_grad) for model in (plain, ours)]
    assert counts[0] == counts[1] > 0
    for model in (plain, ours):
        assert all("attn_plus" in name or "alpha" in name or "projector" in name for name in trained_names(model))
    assert batch["attention_mask"].min() == 0, "no row is padded"
    assert type(plain).__mro__[0].__module__.startswith("transformers.")


def trained_names(model):
    return [name for name, parameter in model.named_parameters() if parameter.requires_grad]


def test_losses_and_updates_are_the_same_however_the_step_is_computed(samples):
    """Four variants from the same start: the same loss, and after one optimizer step the same next loss."""
    parts = make_parts(CASE, samples, "cpu")
    losses = []
    for variant in training.VARIANTS:
        forms = {variant.form: Form(parts, "cpu", variant.form)}
        batch = training.make_batches(CASE, parts, forms[variant.form])[0]
        losses.append([training.run(forms, variant, CASE, batch) for _ in range(2)])
    assert losses[0][0] > losses[0][1]
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-4)


def test_training_fills_every_column(samples, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(training, "in_own_process", lambda function, *arguments: function(*arguments))
    output = tmp_path / "training.json"
    assert training.main(["--smallest", "--only", "1.5B", "--samples", str(samples), "--output", str(output)]) == 0
    content = json.loads(output.read_text())
    (row,) = content["rows"]
    names = [variant.name for variant in training.VARIANTS]
    assert content["command"].startswith("python -m benchmarks.training --smallest") and content["trl"]
    for column in ("seconds", "samples_per_second", "speed", "peak_mib", "memory", "mfu", "losses"):
        assert list(row[column]) == names and all(value > 0 for value in row[column].values())
    assert row["speed"]["plain TRL, recomputed"] == row["memory"]["plain TRL, recomputed"] == 1
    out = capsys.readouterr().out
    assert all(f"| {name} |" in out for name in names)


def test_what_does_not_fit_is_told(samples, monkeypatch):
    plain = training.run

    def run(forms, variant, case, batch):
        if variant == training.BESIDE:
            raise torch.OutOfMemoryError
        return plain(forms, variant, case, batch)

    monkeypatch.setattr(training, "run", run)
    monkeypatch.setattr(training, "in_own_process", lambda *arguments: 1.0)
    row = training.measure(CASE, samples, 2, 1, "cpu", 1.0)
    assert "| plain TRL, recomputed | out of memory |" in training.table([row])
    assert row["speed"] == {} and "ours, kept" in row["seconds"]


def test_scaling_states_exponents(samples, tmp_path):
    assert scaling.exponent((1, 2, 4), [3.0, 6.0, 12.0]) == pytest.approx(1)
    assert scaling.exponent((1, 2, 4), [1.0, 4.0, 16.0]) == pytest.approx(2)
    output = tmp_path / "scaling.json"
    assert scaling.main(["--smallest", "--samples", str(samples), "--output", str(output)]) == 0
    rows = json.loads(output.read_text())["rows"]
    assert [row["grows"] for row in rows] == ["text tokens", "views", "batch"]
    assert rows[1]["tokens"] == [512 + 256 * views for views in (1, 2, 4)]


def test_a_saved_encoder_is_the_base_and_what_is_new_to_the_byte(monkeypatch):
    monkeypatch.setattr(loading, "load", lambda folder, form: 1.0 if form == "plain" else 1.5)
    row = loading.measure(loading.SMALLEST[0], 1)
    assert row["exact"] and row["time_ratio"] == 1.5 and row["bytes"]["new_parameters"] > 0
    assert "| yes:" in loading.table([row])


def test_loading_in_a_process_of_its_own(tmp_path):
    loading.random_encoder("dinov2", "tiny", 224, "sdpa").save_pretrained(tmp_path)
    assert loading.load(tmp_path, "plain") > 0


def test_the_profile_lists_what_takes_time(samples, capsys):
    assert profile_step.main(["--smallest", "--samples", str(samples)]) == 0
    out = capsys.readouterr().out
    assert "| operator | plain TRL, recomputed, ms | ours, recomputed, ms |" in out and "`aten::mm`" in out


def test_the_script_for_a_gpu_is_valid_and_names_existing_modules():
    script = ROOT / "benchmarks" / "gpu.sh"
    subprocess.run(["bash", "-n", script], check=True)
    parts = [line.split() for line in script.read_text().splitlines() if line.strip().startswith("part ")]
    assert sum(int(words[1]) for words in parts) <= 600
    assert len(parts) == 8
    for words in parts:
        options = import_module(f"benchmarks.{words[3]}").make_parser()._option_string_actions
        assert {"--smallest", "--output", *(word for word in words if word.startswith("--"))} <= options.keys()
