"""What the base encoder learns from: pictures alone, their names, or (for the ablation of table 9) their depth.

`masked_images` guesses hidden patches (SimMIM, arXiv 2111.09886, with the normalised pixels of MAE, arXiv 2111.06377),
`places` tells where in the picture a patch lies (as LOCA does, arXiv 2212.02400), `attributes` which words name
something in it, `self_distillation` is DINOv2's as in `trainers.baselines`, with a teacher for the whole encoder, and
`depth` the linear depth head of `trainers.baselines`. Several of them share one pass through the encoder.
"""

import copy
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional
from transformers import DINOv3ViTModel

from modeling_spatialboost import SpatialBoostModel
from trainers.baselines.linear_decoders import DepthDecoder
from trainers.baselines.self_distillation import SelfDistillation

HIDDEN_SHARE = 0.4  # of the patches of a picture
MAX_DEPTH_M = 12.0


class Pass(NamedTuple):
    """A batch that went through the encoder.

    Attributes:
        images: (B, 3, H, W), normalised.
        targets: by objective, (B, ...).
        hidden: (B, P) bool, the patches that the encoder did not see; None = it saw all.
        whole: (B, C) class token.
        patches: (B, P, C) patch tokens after the final norm.
    """

    images: torch.Tensor
    targets: dict[str, torch.Tensor]
    hidden: torch.Tensor | None
    whole: torch.Tensor
    patches: torch.Tensor


