"""What the log lines of a run tell, and what it costs."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from transformers import TrainerControl, TrainerState, TrainingArguments

from modeling_spatialboost import SpatialBoostModel
from tests.commands import train
from tests.trainers.conftest import common
from trainers.progress import ProgressBar, ProgressLines, check_reporters, figures_text, name_run
from trainers.watching import Meters, channel_figures, peak_memory, second_channels

ROOT = Path(__file__).resolve().parents[2]


class OneProcess:
    """`gather` of an accelerator without other processes."""

    def gather(self, rows):
        return rows


class TwoProcesses:
    """`gather` of an accelerator beside a process that did half as much in twice the time."""

    def gather(self, rows):
        factors = torch.tensor([0.5, 0.5, 0.5, 0.5, 0.5, 2.0, 1.0, 3.0])
        return torch.cat([rows, rows * factors])


def batch(lengths, images=1, answers=2, width=10):
    mask = torch.tensor([[1] * length + [0] * (width - length) for length in lengths])
    labels = torch.where(torch.arange(width) < answers, 1, -100).expand(len(lengths), width)
    return {
        "input_ids": mask,
        "attention_mask": mask,
        "labels": labels,
        "pixel_values": torch.zeros(images, 3, 4, 4),
    }


def state_at(step, max_steps=10):
    state = TrainerState(global_step=step, max_steps=max_steps)
    state.is_world_process_zero = True
    return state


def step(meters, batches, fetch_s=0.0, work_s=0.0):
    def slow():
        for item in batches:
            time.sleep(fetch_s)
            yield item

    meters.start_step()
    meters.count(list(meters.fetch(slow())))
    time.sleep(work_s)
    meters.on_step_end(None, None, None)


def test_counts_of_accumulated_batches_become_rates():
    meters = Meters(torch.device("cpu"))
    step(meters, [batch([10, 6], images=3), batch([4, 4], images=2)], fetch_s=0.02, work_s=0.04)
    seconds = meters.seconds
    figures = meters.read(OneProcess())
    assert figures["speed/tokens_per_second"] == pytest.approx(24 / seconds, rel=1e-4)
    assert figures["speed/answer_tokens_per_second"] == pytest.approx(8 / seconds, rel=1e-4)
    assert figures["speed/images_per_second"] == pytest.approx(5 / seconds, rel=1e-4)
    assert figures["speed/samples_per_second"] == pytest.approx(4 / seconds, rel=1e-4)
    assert figures["data/padding_share"] == pytest.approx(16 / 40)
    assert 0.4 <= figures["data/waiting_share"] <= 0.6  # 0.04 s of at least 0.08 s; sleeping takes a little longer
    assert figures["memory/peak_gb"] > 0.05


def test_what_happens_between_steps_counts_for_nothing():
    meters = Meters(torch.device("cpu"))
    step(meters, [batch([10])], work_s=0.02)
    time.sleep(0.2)  # an evaluation, a checkpoint
    step(meters, [batch([10])], work_s=0.02)
    assert meters.seconds < 0.15


def test_each_read_starts_anew_and_a_read_without_steps_tells_nothing():
    meters = Meters(torch.device("cpu"))
    step(meters, [batch([10])], work_s=0.01)
    assert meters.read(OneProcess())
    assert meters.read(OneProcess()) == {}
    step(meters, [batch([10])], work_s=0.01)
    seconds = meters.seconds
    assert meters.read(OneProcess())["speed/tokens_per_second"] == pytest.approx(10 / seconds, rel=1e-4)


def test_processes_add_up_and_the_slowest_gives_the_time():
    meters = Meters(torch.device("cpu"))
    step(meters, [batch([10, 6], images=4)], fetch_s=0.02)
    seconds, waited = meters.seconds, meters.waited_seconds
    figures = meters.read(TwoProcesses())
    assert figures["speed/tokens_per_second"] == pytest.approx(1.5 * 16 / (2 * seconds), rel=1e-4)
    assert figures["speed/images_per_second"] == pytest.approx(1.5 * 4 / (2 * seconds), rel=1e-4)
    assert figures["data/waiting_share"] == pytest.approx(waited / (2 * seconds), rel=1e-4)
    assert figures["memory/peak_gb"] == pytest.approx(3 * peak_memory(torch.device("cpu")) / 1e9, rel=0.05)


def test_batches_of_images_alone_and_of_cached_features_are_counted():
    meters = Meters(torch.device("cpu"))
    step(meters, [{"pixel_values": torch.zeros(6, 3, 4, 4), "depth": torch.zeros(6, 4, 4)}], work_s=0.01)
    seconds = meters.seconds
    figures = meters.read(OneProcess())
    assert figures["speed/images_per_second"] == pytest.approx(6 / seconds, rel=1e-4)
    assert figures["speed/samples_per_second"] == pytest.approx(6 / seconds, rel=1e-4)
    assert "speed/tokens_per_second" not in figures
    features = batch([10])
    features["vision_features"] = features.pop("pixel_values")[:, 0]
    step(meters, [features], work_s=0.01)
    assert meters.images == 1


@pytest.fixture
def boosted(encoder):
    return SpatialBoostModel.from_encoder(str(encoder), [1]).freeze_base_channel()


def test_alpha_and_distance_of_the_layers_that_train(boosted):
    channels = second_channels(boosted)
    assert list(channels) == [1]  # numbered as in the encoder, not as boosted
    attention = channels[1]
    figures = channel_figures(channels)
    assert figures == {
        "alpha/layer_01/mean": 0.5,
        "alpha/layer_01/min": 0.5,
        "alpha/layer_01/max": 0.5,
        "distance/layer_01": 0.0,
    }
    with torch.no_grad():
        for parameter in attention.attn_plus.parameters():
            parameter.mul_(1.25) if parameter.ndim > 1 else parameter.add_(7)  # biases are not measured
        attention.alpha_logit[0] = 10.0
    figures = channel_figures(channels)
    assert figures["distance/layer_01"] == pytest.approx(0.25, rel=1e-5)
    assert figures["alpha/layer_01/max"] == pytest.approx(1 / (1 + 2.718281828**-10), rel=1e-5)
    assert figures["alpha/layer_01/min"] == 0.5


def test_a_channel_that_is_frozen_or_absent_is_not_watched(boosted, encoder):
    assert second_channels(boosted.requires_grad_(False)) == {}
    assert second_channels(SpatialBoostModel.from_encoder(str(encoder), [])) == {}
    assert second_channels(torch.nn.Linear(2, 2)) == {}
    assert channel_figures({}) == {}


def test_every_log_line_of_the_stages_has_the_figures(runs):
    for stage, folder in runs.items():
        history = json.loads((folder / "trainer_state.json").read_text())["log_history"]
        lines = [entry for entry in history if "loss" in entry]
        assert len(lines) == 3
        for entry in lines:
            assert entry["speed/tokens_per_second"] > entry["speed/answer_tokens_per_second"] > 0
            assert entry["speed/images_per_second"] > 0
            assert 0 <= entry["data/padding_share"] < 1
            assert 0 < entry["data/waiting_share"] < 1
            assert {"alpha/layer_00/mean", "distance/layer_01"} <= entry.keys() or stage != 3
            assert stage == 3 or not any(key.startswith(("alpha/", "distance/")) for key in entry)
    distances = [entry["distance/layer_00"] for entry in lines]
    assert 0 < distances[0] < distances[-1]
    summary = history[-1]
    assert "train_runtime" in summary and "speed/tokens_per_second" not in summary


def test_tokens_of_a_run_add_up_to_those_that_trl_counts(runs):
    history = json.loads((runs[3] / "trainer_state.json").read_text())["log_history"]
    first, second = history[:2]
    share = second["speed/tokens_per_second"] / second["speed/samples_per_second"]
    assert share == pytest.approx((second["num_tokens"] - first["num_tokens"]) / 4, rel=1e-4)  # batches of four


def test_a_resumed_run_goes_on_without_a_jump_and_says_where(runs, data, tmp_path):
    arguments = ["--stage", "3", "--model", str(runs[2])]
    settings = {"save_strategy": "steps", "save_steps": 2, "max_steps": 4}
    assert train([*arguments, *common(data, tmp_path / "run", **settings)]) == 0
    again = {**settings, "resume_from_checkpoint": tmp_path / "run" / "checkpoint-2", "force": "true"}
    assert train([*arguments, *common(data, tmp_path / "run", **again)]) == 0
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    assert [entry["resumed_at"] for entry in history if "resumed_at" in entry] == [2]
    rates = [entry["speed/samples_per_second"] for entry in history if "loss" in entry]
    assert len(rates) == 4
    assert max(rates) < 20 * min(rates)  # counts from before would be divided by a step's time


def test_a_line_is_short_however_many_layers_there_are(caplog):
    logs = {"loss": 1.23456, "speed/tokens_per_second": 12345.6, "speed/images_per_second": 8.04}
    logs |= {"data/waiting_share": 0.123, "memory/peak_gb": 61.23}
    logs |= {f"alpha/layer_{layer:02}/mean": 0.5 for layer in range(40)}
    assert figures_text(logs) == "loss 1.2346, 12,346 tokens/s, 8.0 images/s, 12% waiting, 61.2 GB"
    assert figures_text({"train_runtime": 3.0, "train_loss": 2.0}) == ""
    lines = ProgressLines()
    with caplog.at_level("INFO", "trainers.progress"):
        lines.on_train_begin(None, state_at(2), TrainerControl())
        lines.start -= 40
        for number in (4, 5, 10):
            lines.on_log(None, state_at(number), TrainerControl(), logs=logs)
        lines.on_log(None, state_at(10), TrainerControl(), logs={"eval_loss": 0.5})
    messages = [record.message for record in caplog.records]
    assert len(messages) == 3  # step 5 comes at once after step 4
    assert messages[0].startswith("step 4/10: loss 1.2346") and messages[0].endswith("02:00 left")
    assert messages[1].startswith("step 10/10") and messages[2] == "step 10/10: eval_loss 0.5000"


def test_the_bar_of_a_resumed_run_starts_in_place_and_shows_the_figures(capsys):
    bar = ProgressBar()
    bar.on_train_begin(None, state_at(6), TrainerControl())
    assert (bar.training_bar.n, bar.training_bar.total) == (6, 10)
    bar.on_step_end(None, state_at(7), TrainerControl())
    bar.on_log(None, state_at(7), TrainerControl(), logs={"loss": 2.5, "alpha/layer_00/mean": 0.5})
    bar.on_log(None, state_at(7), TrainerControl(), logs={"eval_loss": 2.25})
    bar.on_train_end(None, state_at(10), TrainerControl())
    printed = capsys.readouterr()
    assert "7/10" in printed.err and "loss 2.5000" in printed.err and "alpha" not in printed.err
    assert "step 7: eval_loss 2.2500" in printed.out + printed.err


def test_a_tracker_that_cannot_be_used_is_refused_before_any_work(data, encoder, language_model, tmp_path, capsys):
    start = ["--stage", "1", "--encoder", str(encoder), "--language_model", str(language_model)]
    assert train([*start, *common(data, tmp_path, report_to="tractor")]) == 2
    error = capsys.readouterr().err
    assert "report_to=['tractor']: tractor is not supported" in error and "Pass trackio, tensorboard" in error
    assert not (tmp_path / "run.json").exists()


def test_an_absent_package_is_named_with_its_command(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        ValueError, match="report_to='wandb': the package is missing: pip install wandb, or pass report_to"
    ):
        check_reporters(["wandb"])


def test_a_new_run_gets_a_name_and_a_resumed_one_keeps_its_own(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path / "stage3"), use_cpu=True)
    name_run(args, {"run_name": "stage3-20260101-000000"})
    assert args.run_name == "stage3-20260101-000000"
    args.run_name = None
    name_run(args, None)
    assert args.run_name.startswith("stage3-2")
    name_run(args, {"run_name": "another"})
    assert args.run_name != "another"  # given by the user, or settled before


WITHOUT_NETWORK = """
import socket, sys
tried = []
def refuse(*args, **kwargs):
    tried.append(args)
    raise OSError("no network")
