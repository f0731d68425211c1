"""Behaviour cloning without a simulator: the policy, its scores, recorded demonstrations, TriFinger."""

import json
import pickle
import shutil

import numpy as np
import pytest
import torch

from evaluators.comparison import compare
from evaluators.robots import cloning, offline_actions, returns, success
from evaluators.robots.cloning import _warnings
from evaluators.robots.demonstrations import Demonstrations
from evaluators.robots.inputs import control_inputs, randomised
from evaluators.robots.policy import Examples, evaluated_epochs, fuse, history_indices, train_policy
from evaluators.robots.protocol import preset_protocol
from evaluators.robots.recordings import read_recordings
from evaluators.robots.rollouts import Outcome
from evaluators.robots.simulators import ROBOT_TASKS
from tests.commands import evaluate as main


def test_flare_is_the_differences_and_the_newest():
    assert fuse(torch.tensor([[[1.0], [3.0], [6.0]]])).tolist() == [[2.0, 3.0, 6.0]]


def test_history_stays_within_its_episode():
    assert history_indices(np.array([2, 3])).tolist() == [[0, 0, 0], [0, 0, 1], [2, 2, 2], [2, 2, 3], [2, 3, 4]]


def test_evaluations_come_when_cortexbench_has_them():
    assert evaluated_epochs(100, 5) == [*range(6, 97, 5), 100]  # its epochs 5, 10, ..., 95 and 99 count from 0
    assert evaluated_epochs(100, 50) == [51, 100]
    assert evaluated_epochs(1, 5) == [1]