class Pictures(nn.Module):
    """All training pictures on the device of the model, with what is known of each."""

    pixels: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, pixels: torch.Tensor, targets: dict[str, torch.Tensor], image_processor: Any) -> None:
        """Keep the data.

        Args:
            pixels: (N, 3, H, W) uint8.
            targets: by objective, (N, ...).
            image_processor: tells how the encoder wants its pixels.
        """
        super().__init__()
        self.names = [*targets]
        statistics = {"mean": image_processor.image_mean, "deviation": image_processor.image_std}
        buffers = {name: torch.tensor(value)[:, None, None] for name, value in statistics.items()}
        for name, tensor in (
            {"pixels": pixels} | buffers | {f"of_{name}": one for name, one in targets.items()}
        ).items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, items: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(B,) numbers -> normalised pixels (B, 3, H, W) and the targets; half of the pictures are mirrored."""
        images = (self.pixels[items].float() / 255 - self.mean) / self.deviation
        mirrored = torch.rand(len(items), device=images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        targets = {name: getattr(self, f"of_{name}")[items] for name in self.names}
        for name, one in targets.items():
            if one.ndim == 3:  # maps
                targets[name] = torch.where(mirrored[:, None, None], one.flip(-1), one)
        return images, targets


class Objective(nn.Module):
    """Turns a pass through the encoder into a loss."""

    hides_patches = False

    def __init__(self, encoder: DINOv3ViTModel, targets: torch.Tensor | None) -> None:
        """`targets`: of all pictures, where the objective has some."""
        super().__init__()
        self.width, self.patch_px = encoder.config.hidden_size, encoder.config.patch_size

    def forward(self, one: Pass) -> torch.Tensor:
        """The loss, a scalar."""
        raise NotImplementedError


class MaskedImages(Objective):
    """Guess the pixels of hidden patches, each patch with mean zero and deviation one, and its mean colour."""

    hides_patches = True

    def __init__(self, encoder: DINOv3ViTModel, targets: torch.Tensor | None) -> None:
        """One linear layer guesses."""
        super().__init__(encoder, targets)
        self.guess = nn.Linear(self.width, 3 * self.patch_px**2 + 3)

    def forward(self, one: Pass) -> torch.Tensor:
        """Mean squared error over hidden patches, of the pattern and of the colour."""
        blocks = functional.unfold(one.images, self.patch_px, stride=self.patch_px).mT[one.hidden]  # (M, 3 * p * p)
        truth = torch.cat(
            [functional.layer_norm(blocks, blocks.shape[-1:]), blocks.unflatten(-1, (3, -1)).mean(-1)], -1
        )
        errors = (self.guess(one.patches[one.hidden]) - truth).square()
        return errors[:, :-3].mean() + errors[:, -3:].mean()


class Places(Objective):
    """Tell where in the picture a patch lies."""

    def __init__(self, encoder: DINOv3ViTModel, targets: torch.Tensor | None) -> None:
        """One linear layer tells."""
        super().__init__(encoder, targets)
        self.place = nn.Linear(self.width, 2)

    def forward(self, one: Pass) -> torch.Tensor:
        """Mean squared error of x and y within -1..1."""
        height, width = (side // self.patch_px for side in one.images.shape[-2:])
        y, x = (torch.linspace(-1, 1, number, device=one.images.device) for number in (height, width))
        truth = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1).flatten(0, 1)  # (P, 2)
        return (self.place(one.patches) - truth).square().mean()


class Attributes(Objective):
    """Say which words name something in the picture: once from the class token, and once from the patches.

    Of the patches the one that is surest of a word speaks for the picture, so that they learn what they show.
    """

    def __init__(self, encoder: DINOv3ViTModel, targets: torch.Tensor | None) -> None:
        """One linear layer each.

        Raises:
            ValueError: there are no words.
        """
        super().__init__(encoder, targets)
        if targets is None or not targets.shape[1]:
            raise ValueError("objective='attributes': no word names something in 1 % of the pictures; pass more data.")
        self.whole, self.local = (nn.Linear(self.width, targets.shape[1]) for _ in range(2))
        nn.init.constant_(self.local.bias, -4.0)  # the maximum over 64 patches then starts near 0

    def forward(self, one: Pass) -> torch.Tensor:
        """Binary cross entropy of the class token and of the smooth maximum over patches, summed."""
        logits = torch.stack([self.whole(one.whole), self.local(one.patches).logsumexp(1)])
        truth = one.targets["attributes"].expand_as(logits)
        return 2 * functional.binary_cross_entropy_with_logits(logits, truth)


class Depth(Objective):
    """The linear depth head of the baselines: an encoder that was taught depth before (table 9)."""

    def __init__(self, encoder: DINOv3ViTModel, targets: torch.Tensor | None) -> None:
        """Depth is read off the patches."""
        super().__init__(encoder, targets)
        self.head = DepthDecoder(self.width, MAX_DEPTH_M)

    def forward(self, one: Pass) -> torch.Tensor:
        """SigLoss."""
        height, width = (side // self.patch_px for side in one.images.shape[-2:])
        features = one.patches.mT.unflatten(-1, (height, width))
        return self.head(features, torch.ones(len(features)), one.targets["depth"])


class WholeEncoderDistillation(SelfDistillation):
    """Self-distillation of an encoder without a second channel: its teacher has weights of its own."""

    def __init__(self, encoder: SpatialBoostModel) -> None:
        """`encoder`: plain (`boosted_layers=[]`)."""
        super().__init__(encoder)
        self.teacher_encoder = copy.deepcopy(encoder)
        for part in (self.teacher_encoder, self.teacher_decoder):
            part.requires_grad_(False)


class SelfDistilled(Objective):
    """DINO over crops and iBOT over hidden patches."""

    def __init__(self, encoder: DINOv3ViTModel, targets: torch.Tensor | None) -> None:
        """Student and teacher start equal."""
        super().__init__(encoder, targets)
        self.distillation = WholeEncoderDistillation(SpatialBoostModel.from_encoder(encoder, boosted_layers=[]))

    def forward(self, one: Pass) -> torch.Tensor:
        """As `SelfDistillation`, with passes of its own."""
        return self.distillation(one.images, torch.ones(len(one.images)))["loss"]


OBJECTIVES: dict[str, type[Objective]] = {
    "self_distillation": SelfDistilled,
    "masked_images": MaskedImages,
    "places": Places,
    "attributes": Attributes,
    "depth": Depth,
}


class Pretraining(nn.Module):
    """An encoder in training, with one or several objectives whose losses are added."""

    accepts_loss_kwargs = False

    def __init__(self, encoder: DINOv3ViTModel, pictures: Pictures, objectives: list[str]) -> None:
        """The encoder is trained in place; `objectives` are keys of `OBJECTIVES`."""
        super().__init__()
        self.encoder, self.pictures = encoder, pictures
        self.objectives = nn.ModuleDict(
            {name: OBJECTIVES[name](encoder, getattr(pictures, f"of_{name}", None)) for name in objectives}
        )
        self.num_prefix_tokens = 1 + encoder.config.num_register_tokens
        self.hides_patches = any(OBJECTIVES[name].hides_patches for name in objectives)

    def train(self, mode: bool = True) -> "Pretraining":
        """The encoder computes as in evaluation: DINOv3 would jitter the coordinates of its patches."""
        super().train(mode)
        self.encoder.train(False)
        return self

    def forward(self, items: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B,) numbers of pictures -> `loss`."""
        images, targets = self.pictures(items)
        number = images[0, 0].numel() // self.encoder.config.patch_size**2
        hidden = None
        if self.hides_patches:
            hidden = torch.rand(len(images), number, device=images.device).argsort(1) < HIDDEN_SHARE * number
        tokens = self.encoder(images, bool_masked_pos=hidden).last_hidden_state
        one = Pass(images, targets, hidden, tokens[:, 0], tokens[:, self.num_prefix_tokens :])
        return {"loss": torch.stack([objective(one) for objective in self.objectives.values()]).sum()}

    def update_teacher(self, progress: float) -> None:
        """Called after every step by `trainers.baselines.self_distillation.TeacherUpdate`."""
        for objective in self.objectives.values():
            if isinstance(objective, SelfDistilled):
                objective.distillation.update_teacher(progress)
