"""What the base encoder learns from: pictures alone, their names, or (for the ablation of table 9) their depth.

Each objective is a module around the encoder that turns numbers of pictures into a loss. `masked_images` guesses
hidden patches (SimMIM, arXiv 2111.09886, with the normalised pixels of MAE, arXiv 2111.06377), `self_distillation` is
DINOv2's as in `trainers.baselines`, with a teacher for the whole encoder, `attributes` says which words name something
in the picture, and `depth` is the linear depth head of `trainers.baselines`.
"""

import copy
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import DINOv3ViTModel

from modeling_spatialboost import SpatialBoostModel
from trainers.baselines.linear_decoders import DepthDecoder
from trainers.baselines.self_distillation import SelfDistillation

HIDDEN_SHARE = 0.5  # of the patches of a picture
MAX_DEPTH_M = 12.0


class Pictures(nn.Module):
    """All training pictures on the device of the model, with what is known of each.

    Attributes:
        pixels: (N, 3, H, W) uint8.
        targets: (N, ...), of the objective; empty where it needs none.
    """

    pixels: torch.Tensor
    targets: torch.Tensor
    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, pixels: torch.Tensor, targets: torch.Tensor | None, image_processor: Any) -> None:
        """`image_processor` tells how the encoder wants its pixels."""
        super().__init__()
        self.register_buffer("pixels", pixels, persistent=False)
        self.register_buffer("targets", targets if targets is not None else torch.empty(len(pixels)), persistent=False)
        for name, value in (("mean", image_processor.image_mean), ("deviation", image_processor.image_std)):
            self.register_buffer(name, torch.tensor(value)[:, None, None], persistent=False)

    def forward(self, items: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) numbers -> normalised pixels (B, 3, H, W) and the targets; half of the pictures are mirrored."""
        images = (self.pixels[items].float() / 255 - self.mean) / self.deviation
        targets = self.targets[items]
        mirrored = torch.rand(len(items), device=images.device) < 0.5
        images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        if targets.ndim == 3:  # maps
            targets = torch.where(mirrored[:, None, None], targets.flip(-1), targets)
        return images, targets


class Objective(nn.Module):
    """An encoder in training."""

    accepts_loss_kwargs = False

    def __init__(self, encoder: DINOv3ViTModel, pictures: Pictures) -> None:
        """The encoder is trained in place."""
        super().__init__()
        self.encoder, self.pictures = encoder, pictures
        self.width, self.patch_px = encoder.config.hidden_size, encoder.config.patch_size
        self.num_prefix_tokens = 1 + encoder.config.num_register_tokens

    def train(self, mode: bool = True) -> "Objective":
        """The encoder computes as in evaluation: DINOv3 would jitter the coordinates of its patches."""
        super().train(mode)
        self.encoder.train(False)
        return self

    def patches(self, images: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        """(B, 3, H, W) -> (B, h * w, C) after the final norm; hidden patches (B, h * w) are mask tokens."""
        return self.encoder(images, bool_masked_pos=hidden).last_hidden_state[:, self.num_prefix_tokens :]

    def forward(self, items: torch.Tensor) -> dict[str, torch.Tensor]:
        """(B,) numbers of pictures -> `loss`."""
        return {"loss": self.loss(*self.pictures(items))}

    def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Of a batch of normalised pictures."""
        raise NotImplementedError


class MaskedImages(Objective):
    """Guess the pixels of hidden patches, each patch with mean zero and deviation one, and its mean colour."""

    def __init__(self, encoder: DINOv3ViTModel, pictures: Pictures) -> None:
        """One linear layer guesses."""
        super().__init__(encoder, pictures)
        self.guess = nn.Linear(self.width, 3 * self.patch_px**2 + 3)

    def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean squared error over hidden patches."""
        blocks = functional.unfold(images, self.patch_px, stride=self.patch_px).mT  # (B, h * w, 3 * p * p)
        colour = blocks.unflatten(-1, (3, -1)).mean(-1)
        normed = functional.layer_norm(blocks, blocks.shape[-1:])
        hidden = torch.rand(blocks.shape[:2], device=images.device).argsort(1) < HIDDEN_SHARE * blocks.shape[1]
        guessed = self.guess(self.patches(images, hidden))[hidden]
        return functional.mse_loss(guessed[:, :-3], normed[hidden]) + functional.mse_loss(
            guessed[:, -3:], colour[hidden]
        )


class Attributes(Objective):
    """Say which words name something in the picture: once from the class token, and once from the patches.

    Of the patches the one that is surest of a word speaks for the picture, so that they learn what they show.
    """

    def __init__(self, encoder: DINOv3ViTModel, pictures: Pictures) -> None:
        """One linear layer each.

        Raises:
            ValueError: there are no words.
        """
        super().__init__(encoder, pictures)
        if not pictures.targets.shape[1]:
            raise ValueError("objective='attributes': no word names something in 1 % of the pictures; pass more data.")
        self.whole, self.local = (nn.Linear(self.width, pictures.targets.shape[1]) for _ in range(2))
        nn.init.constant_(self.local.bias, -4.0)  # the maximum over 64 patches then starts near 0

    def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean binary cross entropy of the class token and of the smooth maximum over patches."""
        tokens = self.encoder(images).last_hidden_state
        logits = torch.stack([self.whole(tokens[:, 0]), self.local(tokens[:, self.num_prefix_tokens :]).logsumexp(1)])
        return functional.binary_cross_entropy_with_logits(logits, targets.expand_as(logits))


class Depth(Objective):
    """The linear depth head of the baselines: an encoder that was taught depth before (table 9)."""

    def __init__(self, encoder: DINOv3ViTModel, pictures: Pictures) -> None:
        """Depth is read off the patches."""
        super().__init__(encoder, pictures)
        self.head = DepthDecoder(self.width, MAX_DEPTH_M)

    def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """SigLoss."""
        grid = tuple(side // self.patch_px for side in images.shape[-2:])
        features = self.patches(images).mT.unflatten(-1, grid)
        return self.head(features, torch.ones(len(images)), targets)


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

    def __init__(self, encoder: DINOv3ViTModel, pictures: Pictures) -> None:
        """Student and teacher start equal."""
        super().__init__(encoder, pictures)
        self.distillation = WholeEncoderDistillation(SpatialBoostModel.from_encoder(encoder, boosted_layers=[]))

    def loss(self, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """As `SelfDistillation`."""
        return self.distillation(images, torch.ones(len(images)))["loss"]

    def update_teacher(self, progress: float) -> None:
        """Called after every step by `trainers.baselines.self_distillation.TeacherUpdate`."""
        self.distillation.update_teacher(progress)


OBJECTIVES: dict[str, type[Objective]] = {
    "self_distillation": SelfDistilled,
    "masked_images": MaskedImages,
    "attributes": Attributes,
    "depth": Depth,
}
