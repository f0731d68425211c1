"""The robot tasks of CortexBench on simulators that install today, and the one interface to them."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from evaluators.robots.rendering import choose_backend


@dataclass(frozen=True)
class RobotTask:
    """A row of CortexBench's table, with what differs today.

    Attributes:
        suite: "metaworld", "dmcontrol" or "adroit".
        name: in the suite's own spelling.
        camera: that the policy sees through.
        upside_down: whether that camera is mounted so and its pictures are turned.
        horizon_steps: length of a rollout in the full protocol.
        num_proprioception: leading entries of the state that the policy is told; joint angles or the gripper.
        demonstrations: of the full protocol.
        rollouts: of the full protocol.
        steps_at_goal: success needs more steps at the goal than that; None: the last step decides.
    """

    suite: str
    name: str
    camera: str | int
    upside_down: bool
    horizon_steps: int
    num_proprioception: int
    demonstrations: int
    rollouts: int
    steps_at_goal: int | None = None


def _metaworld(name: str) -> RobotTask:
    # CortexBench's camera "top_cap2" exists in a fork only; "corner" is fixed and near, but hangs upside down
    return RobotTask("metaworld", f"{name}-v3-goal-observable", "corner", True, 500, 4, 25, 25)


def _dmcontrol(name: str) -> RobotTask:
    return RobotTask("dmcontrol", name, 0, False, 1000, 0, 100, 10)


ROBOT_TASKS = {
    "metaworld_bin_picking": _metaworld("bin-picking"),
    "metaworld_assembly": _metaworld("assembly"),
    "metaworld_button_press_topdown": _metaworld("button-press-topdown"),
    "metaworld_drawer_open": _metaworld("drawer-open"),
    "metaworld_hammer": _metaworld("hammer"),
    "adroit_pen": RobotTask("adroit", "AdroitHandPen-v1", "vil_camera", False, 100, 24, 100, 25, 20),
    "adroit_relocate": RobotTask("adroit", "AdroitHandRelocate-v1", "vil_camera", False, 200, 30, 100, 25, 25),
    "dmcontrol_walker_stand": _dmcontrol("walker-stand"),
    "dmcontrol_walker_walk": _dmcontrol("walker-walk"),
    "dmcontrol_reacher_easy": _dmcontrol("reacher-easy"),
    "dmcontrol_cheetah_run": _dmcontrol("cheetah-run"),
    "dmcontrol_finger_spin": _dmcontrol("finger-spin"),
}


class Simulator(ABC):
    """One simulation of a robot task.

    Attributes:
        num_actions: of a motor command, each entry in [-1, 1].
    """

    num_actions: int

    @property
    @abstractmethod
    def scene(self) -> tuple[Any, Any]:
        """The `mujoco.MjModel` and `mujoco.MjData` that a camera wants."""

    @abstractmethod
    def reset(self, seed: int) -> None:
        """Begin an episode; the same seed gives the same one."""

    @abstractmethod
    def step(self, action: np.ndarray) -> tuple[float, bool]:
        """Apply a motor command; return the reward and whether the robot is at its goal now."""

    @abstractmethod
    def state(self) -> np.ndarray:
        """Return what the suite itself calls the observation, goal included: float32 (S,)."""

    def restore(self, recorded: dict[str, np.ndarray]) -> None:
        """Put the simulation into a state of a recording.

        Raises:
            ValueError: where the suite's recordings cannot be put back.
        """
        raise ValueError("cannot be put back into this simulator: it has a scripted expert instead")

    def expert_action(self) -> np.ndarray | None:
        """Return what the suite's scripted expert would do now; None where there is no such expert."""
        return None


class _MetaWorld(Simulator):
    """A task of MetaWorld 3 with a random goal in every episode, and its scripted expert."""

    def __init__(self, name: str) -> None:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE
        from metaworld.policies import ENV_POLICY_MAP

        self._environment = ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE[name]()
        self._environment._freeze_rand_vec, self._environment.seeded_rand_vec = False, True
        self._expert: Any = ENV_POLICY_MAP[name.removesuffix("-goal-observable")]()  # type: ignore[abstract]
        self._observation = np.empty(0)
        self.num_actions = 4

    @property
    def scene(self) -> tuple[Any, Any]:
        return self._environment.model, self._environment.data

    def reset(self, seed: int) -> None:
        self._environment.seed(seed)
        self._observation, _ = self._environment.reset()

    def step(self, action: np.ndarray) -> tuple[float, bool]:
        self._observation, reward, _, _, info = self._environment.step(np.clip(action, -1, 1).astype(np.float32))
        return float(reward), bool(info["success"])

    def state(self) -> np.ndarray:
        return self._observation.astype(np.float32)

    def expert_action(self) -> np.ndarray:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it may ask for more than the motors give; clipped here
            return np.clip(self._expert.get_action(self._observation), -1, 1).astype(np.float32)


