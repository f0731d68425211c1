"""Robot simulators, their camera and `spatialboost evaluate` on them; `.ci/run` installs what they render with."""

import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from evaluators.robots import demonstrations as demonstrations_module
from evaluators.robots import rendering
from evaluators.robots.cloning import _Course
from evaluators.robots.demonstrations import Recipe, load_demonstrations
from evaluators.robots.inputs import PolicyInput
from evaluators.robots.policy import ClonedPolicy
from evaluators.robots.protocol import Protocol
from evaluators.robots.rollouts import Arena
from evaluators.robots.simulators import ROBOT_TASKS, make_simulator
from evaluators.robots.success import aggregate, items_of
from tests.commands import evaluate as main

for package in ("metaworld", "gymnasium_robotics", "dm_control"):
    pytest.importorskip(package, reason=f"{package} comes with the extra robot")

ONE_OF_EACH_SUITE = ["metaworld_hammer", "adroit_pen", "dmcontrol_reacher_easy"]
SIZE_PX = 48


def picture_of(simulator, task, **changes):
    camera = rendering.Camera(
        simulator.scene[0], **{"camera": task.camera, "size_px": SIZE_PX, "upside_down": task.upside_down} | changes
    )
    try:
        return camera(*simulator.scene)
    finally:
        camera.close()


@pytest.mark.parametrize("name", ONE_OF_EACH_SUITE)
def test_a_seed_decides_the_episode(name):
    task = ROBOT_TASKS[name]
    first, second = make_simulator(task), make_simulator(task)
    first.reset(5)
    second.reset(5)
    action = np.linspace(-1, 1, first.num_actions)
    assert [first.step(action) for _ in range(5)] == [second.step(action) for _ in range(5)]
    assert np.array_equal(first.state(), second.state())
    assert np.array_equal(picture_of(first, task), picture_of(second, task))
    second.reset(6)
    first.reset(5)
    assert not np.array_equal(first.state(), second.state())


def test_metaworld_s_camera_is_turned_upright():
    task = ROBOT_TASKS["metaworld_bin_picking"]
    simulator = make_simulator(task)
    simulator.reset(0)
    upright = picture_of(simulator, task).astype(int)
    assert np.array_equal(upright, picture_of(simulator, task, upside_down=False)[::-1, ::-1])
    blue, red = (
        np.argwhere(upright[..., one] - upright[..., others].max(-1) > 100)
        for one, others in ((2, [0, 1]), (0, [1, 2]))
    )
    robot = red[red[:, 1] > 0.6 * SIZE_PX]
    assert len(blue) and robot[:, 0].min() < blue[:, 0].min()  # the arm rises above the bins


def test_every_metaworld_task_has_an_expert_that_succeeds():
    for name in (name for name, task in ROBOT_TASKS.items() if task.suite == "metaworld"):
        simulator = make_simulator(ROBOT_TASKS[name])
        simulator.reset(0)
        assert any(simulator.step(simulator.expert_action())[1] for _ in range(250)), name


@pytest.mark.parametrize("name", ["adroit_relocate", "dmcontrol_cheetah_run"])
def test_recorded_states_are_shown_as_they_were(name, tmp_path):
    task = ROBOT_TASKS[name]
    simulator = make_simulator(task)
    simulator.reset(3)
    recorded, states, pictures = [], [], []
    for step in range(4):
        recorded.append(state_of(simulator, task))
        states.append(simulator.state())
        pictures.append(picture_of(simulator, task))
        simulator.step(np.full(simulator.num_actions, 0.5 * (-1) ** step))
    arrays = {key: np.stack([state[key] for state in recorded]) for key in recorded[0]}
    np.savez(tmp_path / "episode.npz", actions=np.full((4, simulator.num_actions), 2.0), **arrays)
    recipe = Recipe(1, SIZE_PX, max_steps=3, steps_after_success=0, recordings=str(tmp_path))
    shown = load_demonstrations(task, recipe, tmp_path / "cache")
    assert np.allclose(shown.states, states[:3], atol=5e-3) and shown.lengths.tolist() == [3]  # a physics step apart
    assert np.abs(shown.frames.astype(int) - np.stack(pictures[:3])).mean() < 2
    assert shown.actions.max() == 1  # clipped to what the motors take


def test_a_ball_that_was_carried_is_shown_where_it_was():
    simulator = make_simulator(ROBOT_TASKS["adroit_relocate"])
    simulator.reset(0)
    environment = simulator._environment
    carried = environment.data.qpos.copy()
    carried[30:33] = [0.05, 0.1, 0.2]  # of the ball, from where it began
    environment.set_state(carried, environment.data.qvel)
    recorded = state_of(simulator, ROBOT_TASKS["adroit_relocate"])
    simulator.reset(1)
    simulator.restore(recorded)
    assert np.allclose(environment.data.xpos[environment.obj_body_id], recorded["obj_pos"], atol=1e-6)


def state_of(simulator, task):
    if task.suite == "dmcontrol":
        return {"internal_state": simulator._environment.physics.get_state()}
    return simulator._environment.get_env_state()


def test_rollouts_are_the_same_however_the_policy_is_tried(tmp_path):
    task = ROBOT_TASKS["dmcontrol_reacher_easy"]
    torch.manual_seed(0)
    policy = ClonedPolicy(embedding_size=6, num_proprioception=0, num_actions=2).eval()
    arena = Arena(task, num_rollouts=2, image_size_px=SIZE_PX, horizon_steps=8)
    try:
        first = arena.try_policy(policy, PolicyInput(sees_state=True), num_strips=1)
        second = arena.try_policy(policy, PolicyInput(sees_state=True))
    finally:
        arena.close()
    assert np.array_equal(first.rewards, second.rewards) and first.rewards.shape == (2, 8)
    assert first.strips.shape == (1, 6, SIZE_PX, SIZE_PX, 3) and second.strips.size == 0


