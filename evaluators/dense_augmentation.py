"""Training with the published augmentations: the encoder sees every image anew, so nothing can be cached."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as transforms
from tqdm import tqdm

from evaluators.dense_data import DenseSplit
from evaluators.dense_views import Frame
from evaluators.encoders import Encoder
from evaluators.heads import FitConfig, HeadFit, Loss, batch_order, deterministic_kernels
from evaluators.metrics import IGNORED_CLASS


@dataclass(frozen=True)
class DepthAugmentation:
    """Cut, rotate, mirror, cut at random, vary the colours (AdaBins; DINOv3's eval/depth/transforms.py).

    Attributes:
        crop: (height, width) in pixels of the random part of the image.
        brightness: factors, from and to.
        box: (top, left, height, width) in pixels that is used at all: NYUd's white border is not.
        angle_degrees: of the rotation, either way, half of the time.
    """

    crop: tuple[int, int]
    brightness: tuple[float, float] = (0.9, 1.1)
    box: tuple[int, int, int, int] | None = None
    angle_degrees: float = 2.5

    def transform(self, size: tuple[int, int]) -> v2.Transform:
        """Return the transform of (image, depth) to `size`; what has no depth any more is 0."""
        rotation = v2.RandomRotation(self.angle_degrees, v2.InterpolationMode.BILINEAR)
        steps = [
            v2.RandomApply([rotation], p=0.5),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomCrop(self.crop, pad_if_needed=True),
            v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            v2.RandomApply([ColourAugmentation(self.brightness)], p=0.5),
        ]
        steps = [FixedCrop(*self.box), *steps] if self.box else steps
        return v2.Compose([*steps, v2.Resize(size)] if size != self.crop else steps)


@dataclass(frozen=True)
class SegmentationAugmentation:
    """Resize, cut at random, mirror, distort the colours (mmsegmentation's and DINOv3's recipe).

    Attributes:
        ratios: of the short side to the window's, from and to.
        largest_class: share of the part that one class may take; another part is tried, ten times.
    """

    ratios: tuple[float, float] = (0.5, 2.0)
    largest_class: float = 0.75

    def transform(self, size: tuple[int, int]) -> v2.Transform:
        """Return the transform of (image, class ids) to `size`; what is padded is ignored."""
        shortest, longest = (round(ratio * min(size)) for ratio in self.ratios)
        return v2.Compose(
            [
                v2.RandomResize(shortest, longest + 1),
                MixedCrop(size, self.largest_class),
                v2.RandomHorizontalFlip(0.5),
                v2.RandomPhotometricDistort(hue=(-0.1, 0.1)),  # 18 of OpenCV's 180 steps
                v2.ToDtype({tv_tensors.Image: torch.float32, "others": None}, scale=True),
            ]
        )


class FixedCrop(v2.Transform):
    """Cut out one and the same part."""

    def __init__(self, top: int, left: int, height: int, width: int) -> None:
        """Args are pixels."""
        super().__init__()
        self.part = {"top": top, "left": left, "height": height, "width": width}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """Cut image or map."""
        return transforms.crop(inpt, **self.part)


class ColourAugmentation(v2.Transform):
    """`image ** gamma * brightness * colour`, gamma and the three colours between 0.9 and 1.1 (AdaBins)."""

    _transformed_types = (tv_tensors.Image,)

    def __init__(self, brightness: tuple[float, float]) -> None:
        """Keep the range of the brightness."""
        super().__init__()
        self.ranges = [(0.9, 1.1), brightness, *[(0.9, 1.1)] * 3]

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw gamma, brightness and colours."""
        low, high = torch.tensor(self.ranges).T
        return {"factors": low + (high - low) * torch.rand(5)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        """(3, H, W) in [0, 1] -> the same."""
        gamma, brightness, *_ = factors = params["factors"]
        return tv_tensors.wrap((inpt**gamma * brightness * factors[2:, None, None]).clamp(0, 1), like=inpt)


class MixedCrop(v2.RandomCrop):
    """A random part of which no class takes more than a share, if ten draws find one."""

    def __init__(self, size: tuple[int, int], largest_class: float) -> None:
        """See `SegmentationAugmentation`."""
        super().__init__(size, pad_if_needed=True, fill={tv_tensors.Image: 0, tv_tensors.Mask: IGNORED_CLASS})
        self.largest_class = largest_class

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw a part until it is mixed enough."""
        mask = next(value for value in flat_inputs if isinstance(value, tv_tensors.Mask))
        for _ in range(10):
            params = super().make_params(flat_inputs)
            ids = super().transform(mask, params)
            counts = ids[ids != IGNORED_CLASS].flatten().bincount()
            if (counts > 0).sum() > 1 and counts.max() < self.largest_class * counts.sum():
                break
        return params


class AugmentedItems(Dataset):
    """The items of a training in their order; each draws from its own seed, whichever process makes it."""

    def __init__(
        self,
        split: DenseSplit,
        column: str,
        transform: v2.Transform,
        encoder: Encoder,
        frame: Frame,
        order: Sequence[int],
        seed: int,
    ) -> None:
        """`order` holds the index of the image at every position."""
        self.split, self.column, self.transform, self.frame, self.seed = split, column, transform, frame, seed
        self.mean, self.std, self.order = encoder.preprocessing.mean, encoder.preprocessing.std, order

    def __len__(self) -> int:
        return len(self.order)

    def __getitem__(self, position: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return (3, H, W) pixel values of the frame and its (h, w) target."""
        index = int(self.order[position])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self.seed << 40) + position)
            image = tv_tensors.Image(transforms.pil_to_tensor(self.split[index]))
            target = tv_tensors.Mask(torch.from_numpy(self.split.dense_map(self.column, index).copy()))
            image, target = self.transform(image, target)
        pixel_values = transforms.normalize(image, self.mean, self.std).as_subclass(torch.Tensor)
        return self.frame.pad(pixel_values), target.as_subclass(torch.Tensor)


