"""A boosted encoder without its base: Attn_plus and alpha alone, to be put on the original encoder again.

For encoders whose licence forbids to pass them on, and to save space. The base's weights are known by their SHA-256,
so an adapter never sits on another encoder unnoticed. The names in the file are our own, `layers.3.attn_plus.*` and
`layers.3.alpha_logit`, and tensors are hashed in the order of their modules, not by name: transformers renames modules
from version to version.
"""

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
import transformers
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel
from transformers.utils.hub import cached_file

from .dual_channel_attention import attention_modules, boosted_modules, is_second_channel, resolve_layers
from .encoder_loading import first_line, load_encoder, timm_geometry, vision_tower

WEIGHTS_FILE = "spatialboost_adapter.safetensors"  # PEFT would take adapter_model.safetensors for its own
RECORD_FILE = "spatialboost_adapter.json"


@dataclass(frozen=True)
class AdapterRecord:
    """What `spatialboost_adapter.json` tells of the base and of the second channels.

    Attributes:
        base_encoder: Hub id of the base; None where it came from a folder, whose path is nobody else's business.
        base_revision: its commit, where known.
        base_dtype: dtype of the base's weights when the adapter was saved.
        base_sha256: of the base's weights, by the dtype that they are rounded to before; see `weights_sha256`.
        model_type: of the base.
        boosted_layers: as in `SpatialBoostConfig`; null = all.
        hidden_size: of the base.
        num_parameters: numbers in the adapter.
        transformers_version: that saved it.
    """

    base_encoder: str | None
    base_revision: str | None
    base_dtype: str
    base_sha256: dict[str, str]
    model_type: str
    boosted_layers: list[int] | None
    hidden_size: int
    num_parameters: int
    transformers_version: str


