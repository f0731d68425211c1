"""Loading of perception models by id or folder, and the batches they are asked for."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from dataset_builders.perception import PerceptionOptions, split_revision
from dataset_builders.scene import InputError

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
UNTRAINED_ANYWAY = ("mask_token",)  # weights that inference never reads and some checkpoints leave out

# model_type -> names of the classes in transformers of the model and of what prepares its inputs
Architectures = Mapping[str, tuple[str, str]]


@dataclass(frozen=True)
class LoadedModel:
    """A model in evaluation mode on its device, with the processor of its inputs and outputs."""

    model: Any
    processor: Any
    architecture: str  # its model_type
    device: torch.device
    dtype: torch.dtype

    def prepare(self, images: Sequence[np.ndarray], **prompts: Any) -> Any:
        """The processor's inputs for the model; the pixels are resized and normalised on the model's own device."""
        pixels = [torch.from_numpy(np.array(image)).permute(2, 0, 1) for image in images]  # (3, H, W)
        inputs = self.processor(
            images=[one.to(self.device) for one in pixels],
            input_data_format="channels_first",
            return_tensors="pt",
            **prompts,
        ).to(self.device)
        inputs["pixel_values"] = inputs["pixel_values"].to(self.dtype)  # coordinates of prompts stay exact
        return inputs


def load(kind: str, name: str, options: PerceptionOptions, architectures: Architectures) -> LoadedModel:
    """Load a model and its processor by id ("org/name@revision") or folder.

    Args:
        kind: what the model is for, as in `PerceptionOptions`; named in errors.
        name: id or folder.
        options: device and dtype.
        architectures: which are understood.

    Raises:
        InputError: not found, not reachable, gated, damaged, incomplete or of another architecture.
    """
    import transformers

    transformers.utils.logging.disable_progress_bar()  # a build has its own, and loads models again and again
    device = choose_device(options.device)
    dtype = choose_dtype(options.dtype, device)
    identifier, revision = split_revision(name)
    try:
        architecture = transformers.AutoConfig.from_pretrained(identifier, revision=revision).model_type
        if architecture not in architectures:
            raise InputError(_not_understood(kind, name, architecture, architectures))
        model_class, processor_class = (getattr(transformers, one) for one in architectures[architecture])
        processor = processor_class.from_pretrained(identifier, revision=revision)
        model, report = model_class.from_pretrained(
            identifier, revision=revision, dtype=dtype, output_loading_info=True
        )
    except InputError:
        raise
    except Exception as error:  # whatever the libraries raise over a folder or an id, it is the user's to mend
        raise InputError(f"{kind} model {name!r} cannot be loaded: {_reason(identifier, error)}") from error
    missing = [key for key in report["missing_keys"] if not key.endswith(UNTRAINED_ANYWAY)]
    if missing:
        raise InputError(
            f"{kind} model {name!r} lacks {len(missing)} weights of a {type(model).__name__} (the first is "
            f"{sorted(missing)[0]}); pass a checkpoint of the whole model."
        )
    return LoadedModel(model.to(device).eval(), processor, architecture, device, dtype)


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one.

    Raises:
        InputError: no such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in ("cpu", "cuda"):
        raise InputError(f"--device {name!r} is unknown; pass auto, cpu, cuda or cuda:1.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"--device {name!r} is not here ({torch.cuda.device_count()} GPUs); pass auto or cpu.")
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype of that name; "auto" is bfloat16 on a GPU and float32 on a CPU.

    Raises:
        InputError: no such dtype.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise InputError(f"--dtype {name!r} is unknown; pass auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def batches(images: Sequence[np.ndarray], batch_size: int, *, equal_shape: bool) -> Iterator[list[int]]:
    """Indices of at most `batch_size` images at a time, in order; each index comes once.

    Args:
        images: (H, W, 3) each.
        batch_size: at most so many a batch.
        equal_shape: of models that keep the aspect ratio: padding one image to the shape of another would make its
            result depend on its neighbours, so that only images of one shape share a batch.
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for index, image in enumerate(images):
        groups.setdefault(image.shape if equal_shape else (), []).append(index)
    for group in groups.values():
        for start in range(0, len(group), batch_size):
            yield group[start : start + batch_size]


def sizes_of(images: Sequence[np.ndarray]) -> list[tuple[int, int]]:
    """(H, W) of each image."""
    return [(image.shape[0], image.shape[1]) for image in images]


def as_float32(outputs: Any) -> Any:
    """The outputs of a model with its floating-point tensors in float32, before lengths are computed from them."""
    for key, value in outputs.items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            outputs[key] = value.float()
    return outputs


def _not_understood(kind: str, name: str, architecture: str, architectures: Architectures) -> str:
    supported = ", ".join(sorted(architectures))
    return f"{kind} model {name!r} is of architecture {architecture!r}; pass one of {supported}."


def _reason(identifier: str, error: BaseException) -> str:
    """What went wrong, in words that say what to do."""
    from huggingface_hub import errors

    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)

    def caused_by(*kinds: type[BaseException]) -> bool:
        return any(isinstance(one, kinds) for one in causes)

    if caused_by(errors.GatedRepoError):
        return f"it is gated: accept its licence at https://huggingface.co/{identifier} and set HF_TOKEN."
    if caused_by(errors.RevisionNotFoundError):
        return "there is no such revision; see the branches and tags on its page."
    if caused_by(errors.RepositoryNotFoundError):
        return "it is neither a folder nor an id on the Hub; set HF_TOKEN if it is private."
    if caused_by(errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled, ConnectionError):
        return "it is no folder and the Hub cannot be reached; connect, or download it once and pass its folder."
    if caused_by(errors.HFValidationError):
        return "it is neither a folder that exists nor an id of the form org/name."
    first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return f"{first_line.rstrip('.')}; pass a folder written by save_pretrained or an id."
