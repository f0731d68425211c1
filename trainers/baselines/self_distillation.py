"""The encoder's own kind of pre-training, through the second channel: DINOv2's self-distillation, in small.

A student, the boosted encoder, learns to say of crops and of hidden patches what a teacher, the moving average of the
student, says of the whole: DINO's loss on the image token over crops (arXiv 2104.14294) and iBOT's on hidden patches
(arXiv 2111.07832), as joined in DINOv2 (arXiv 2304.07193). The base channel is one set of frozen weights in both.
"""

import copy
import inspect
import math
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from transformers import TrainerCallback, TrainerControl, TrainerState

from modeling_spatialboost import SpatialBoostModel
from modeling_spatialboost.dual_channel_attention import is_second_channel
from modeling_spatialboost.patch_tokens import as_pair

HIDDEN, BOTTLENECK, NUM_PROTOTYPES = 2048, 256, 8192  # DINOv2 has 65,536 to 131,072 prototypes
STUDENT_TEMPERATURE, TEACHER_TEMPERATURE = 0.1, 0.04
CENTRE_MOMENTUM, TEACHER_MOMENTUM = 0.9, 0.992
GLOBAL_SCALE, LOCAL_SCALE = (0.32, 1.0), (0.05, 0.32)  # shares of the image's area
NUM_LOCAL_CROPS = 8
HIDDEN_SHARE = (0.1, 0.5)  # of the patches of a crop, for every other crop


class ProjectionHead(nn.Module):
    """DINO's head: three layers, then cosine similarity to prototypes."""

    def __init__(self, channels: int) -> None:
        """`channels`: C of the tokens."""
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, BOTTLENECK)
        )
        self.prototypes = nn.Parameter(torch.randn(NUM_PROTOTYPES, BOTTLENECK))
        for layer in self.layers[::2]:
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """(..., C) -> (..., K) cosine similarities, float32."""
        directions = functional.normalize(self.layers(tokens).float(), dim=-1)
        return functional.linear(directions, functional.normalize(self.prototypes, dim=-1)).float()