socket.socket.connect = refuse
socket.getaddrinfo = refuse
import torch
torch.set_num_threads(1)
from tests.commands import train
code = train(sys.argv[1:])
import threading
left = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon]
print("threads left:", left, "connections tried:", tried)
sys.exit(code)
"""


def test_trackio_is_the_default_stays_on_this_machine_and_is_told_of(runs, data, tmp_path):
    arguments = [text for text in common(data, tmp_path / "run", max_steps=2)]
    place = arguments.index("--report_to")
    del arguments[place : place + 2]
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "PYTHONPATH": str(ROOT)}
    environment |= {"HF_TOKEN": "hf_" + 34 * "a", "HF_HUB_OFFLINE": "0"}  # trackio alone would ask whose it is
    command = [sys.executable, "-c", WITHOUT_NETWORK, "--stage", "3", "--model", str(runs[2]), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert done.returncode == 0, done.stderr
    assert 'trackio show --project "spatialboost"' in done.stderr
    assert "threads left: [] connections tried: []" in done.stdout
    assert (tmp_path / "trackio" / "spatialboost.db").is_file()
    import sqlite3

    with sqlite3.connect(tmp_path / "trackio" / "spatialboost.db") as database:
        logged = [json.loads(row[0]) for row in database.execute("select metrics from metrics order by step")]
    assert "train/distance/layer_01" in logged[0] and "train/speed/tokens_per_second" in logged[0]


def test_tensorboard_gets_every_figure(runs, data, tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    arguments = ["--stage", "3", "--model", str(runs[2])]
    assert train([*arguments, *common(data, tmp_path, report_to="tensorboard", max_steps=2)]) == 0
    (folder,) = {file.parent for file in tmp_path.rglob("events.out.tfevents.*")}
    events = accumulator.EventAccumulator(str(folder))
    events.Reload()
    tags = set(events.Tags()["scalars"])
    assert {
        "train/loss",
        "train/speed/tokens_per_second",
        "train/alpha/layer_01/max",
        "train/distance/layer_00",
    } <= tags


TWO_PROCESSES = """
import os
import sys
import torch
from accelerate import Accelerator
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from modeling_spatialboost import SpatialBoostModel
from trainers.watching import Meters, channel_figures, second_channels