def linear_examples(num_steps=600):
    random = torch.Generator().manual_seed(0)
    embeddings = torch.randn(num_steps, 5, generator=random)
    proprioception = torch.randn(num_steps, 2, generator=random)
    history = torch.from_numpy(history_indices(np.array([num_steps // 2] * 2)))
    actions = torch.stack([embeddings[:, 0] - embeddings[history[:, 1], 0], proprioception[:, 1]], dim=1) / 3
    return Examples(embeddings, proprioception, actions, history)


def test_the_policy_learns_what_history_and_proprioception_tell():
    examples = linear_examples()
    *_, policy = train_policy(examples, epochs=30, seed=0)
    with torch.inference_mode():
        error = (policy(examples.embeddings[examples.history], examples.proprioception) - examples.actions).square()
    assert error.mean() < 0.05 * examples.actions.var()
    assert not policy.training


def test_a_seed_decides_the_policy():
    examples = linear_examples(300)
    policies = [list(train_policy(examples, 2, seed))[-1].state_dict() for seed in (0, 0, 1)]
    assert all(torch.equal(policies[0][name], policies[1][name]) for name in policies[0])
    assert not torch.equal(policies[0]["layers.1.weight"], policies[2]["layers.1.weight"])


def outcome(at_goal, rewards=None):
    at_goal = np.array(at_goal, bool)
    return Outcome(at_goal, np.zeros(at_goal.shape) if rewards is None else np.array(rewards), np.empty(0))


def test_metaworld_counts_the_last_step_and_any_step():
    outcomes = [
        outcome([[0, 1, 1], [0, 0, 1], [1, 0, 0], [0, 0, 0]]),
        outcome([[0, 1, 0], [0, 0, 1]] + [[0, 0, 0]] * 2),
    ]
    scores = success.aggregate(success.items_of(outcomes, ROBOT_TASKS["metaworld_hammer"]))
    assert scores == {"success_last": 25.0, "success_any": 50.0, "success_best": 50.0}


def test_the_adroit_hand_must_stay_at_its_goal():
    steps = np.arange(60)
    goals = [steps < 20, steps < 21, steps < 25, steps < 26]  # 20, 21, 25, 26 steps there
    rates = [
        success.aggregate(success.items_of([outcome(goals)], ROBOT_TASKS[name]))["success_last"]
        for name in ("adroit_pen", "adroit_relocate")
    ]
    assert rates == [75.0, 25.0]  # more than 20 steps, more than 25


def test_return_is_a_share_of_the_largest():
    outcomes = [outcome(np.zeros((2, 4)), [[1, 1, 1, 1], [0, 0, 0, 0]]), outcome(np.zeros((2, 4)), [[0, 0, 0, 1]] * 2)]
    items = returns.items_of(outcomes, ROBOT_TASKS["dmcontrol_walker_walk"])
    assert returns.aggregate(items) == {"return_last": 25.0, "return_best": 50.0}


def test_the_full_protocol_is_cortexbench_s():
    protocol = preset_protocol("full", ROBOT_TASKS["metaworld_assembly"])
    assert (protocol.demonstrations, protocol.rollouts, protocol.horizon_steps) == (25, 25, 500)
    assert (protocol.epochs, protocol.evaluate_every, protocol.image_size_px) == (100, 5, 256)
    protocol = preset_protocol("full", ROBOT_TASKS["dmcontrol_walker_walk"])
    assert (protocol.demonstrations, protocol.rollouts) == (100, 10)


@pytest.mark.parametrize(
    ("task", "length", "longest", "horizon"),
    [
        ("metaworld_hammer", 60, 200, 120),  # twice the mean demonstration
        ("adroit_pen", 100, 100, 100),  # no longer than in the full protocol
        ("dmcontrol_walker_walk", 200, 200, 200),  # cut, from 1,000
    ],
)
def test_the_small_protocol_is_short(task, length, longest, horizon, tmp_path, monkeypatch):
    def demonstrations(_task, recipe, _cache_dir):
        assert recipe.max_steps == longest
        return Demonstrations(*[np.zeros(0)] * 3, lengths=np.array([length - 1, length + 1]), fingerprint="")

    monkeypatch.setattr(cloning, "load_demonstrations", demonstrations)
    config = success.Config(data_set=task, data=None, cache_dir=tmp_path, preset="cpu")
    assert cloning._prepare(config, torch.device("cpu")).horizon_steps == horizon


def test_a_task_that_grey_pixels_solve_is_warned_about():
    def lines(**scores):
        return _warnings({name: {"success_last": value} for name, value in scores.items()}, "success_last")

    assert lines(grey_pixels=60.0, state=90.0, proprioception=10.0) == []
    [line] = lines(grey_pixels=61.0, state=90.0, proprioception=10.0)
    assert "16x16 grey pixels reach 61 %" in line and "cannot rank encoders" in line
    [line] = lines(grey_pixels=0.0, state=10.0, proprioception=10.0)
    assert "too few demonstrations" in line


def test_warnings_of_a_task_reach_the_report():
    base = {
        "items": [np.zeros((4, 2))],
        "controls": {"proprioception": {"success_last": 10.0, "success_any": 10.0, "success_best": 10.0}},
        "encoder": {},
        "data": {"warnings": ["look out."]},
        "protocol": {},
        "seeds": [0],
    }
    warnings = compare(success.METRICS, success.aggregate, base, base)["warnings"]
    assert "look out." in warnings
    assert any("does not beat a control that sees no image" in line for line in warnings)


def test_the_random_encoder_has_the_architecture_and_other_weights(encoder_folders):
    from evaluators.encoders import load_encoder

    encoder = load_encoder(encoder_folders("dinov3"))
    first, second = randomised(encoder), randomised(encoder)
    pixel_values = torch.rand(2, 3, 32, 32)
    assert torch.equal(first.image_features(pixel_values), second.image_features(pixel_values))
    assert not torch.allclose(first.image_features(pixel_values), encoder.image_features(pixel_values))
    assert first.weights_hash != encoder.weights_hash
    assert list(control_inputs(encoder, (32, 32))) == ["state", "proprioception", "grey_pixels", "random_encoder"]


@pytest.mark.parametrize("kind", ["dinov3", "siglip"])
def test_an_image_has_one_feature(encoder_folders, kind):
    from evaluators.encoders import load_encoder

    encoder = load_encoder(encoder_folders(kind))
    pixel_values = torch.rand(2, 3, 32, 32)
    features, mean_patch = encoder.image_features(pixel_values), encoder.patch_features(pixel_values).mean((2, 3))
    assert features.shape == (2, 32)
    assert torch.allclose(features, mean_patch, atol=1e-6) == (kind == "siglip")  # it has no class token


class Unwelcome:
    def __reduce__(self):
        return print, ("this must not run",)


def test_recordings_are_read_from_npz_minari_and_cortexbench(tmp_path):
    actions, state = np.ones((3, 2)), np.arange(12.0).reshape(3, 4)
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz" / "episode_0.npz", actions=actions, internal_state=state)
    [episode] = read_recordings(tmp_path / "npz")
    assert np.array_equal(episode["internal_state"], state)

    h5py = pytest.importorskip("h5py")
    (tmp_path / "minari" / "data").mkdir(parents=True)
    with h5py.File(tmp_path / "minari" / "data" / "main_data.hdf5", "w") as file:
        for number in (10, 9):
            file[f"episode_{number}/actions"] = actions * number
            file[f"episode_{number}/infos/state/qpos"] = state
    episodes = list(read_recordings(tmp_path / "minari"))
    assert [episode["actions"][0, 0] for episode in episodes] == [9, 10]  # by number, not by name
    assert np.array_equal(episodes[0]["qpos"], state)

    paths = [{"actions": actions, "rewards": np.float64(1), "env_infos": {"internal_state": state}}]
    (tmp_path / "walker.pickle").write_bytes(pickle.dumps(paths))
    [episode] = read_recordings(tmp_path / "walker.pickle", read_pickles=True)
    assert np.array_equal(episode["internal_state"], state)


def test_recordings_that_cannot_be_used_are_told_in_one_sentence(tmp_path, capsys):
    def message(place, **more):
        with pytest.raises(ValueError) as error:
            list(read_recordings(place, **more))
        return str(error.value)

    assert "do not exist" in message(tmp_path / "absent")
    assert "hold no episodes" in message(tmp_path)
    pickled = tmp_path / "episodes.pickle"
    pickled.write_bytes(pickle.dumps([{"actions": np.ones((2, 2)), "env_infos": Unwelcome()}]))
    assert "can run code" in message(pickled)
    assert "builtins.print, which is no array" in message(pickled, read_pickles=True)
    assert "must not run" not in capsys.readouterr().out
    np.savez(tmp_path / "episode.npz", actions=np.ones((2, 2)))
    assert "episode 0, hold only actions" in message(tmp_path)


def write_fingers(root, folder, count=40, num_steps=4):
    """CortexBench's layout: a finger moves towards a cube, whose place the picture shows."""
    random = np.random.default_rng(0)
    for number in range(count):
        place = root / folder / f"demo-{number:04d}" / "dts-0p4"
        place.mkdir(parents=True)
        goal = random.integers(0, 4, 2)
        pictures = np.zeros((num_steps, 32, 32, 3), np.uint8)
        pictures[:, 8 * goal[0] : 8 * goal[0] + 8, 8 * goal[1] : 8 * goal[1] + 8] = 255
        fingertips = random.normal(0, 0.1, (num_steps, 9))
        displacement = np.zeros((num_steps, 9))
        displacement[:, :2] = goal - 1.5
        columns = {"image_60": pictures, "ft_pos_cur": fingertips, "delta_ftpos": displacement, "t": [[0.0]]}
        torch.save(columns, place / "downsample.pth")
    return root


def evaluate_fingers(root, base, boosted, output, *more):
    arguments = ["--base", base, "--boosted", boosted, "--tasks", "robot_actions", "--preset", "cpu"]
    return main([*arguments, "--data", f"trifinger_reach_cube={root}", "--output", str(output), *more])


def test_trifinger_is_measured_on_held_out_demonstrations(encoder_folders, tmp_path, monkeypatch):
    from transformers import AutoModel

    root, base, blind = write_fingers(tmp_path / "demos", "reach"), tmp_path / "base", tmp_path / "blind"
    model = AutoModel.from_pretrained(encoder_folders("dinov3"))
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(8)  # so that a class token tells pictures apart
        model.save_pretrained(base)
        model.norm.weight.zero_()  # a deliberately corrupted encoder
        model.save_pretrained(blind)
    for folder in (base, blind):
        shutil.copy(f"{encoder_folders('dinov3')}/preprocessor_config.json", folder)
    monkeypatch.setattr(offline_actions, "HIDDEN_SIZE", 200)
    monkeypatch.setattr(offline_actions, "LEARNING_RATE", 3e-3)
    assert evaluate_fingers(root, str(base), str(blind), tmp_path / "out") == 0
    entry = json.loads((tmp_path / "out" / "results.json").read_text())["tasks"]["robot_actions/trifinger_reach_cube"]
    row = entry["metrics"]["action_error_cm"]
    assert entry["num_items"] == 8 and entry["data"]["splits"]["train"]["items"] == 32
    assert row["boosted"]["mean"] > 1.2 * row["base"]["mean"]
    assert set(row["controls"]) == {"constant", "proprioception", "grey_pixels", "random_encoder"}
    assert row["controls"]["grey_pixels"] < row["controls"]["constant"]
    assert "impedance controller are not" in entry["protocol"]["differs"]


def test_trifinger_mistakes(encoder_folders, tmp_path, capsys):
    base = encoder_folders("dinov3")

    def message(root):
        assert evaluate_fingers(root, base, base, tmp_path / "out") == 2
        return capsys.readouterr().err.strip().split("\n")[-1]

    assert "hold 0 in reach/: pass CortexBench's folder" in message(tmp_path)
    root = write_fingers(tmp_path / "demos", "reach")
    file = root / "reach" / "demo-0003" / "dts-0p4" / "downsample.pth"
    torch.save({"image_60": np.zeros(1)}, file)
    assert "lacks ft_pos_cur, delta_ftpos" in message(root)
    torch.save({"image_60": Unwelcome()}, file)
    assert "is no file of arrays" in message(root)