def fit_augmented(
    make_head: Callable[[], nn.Module],
    items: Callable[[Sequence[int]], AugmentedItems],
    encoder: Encoder,
    loss: Loss,
    config: FitConfig,
    seeds: Sequence[int],
    num_workers: int,
) -> list[nn.Module]:
    """Train one head per seed on features that the frozen encoder computes in the loop, once for all heads.

    The order of the images and their augmentations are those of the first seed; the seeds differ in the head's first
    weights and its dropout. Processes share the encoder's work on each batch and then take the same step.

    Args:
        make_head: builds a head, called under each seed.
        items: makes the data set of an order of images.
        encoder: on its device.
        loss: of (prediction, target, step).
        config: the optimisation.
        seeds: one head each.
        num_workers: processes that read and augment.

    Raises:
        ValueError: the processes cannot share a batch evenly.
    """
    state, split_size = PartialState(), len(items([]).split)
    batch_size = min(config.batch_size, split_size)
    if batch_size % state.num_processes:
        raise ValueError(f"{state.num_processes} processes cannot share batches of {batch_size} images evenly")
    order = torch.cat(list(batch_order(split_size, batch_size, config.steps, seeds[0])))
    share = batch_size // state.num_processes
    mine = torch.arange(len(order)).view(-1, state.num_processes, share)[:, state.process_index]  # (steps, share)
    data = items(order.tolist())
    loader = DataLoader(data, batch_sampler=mine.tolist(), num_workers=num_workers)
    with torch.random.fork_rng(), deterministic_kernels():
        fits = [HeadFit(make_head, loss, config, seed, encoder.device) for seed in seeds]
        for pixel_values, targets in tqdm(loader, desc=f"heads, seeds {tuple(seeds)}", unit="step"):
            features = encoder.patch_features(pixel_values).float().clone()  # inference tensors take no gradients
            features, targets = gather((features, targets.to(encoder.device)))
            for fit in fits:
                fit.step(features, targets, lambda output, size: data.frame.resize(output))
    return [fit.head.eval() for fit in fits]
