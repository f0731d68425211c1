"""Try a policy in many simulations at once, so that the encoder sees their pictures as one batch."""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

from evaluators.robots.inputs import PolicyInput
from evaluators.robots.policy import HISTORY, ClonedPolicy
from evaluators.robots.rendering import Camera
from evaluators.robots.simulators import RobotTask, make_simulator

FIRST_SEED = 10_000  # demonstrations have the seeds from 0 on
STRIP_LENGTH = 6


@dataclass(frozen=True)
class Outcome:
    """What came of N rollouts.

    Attributes:
        at_goal: (N, steps) whether the robot was at its goal after each step.
        rewards: (N, steps).
        strips: (num_strips, STRIP_LENGTH, H, W, 3) uint8, pictures of the first rollouts from begin to end.
    """

    at_goal: np.ndarray
    rewards: np.ndarray
    strips: np.ndarray


class Arena:
    """Simulations of a task, one per rollout, with one camera for all of them."""

    def __init__(self, task: RobotTask, num_rollouts: int, image_size_px: int, horizon_steps: int) -> None:
        self.task, self.horizon_steps = task, horizon_steps
        self._simulators = [make_simulator(task) for _ in range(num_rollouts)]
        self._camera = Camera(self._simulators[0].scene[0], task.camera, image_size_px, task.upside_down)

    def close(self) -> None:
        """Give the renderer back."""
        self._camera.close()

    @torch.inference_mode()
    def try_policy(
        self, policy: ClonedPolicy, policy_input: PolicyInput, num_strips: int = 0, label: str = "rollouts"
    ) -> Outcome:
        """Roll the policy out, rollout i always from seed FIRST_SEED + i.

        Args:
            policy: in eval mode.
            policy_input: what it sees.
            num_strips: of how many rollouts pictures are kept.
            label: for the progress bar.

        Returns:
            What came of it.
        """
        device = next(policy.parameters()).device
        for index, simulator in enumerate(self._simulators):
            simulator.reset(FIRST_SEED + index)
        kept = set(np.linspace(0, self.horizon_steps - 1, STRIP_LENGTH).round().astype(int).tolist())
        history: list[torch.Tensor] = []
        goals, rewards, strips = [], [], []
        for step in tqdm(range(self.horizon_steps), desc=label, unit="step", leave=False):
            states = np.stack([simulator.state() for simulator in self._simulators])  # (N, S)
            pictures = self._pictures(len(self._simulators)) if policy_input.of_pictures else []
            if num_strips and step in kept:
                strips.append(
                    [np.asarray(picture) for picture in (pictures or self._pictures(num_strips))[:num_strips]]
                )
            newest = policy_input.of_steps(pictures, states)  # (N, D)
            history = [*history[1:], newest] if history else [newest] * HISTORY
            proprioception = torch.from_numpy(states[:, : self.task.num_proprioception])
            actions = policy(torch.stack(history, dim=1).to(device), proprioception.to(device)).cpu().numpy()
            results = [simulator.step(action) for simulator, action in zip(self._simulators, actions)]
            rewards.append([reward for reward, _ in results])
            goals.append([at_goal for _, at_goal in results])
        strip_array = np.array(strips, np.uint8).swapaxes(0, 1) if strips else np.empty(0, np.uint8)
        return Outcome(np.array(goals).T, np.array(rewards).T, strip_array)

    def _pictures(self, count: int) -> list[Image.Image]:
        return [Image.fromarray(self._camera(*simulator.scene)) for simulator in self._simulators[:count]]