torch.set_num_threads(1)
accelerator = Accelerator(cpu=True)
meters = Meters(torch.device("cpu"))
meters.tokens += torch.tensor([30, 10]) * (1 + accelerator.process_index)
meters.positions, meters.images, meters.samples, meters.seconds = 100, 3, 2, 2.0 + accelerator.process_index
figures = meters.read(accelerator)
assert abs(figures["speed/tokens_per_second"] - (30 + 60) / 3) < 1e-4, figures
assert abs(figures["data/padding_share"] - (1 - 90 / 200)) < 1e-6, figures

torch.manual_seed(0)
model = SpatialBoostModel.from_encoder(sys.argv[1]).freeze_base_channel()
channels = second_channels(model)
with torch.no_grad():
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.add_(torch.randn_like(parameter))
whole = channel_figures(channels)
mesh = init_device_mesh("cpu", (2,))
for attention in channels.values():
    fully_shard(attention, mesh=mesh)
assert channels[0].alpha_logit.to_local().numel() == channels[0].alpha_logit.numel() / 2
sharded = channel_figures(channels)
assert all(abs(sharded[name] - value) < 1e-5 * abs(value) for name, value in whole.items()), (sharded, whole)
accelerator.wait_for_everyone()
os._exit(0)  # now and then gloo's threads abort a process that takes itself apart
"""


def test_two_processes_add_up_and_shards_of_fsdp2_are_measured_whole(encoder, tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*command, str(encoder)], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]


def test_layers_that_are_flattened_are_not_watched_and_it_is_said(runs, data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("trainers.watching.is_deepspeed_zero3_enabled", lambda: True)
    arguments = ["--stage", "3", "--model", str(runs[2])]
    assert train([*arguments, *common(data, tmp_path / "run", max_steps=1)]) == 0
    history = json.loads((tmp_path / "run" / "trainer_state.json").read_text())["log_history"]
    (entry,) = [entry for entry in history if "loss" in entry]
    assert "speed/tokens_per_second" in entry and not any(key.startswith("alpha/") for key in entry)
    assert "ZeRO-3 and FSDP1 flatten the parameters" in caplog.text
    assert "<section hidden>" in (tmp_path / "run" / "report.html").read_text()