QUICK = [
    "demonstrations=2",
    "rollouts=2",
    "epochs=2",
    "evaluate_every=1",
    "horizon_steps=8",
    f"image_size_px={SIZE_PX}",
]


def evaluate(base, boosted, output, *more, settings=QUICK):
    arguments = ["--base", base, "--boosted", boosted, "--output", str(output), "--preset", "cpu", "--tasks", "robots"]
    return main([*arguments, "--set", *(f"robot_success.{setting}" for setting in settings), *more])


def test_identical_encoders_do_the_same_and_nothing_is_made_twice(encoder_folders, tmp_path, monkeypatch):
    folder = encoder_folders("dinov3")
    assert evaluate(folder, folder, tmp_path) == 0
    first = json.loads((tmp_path / "results.json").read_text())
    assert list(first["tasks"]) == ["robot_success/metaworld_bin_picking"]  # the one that preset cpu takes unasked
    entry = first["tasks"]["robot_success/metaworld_bin_picking"]
    assert entry["protocol"]["id"].startswith("behaviour-cloning/1+")
    assert list(entry["metrics"]) == ["success_last", "success_any", "success_best"]
    for row in entry["metrics"].values():
        assert row["difference"]["per_seed"] == [0.0] and row["difference"]["interval"] == [0.0, 0.0]
        assert set(row["controls"]) == {"state", "proprioception", "grey_pixels", "random_encoder"}
    settings = entry["protocol"]["settings"]
    assert settings["camera"] == "corner turned upright" and settings["mujoco"] and settings["metaworld"]
    assert (settings["shadows"], settings["reflections"], settings["antialiasing_samples"]) == (False, False, 0)
    assert settings["horizon_steps"] == 8 and entry["num_items"] == 2
    with Image.open(tmp_path / entry["picture"]) as picture:
        assert picture.width > 600
    monkeypatch.setattr(demonstrations_module, "_episodes", lambda *_: pytest.fail("rendered again"))
    assert evaluate(folder, folder, tmp_path) == 0
    assert json.loads((tmp_path / "results.json").read_text()) == first


class NoCamera:
    """Black pictures, at no cost, for policies that do not look."""

    def __init__(self, *_):
        pass

    def __call__(self, *_):
        return np.zeros((8, 8, 3), np.uint8)

    def close(self):
        pass


def test_who_sees_the_goal_succeeds_and_who_does_not_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(demonstrations_module, "Camera", NoCamera)
    task, horizon_steps = ROBOT_TASKS["metaworld_button_press_topdown"], 100
    protocol = Protocol(demonstrations=10, rollouts=8, epochs=100, evaluate_every=100)
    demonstrations = load_demonstrations(task, Recipe(10, 8, horizon_steps, 10), tmp_path)
    course = _Course(task, protocol, horizon_steps, demonstrations, torch.device("cpu"), tmp_path)
    arena = Arena(task, protocol.rollouts, 8, horizon_steps)
    try:
        rates = [
            aggregate(course.items(arena, PolicyInput(sees_state=sees), 0, items_of))["success_last"]
            for sees in (True, False)
        ]
    finally:
        arena.close()
    assert rates[0] >= 75 and rates[1] <= 50, rates


def test_other_pixels_are_another_protocol(tmp_path):
    task = ROBOT_TASKS["metaworld_hammer"]

    def settings(size_px):
        protocol = Protocol(demonstrations=1, rollouts=1, image_size_px=size_px)
        return _Course(task, protocol, 9, None, torch.device("cpu"), tmp_path).settings()

    assert settings(64) == settings(64) != settings(128)
    assert "corner turned upright" in settings(64).values()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "adroit_pen=absent"], "demonstrations 'absent' do not exist: pass a folder of .npz files"),
        (["--data", "adroit_pen"], "--data 'adroit_pen' is on no Hub that we could name: pass adroit_pen=FOLDER"),
        (["--set", "robot_success.rollouts=0"], "rollouts 0 leaves nothing to do: pass 1 or more"),
        (["--limit", "0"], "demonstrations 0 leaves nothing to do"),
        (["--data", "metaworld_hamer=x"], "is no data set (did you mean 'metaworld_hammer'?)"),
    ],
)
def test_mistakes_end_in_one_sentence_and_code_2(encoder_folders, tmp_path, capsys, arguments, message):
    folder = encoder_folders("dinov3")
    assert evaluate(folder, folder, tmp_path, *arguments, settings=["epochs=1"]) == 2
    assert message in capsys.readouterr().err.strip().split("\n")[-1]


def test_a_missing_renderer_is_named(monkeypatch):
    def fail(*_):
        raise RuntimeError("no display")

    simulator = make_simulator(ROBOT_TASKS["dmcontrol_reacher_easy"])
    simulator.reset(0)
    monkeypatch.setattr(f"mujoco.{os.environ['MUJOCO_GL']}.GLContext", fail)
    with pytest.raises(ValueError, match=r"no OpenGL renderer for MuJoCo \(no display\): install EGL \(apt-get"):
        rendering.Camera(simulator.scene[0], 0, SIZE_PX)
    with pytest.raises(ValueError, match="camera 'top_cap2' is none of the scene's"):
        rendering.Camera(simulator.scene[0], "top_cap2", SIZE_PX)