class SelfDistillation(nn.Module):
    """Student and teacher with their heads; the loss of a batch of images."""

    accepts_loss_kwargs = False
    image_centre: torch.Tensor
    patch_centre: torch.Tensor

    def __init__(self, encoder: SpatialBoostModel) -> None:
        """`encoder`: boosted; the teacher shares its frozen weights and starts as its copy."""
        super().__init__()
        self.encoder = encoder
        assert encoder.config.hidden_size is not None  # read off the encoder when it was loaded
        self.decoder = ProjectionHead(encoder.config.hidden_size)
        shared = {id(p): p for name, p in encoder.named_parameters() if not is_second_channel(name)}
        self.teacher_encoder = copy.deepcopy(encoder, shared)
        self.teacher_decoder = copy.deepcopy(self.decoder)
        for name in ("image_centre", "patch_centre"):
            self.register_buffer(name, torch.zeros(NUM_PROTOTYPES))
        embeddings = getattr(encoder.backbone, "embeddings", None)
        takes_mask = "bool_masked_pos" in inspect.signature(encoder.backbone.forward).parameters
        self.has_mask_token = takes_mask and getattr(embeddings, "mask_token", None) is not None

    def forward(self, pixel_values: torch.Tensor, view_counts: torch.Tensor) -> dict[str, torch.Tensor]:
        """(V, 3, H, W) images -> `loss`: DINO's over all pairs of crops plus iBOT's over hidden patches."""
        number = len(pixel_values)
        size = tuple(pixel_values.shape[-2:])
        whole = torch.cat([random_crops(pixel_values, GLOBAL_SCALE, size) for _ in range(2)])  # (2 V, 3, H, W)
        hidden = draw_hidden_patches(2 * number, self.encoder.patch_grid(whole), whole.device)  # (2 V, h * w)
        with torch.no_grad():
            image, patches = self._tokens(self.teacher_encoder, whole)
            image_logits = self.teacher_decoder(image)  # (2 V, K)
            patch_logits = self.teacher_decoder(patches[hidden])  # (M, K)
            image_truth = self._probabilities(image_logits, self.image_centre).unflatten(0, (2, number))
            patch_truth = self._probabilities(patch_logits, self.patch_centre)
        image, patches = self._tokens(self.encoder, whole, hidden)
        crops = [*self.decoder(image).unflatten(0, (2, number))]  # of (V, K) each
        for _ in range(NUM_LOCAL_CROPS):
            local = random_crops(pixel_values, LOCAL_SCALE, self._local_size(size))
            crops.append(self.decoder(self._tokens(self.encoder, local)[0]))
        pairs = [(truth, crop) for t, truth in enumerate(image_truth) for s, crop in enumerate(crops) if s != t]
        image_loss = torch.stack([divergence(truth, crop).mean() for truth, crop in pairs]).mean()
        patch_loss = divergence(patch_truth, self.decoder(patches[hidden])).mean()
        if self.training:
            self._move_centre(self.image_centre, image_logits)
            self._move_centre(self.patch_centre, patch_logits)
        return {"loss": image_loss + patch_loss}

    def activation_checkpointing_enable(self, **kwargs: Any) -> None:
        """Recompute the student's layers in the backward pass."""
        self.encoder.activation_checkpointing_enable(**kwargs)

    def gradient_checkpointing_enable(self, **kwargs: Any) -> None:
        """The same, as older versions of transformers call it."""
        self.encoder.gradient_checkpointing_enable(**kwargs)

    @torch.no_grad()
    def update_teacher(self, progress: float) -> None:
        """Move the teacher towards the student: momentum 0.992, on a cosine to 1 at `progress` = 1."""
        momentum = 1 - (1 - TEACHER_MOMENTUM) * (1 + math.cos(math.pi * progress)) / 2
        for ours, theirs in ((self.teacher_encoder, self.encoder), (self.teacher_decoder, self.decoder)):
            for own, new in zip(ours.parameters(), theirs.parameters()):
                if own is not new:
                    own.lerp_(new, 1 - momentum)

    def _tokens(
        self, encoder: SpatialBoostModel, images: torch.Tensor, hidden: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Image token (V, C), the mean of the patches where the encoder has none, and patch tokens (V, h * w, C).

        Hidden patches are the encoder's mask token, or grey pixels where it was not trained with one.
        """
        kwargs: dict[str, Any] = {}
        if hidden is not None and self.has_mask_token:
            kwargs["bool_masked_pos"] = hidden
        elif hidden is not None:
            grid = hidden.unflatten(1, encoder.patch_grid(images))[:, None].float()
            images = images * (1 - functional.interpolate(grid, images.shape[-2:]))
        features, outputs = encoder.patch_features(images, **kwargs)
        patches = features.flatten(2).mT
        tokens = outputs.last_hidden_state
        if tokens.shape[1] == patches.shape[1]:
            return patches.mean(1), patches
        return (tokens if encoder.normalised else encoder.final_norm(tokens))[:, 0], patches

    def _local_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """3/7 of the whole (96 of 224 px) in whole patches; the whole where the encoder takes one size only."""
        if not self.encoder.any_size:
            return size
        assert self.encoder.config.patch_size is not None
        patches = as_pair(self.encoder.config.patch_size)
        return tuple(max(1, round(side * 3 / 7 / patch)) * patch for side, patch in zip(size, patches))

    @staticmethod
    def _probabilities(logits: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
        return ((logits - centre) / TEACHER_TEMPERATURE).softmax(-1)

    @torch.no_grad()
    def _move_centre(self, centre: torch.Tensor, logits: torch.Tensor) -> None:
        """Follow the mean over all processes, so that no prototype takes everything."""
        total = torch.cat([logits.sum(0), logits.new_tensor([len(logits)])])
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(total)
        if total[-1] > 0:
            centre.lerp_(total[:-1] / total[-1], 1 - CENTRE_MOMENTUM)


class TeacherUpdate(TrainerCallback):
    """Moves the teacher after every step of the optimizer."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Called by the trainer."""
        kwargs["model"].update_teacher(state.global_step / max(1, state.max_steps))


def random_crops(images: torch.Tensor, scale: tuple[float, float], size: tuple[int, ...]) -> torch.Tensor:
    """(V, 3, H, W) -> (V, 3, *size): of every image one crop, maybe mirrored, with other brightness and contrast.

    The crop has `scale` of the image's area and an aspect of 3/4 to 4/3. All draws are torch's, on the images' device,
    so that a resumed run repeats them.
    """
    draws = torch.rand(7, len(images), device=images.device)
    area = scale[0] + (scale[1] - scale[0]) * draws[0]
    aspect = torch.exp(math.log(4 / 3) * (2 * draws[1] - 1))
    width, height = (area * aspect).sqrt().clamp(max=1), (area / aspect).sqrt().clamp(max=1)
    mirrored = torch.where(draws[2] < 0.5, -1.0, 1.0)
    transform = torch.zeros(len(images), 2, 3, device=images.device)  # from the crop's to the image's -1..1
    transform[:, 0, 0], transform[:, 1, 1] = width * mirrored, height
    transform[:, 0, 2], transform[:, 1, 2] = (1 - width) * (2 * draws[3] - 1), (1 - height) * (2 * draws[4] - 1)
    places = functional.affine_grid(transform, [len(images), 3, *size], align_corners=False)
    crops = functional.grid_sample(images.float(), places, padding_mode="border", align_corners=False)
    contrast, brightness = 0.6 + 0.8 * draws[5], 0.8 * draws[6] - 0.4  # pixels are normalised to deviations of one
    return crops * contrast[:, None, None, None] + brightness[:, None, None, None]


def draw_hidden_patches(number: int, grid: tuple[int, int], device: torch.device) -> torch.Tensor:
    """(number, h * w) bool: in every other image a random share of the patches, in clumps."""
    height, width = grid
    coarse = torch.rand(number, 1, -(-height // 2), -(-width // 2), device=device)
    noise = functional.interpolate(coarse, grid, mode="bilinear").flatten(1)
    share = HIDDEN_SHARE[0] + (HIDDEN_SHARE[1] - HIDDEN_SHARE[0]) * torch.rand(number, 1, device=device)
    counts = (share * height * width).round().clamp(min=1)
    counts[1::2] = 0
    return noise.argsort(1).argsort(1) < counts


def divergence(truth: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
    """KL divergence (...,) of the student's answers from the teacher's, (..., K) each.

    It has the gradients of DINO's cross entropy; that one also counts the teacher's own entropy, which drifts, so that
    its value would not tell whether the student learns.
    """
    answers = (logits / STUDENT_TEMPERATURE).log_softmax(-1)
    return functional.kl_div(answers, truth, reduction="none").sum(-1)