class _Adroit(Simulator):
    """A task of the Adroit hand in gymnasium-robotics."""

    def __init__(self, name: str) -> None:
        import gymnasium
        import gymnasium_robotics

        gymnasium.register_envs(gymnasium_robotics)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # on rewards of tasks that are not used here
            environment: Any = gymnasium.make(name)
        self._environment = environment.unwrapped
        self._observation = np.empty(0)
        self.num_actions = self._environment.action_space.shape[0]

    @property
    def scene(self) -> tuple[Any, Any]:
        return self._environment.model, self._environment.data

    def reset(self, seed: int) -> None:
        self._observation, _ = self._environment.reset(seed=seed)

    def step(self, action: np.ndarray) -> tuple[float, bool]:
        self._observation, reward, _, _, info = self._environment.step(np.clip(action, -1, 1))
        return float(reward), bool(info["success"])

    def state(self) -> np.ndarray:
        return self._observation.astype(np.float32)

    def restore(self, recorded: dict[str, np.ndarray]) -> None:
        import mujoco

        wanted = self._environment._state_space.spaces
        if absent := [key for key in wanted if key not in recorded]:
            raise ValueError(f"lacks {', '.join(absent)}, without which {self._environment.spec.id} cannot be shown")
        environment = self._environment
        environment.set_env_state(
            {key: np.asarray(recorded[key], space.dtype).reshape(space.shape) for key, space in wanted.items()}
        )
        if "obj_pos" in wanted:  # taken for where the ball began, which counts what it has moved since twice
            moved = recorded["obj_pos"] - environment.data.xpos[environment.obj_body_id]
            environment.model.body_pos[environment.obj_body_id] += moved
            mujoco.mj_forward(environment.model, environment.data)
        self._observation = environment._get_obs()


class _DMControl(Simulator):
    """A task of the DeepMind Control suite; its reward is in [0, 1] per step and stands in for success."""

    def __init__(self, name: str) -> None:
        from dm_control import suite

        domain, task = name.split("-")
        self._environment = suite.load(domain, task, task_kwargs={"random": 0})
        self.num_actions = int(np.prod(self._environment.action_spec().shape))

    @property
    def scene(self) -> tuple[Any, Any]:
        return self._environment.physics.model.ptr, self._environment.physics.data.ptr

    def reset(self, seed: int) -> None:
        self._environment.task.random.seed(seed)
        self._environment.reset()

    def step(self, action: np.ndarray) -> tuple[float, bool]:
        reward = self._environment.step(np.clip(action, -1, 1)).reward or 0.0
        return float(reward), reward >= 0.5

    def state(self) -> np.ndarray:
        observation = self._environment.task.get_observation(self._environment.physics)
        return np.concatenate([np.ravel(value) for value in observation.values()]).astype(np.float32)

    def restore(self, recorded: dict[str, np.ndarray]) -> None:
        if "internal_state" not in recorded:
            raise ValueError("lacks internal_state, without which DMControl cannot be shown")
        physics, state = self._environment.physics, np.ravel(recorded["internal_state"]).astype(np.float64)
        if state.shape != physics.get_state().shape:
            raise ValueError(f"has internal_state of {len(state)} numbers where {physics.get_state().size} are wanted")
        with physics.reset_context():
            physics.set_state(state)


SUITES: dict[str, Callable[[str], Simulator]] = {"metaworld": _MetaWorld, "adroit": _Adroit, "dmcontrol": _DMControl}
SUITE_PACKAGES = {"metaworld": "metaworld", "adroit": "gymnasium-robotics", "dmcontrol": "dm_control"}


def make_simulator(task: RobotTask) -> Simulator:
    """Start a simulation of a task.

    Raises:
        ModuleNotFoundError: without the simulator's package, which the extra `robot` brings.
    """
    choose_backend()
    return SUITES[task.suite](task.name)