class AdapterMixin:
    """`save_adapter` and `from_adapter` for the classes that hold a boosted encoder as `self.backbone`."""

    config: Any
    backbone: Any

    def save_adapter(self, folder: str | Path) -> None:
        """Write Attn_plus and alpha, and the record of their base; heads are left out. Fused channels are fine.

        Raises:
            ValueError: nothing is boosted, or the weights are not whole (quantised, sharded, offloaded).
        """
        for name, parameter in self.backbone.named_parameters():
            if parameter.is_meta or not parameter.is_floating_point() or type(parameter.data) is not torch.Tensor:
                raise ValueError(
                    f"{name!r} is quantised, sharded or offloaded, so save_adapter cannot tell what it came from: "
                    "load the model whole and unquantised first."
                )
        weights = dict(second_channel(self.backbone))
        if not weights:
            raise ValueError("boosted_layers=[]: this encoder has no second channel that save_adapter could write.")
        name, dtype = self.config.base_encoder, self.backbone.dtype
        is_hub_id = bool(re.fullmatch(r"[\w.-]+/[\w.-]+", name or "")) and not Path(name).exists()
        narrower = (torch.bfloat16, torch.float16) if dtype == torch.float32 else ()
        record = AdapterRecord(
            base_encoder=name if is_hub_id else None,
            base_revision=self.config.base_revision if is_hub_id else None,
            base_dtype=dtype_name(dtype),
            base_sha256={dtype_name(d): weights_sha256(self.backbone, d) for d in (dtype, *narrower)},
            model_type=self.config.backbone_config.model_type,
            boosted_layers=self.config.boosted_layers,
            hidden_size=self.config.hidden_size,
            num_parameters=sum(parameter.numel() for parameter in weights.values()),
            transformers_version=transformers.__version__,
        )
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {key: parameter.detach().cpu().contiguous() for key, parameter in weights.items()}
        save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / RECORD_FILE).write_text(json.dumps(dataclasses.asdict(record), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def from_adapter(
        cls,
        adapter: str | Path,
        base: str | Path | PreTrainedModel | None = None,
        revision: str | None = None,
        base_revision: str | None = None,
        dtype: torch.dtype | str = "auto",
        check_base: bool = True,
        **config_kwargs: Any,
    ) -> Self:
        """Put an adapter on its base; the result equals the full boosted model to the last bit.

        Args:
            adapter: folder or Hub id of what `save_adapter` wrote.
            base: id or folder of the encoder, or a loaded one, which is taken over and changed in place; None = the
                recorded id at the recorded revision.
            revision: of the adapter's Hub repository.
            base_revision: of the base's Hub repository.
            dtype: of the weights; "auto" = as they were when the adapter was saved. Ignored for a loaded base.
            check_base: refuse a base whose weights are not those that the adapter was trained on.
            config_kwargs: further fields of `SpatialBoostConfig`, such as `num_labels`.

        Raises:
            ValueError: no such adapter or base, or one that does not belong to the other.
        """
        record, weights = read_adapter(str(adapter), revision)
        if base is None and record.base_encoder is None:
            raise ValueError(
                f"base=None, and adapter={str(adapter)!r} records no id of its base, a {record.model_type!r} encoder "
                "from a folder: pass that encoder's folder or id."
            )
        if base is None or base == record.base_encoder:
            base, base_revision = record.base_encoder, base_revision or record.base_revision
        if isinstance(base, PreTrainedModel):
            encoder = vision_tower(base)
        else:
            encoder = load_encoder(str(base), base_revision, record.base_dtype if dtype == "auto" else dtype)
        check_fit(encoder, record, weights)
        if check_base:
            check_weights(encoder, record)
        model: Any = cls.from_encoder(encoder, record.boosted_layers, base_revision, **config_kwargs)  # type: ignore[attr-defined]
        with torch.no_grad():
            for key, parameter in second_channel(model.backbone):
                parameter.copy_(weights[key])
        return model


def second_channel(encoder: PreTrainedModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """Attn_plus and alpha of each boosted layer, by their names in an adapter."""
    for layer, attention in enumerate(attention_modules(encoder, encoder.config.model_type)):
        if hasattr(attention, "attn_plus"):
            yield f"layers.{layer}.alpha_logit", attention.alpha_logit
            for name, parameter in attention.attn_plus.named_parameters():
                yield f"layers.{layer}.attn_plus.{name}", parameter


def weights_sha256(encoder: PreTrainedModel, dtype: torch.dtype) -> str:
    """SHA-256 over the base channel's and all other frozen tensors of an encoder, boosted or not.

    Each tensor counts with its shape, its dtype and its bytes, floating ones rounded to `dtype`. So a checkpoint has
    one hash whatever wider dtype it is loaded in, and a float32 one can also be known again by its bfloat16 values.
    """
    digest = hashlib.sha256()
    for name, tensor in encoder.state_dict().items():
        if not is_second_channel(name):
            tensor = (tensor.to(dtype) if tensor.is_floating_point() else tensor).detach().cpu().contiguous()
            digest.update(f"{dtype_name(tensor.dtype)} {list(tensor.shape)}\n".encode())
            digest.update(memoryview(tensor.flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def read_adapter(name: str, revision: str | None = None) -> tuple[AdapterRecord, dict[str, torch.Tensor]]:
    """The record and the tensors of an adapter in a folder or on the Hub; nothing in it is ever unpickled.

    Raises:
        ValueError: it is not there, or not readable.
    """
    try:
        paths = [Path(str(cached_file(name, file, revision=revision))) for file in (RECORD_FILE, WEIGHTS_FILE)]
    except OSError as error:
        raise ValueError(
            f"adapter={name!r} is neither a folder nor a Hub repository with {RECORD_FILE} and {WEIGHTS_FILE}: pass "
            f"what model.save_adapter wrote ({first_line(error)})"
        ) from error
    try:
        record = AdapterRecord(**json.loads(paths[0].read_text(encoding="utf-8")))
        return record, load_file(paths[1])
    except (TypeError, ValueError, SafetensorError) as error:
        raise ValueError(
            f"adapter={name!r} is damaged, or of another version: save or download it again ({first_line(error)})"
        ) from error


def check_fit(encoder: PreTrainedModel, record: AdapterRecord, weights: dict[str, torch.Tensor]) -> None:
    """Raise ValueError unless `weights` are exactly the second channels that `encoder` would get."""
    found = encoder.config.model_type
    if found != record.model_type:
        raise ValueError(f"The adapter is for a {record.model_type!r} encoder, the base is {found!r}: pass its own.")
    if boosted_modules(encoder):
        raise ValueError("The base has a second channel already: pass the plain encoder, loaded afresh.")
    attentions = attention_modules(encoder, found)
    hidden_size = timm_geometry(encoder).get("hidden_size") or encoder.config.hidden_size
    shapes = {}
    for layer in resolve_layers(record.boosted_layers, len(attentions)):
        shapes[f"layers.{layer}.alpha_logit"] = (hidden_size,)
        for name, parameter in attentions[layer].named_parameters():
            shapes[f"layers.{layer}.attn_plus.{name}"] = tuple(parameter.shape)
    for problem, keys in (("lacks", shapes.keys() - weights.keys()), ("has", weights.keys() - shapes.keys())):
        if keys:
            surplus = ", for which this base has no place" if problem == "has" else ""
            raise ValueError(
                f"The adapter {problem} {len(keys)} tensors such as {min(keys)!r}{surplus}: it is damaged, or for an "
                f"encoder with other layers; this one has {len(attentions)} of width {hidden_size}."
            )
    for key, shape in shapes.items():
        if tuple(weights[key].shape) != shape:
            raise ValueError(
                f"{key!r} has the shape {tuple(weights[key].shape)} in the adapter and {shape} on this base of width "
                f"{hidden_size}: pass the base that it was trained on, of width {record.hidden_size}."
            )


def check_weights(encoder: PreTrainedModel, record: AdapterRecord) -> None:
    """Raise ValueError unless `encoder` holds the weights that the adapter was trained on.

    They are compared in the dtype of the two that both were rounded to; a float32 one can be rounded to the other's.
    """
    found = dtype_name(encoder.dtype)
    compared = record.base_dtype if found == "float32" else found
    if compared not in record.base_sha256:
        raise ValueError(
            f"The base is in {found}, the adapter's was in {record.base_dtype}, and neither follows from the other: "
            f"load the base in {record.base_dtype}, or pass check_base=False."
        )
    expected, actual = record.base_sha256[compared], weights_sha256(encoder, getattr(torch, compared))
    if actual != expected:
        origin = record.base_encoder or f"a {record.model_type} encoder from a folder"
        revision = f" at revision {record.base_revision}" if record.base_revision else ""
        raise ValueError(
            f"The base's weights are not those that the adapter was trained on: their SHA-256 in {compared} is "
            f"{actual}, the adapter's {expected}. Pass {origin}{revision} as base, or check_base=False if you know "
            f"why they differ (the adapter was saved with transformers {record.transformers_version})."
        )


def dtype_name(dtype: torch.dtype) -> str:
    """Such as "bfloat16"."""
    return str(dtype).removeprefix("torch.")
