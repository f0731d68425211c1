"""Outputs of the frozen encoder, computed once and kept on disk, for stages 1 and 2 (`--cache-features`)."""

import copy
import hashlib
import json
import logging
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from datasets import Dataset, Features, Image, List, Value
from torch.utils.data import DataLoader
from tqdm import tqdm
from transformers.image_utils import make_flat_list_of_images

from modeling_spatialboost import SpatialBoostForConditionalGeneration, SpatialBoostProcessor
from trainers.config import TrainingConfig
from trainers.feature_shards import FeatureCache
from trainers.models import ModelAndProcessor

logger = logging.getLogger(__name__)
SHARD_BYTES = 256 * 2**20  # what a kill loses at most, and what is held in memory before it is written
ENCODER_BATCH = 32  # images
INCIDENTAL = {"_name_or_path", "dtype", "transformers_version", "architectures", "id2label", "label2id", "auto_map"}


class CachedFeatureProcessor(SpatialBoostProcessor):
    """The processor of the model, given (N, C) features in the place of images."""

    def _process_images(self, images: Any, **kwargs: Any) -> tuple[dict[str, torch.Tensor], list[str]]:
        features = torch.stack(make_flat_list_of_images(images))  # (num_images, N, C)
        size = self.image_processor.size
        tokens = self.image_token * self.num_image_tokens(size["height"], size["width"])
        return {"vision_features": features}, [tokens] * len(features)


class CachedFeatureCollator:
    """A collator whose examples hold, in `images`, numbers of a `FeatureCache`."""

    def __init__(self, collator: Any, features: FeatureCache) -> None:
        """`collator` is TRL's for vision-language data; it goes on doing all else."""
        self.collator, self.features = copy.copy(collator), features
        full = collator.processor
        self.collator.processor = CachedFeatureProcessor(
            full.image_processor,
            full.tokenizer,
            full.patch_size,
            full.num_prefix_tokens,
            full.chat_template,
            full.projector_shuffle,
        )

    def __call__(self, examples: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """A batch with `vision_features` (num_images, N, C) in the place of `pixel_values`."""
        return self.collator([row | {"images": [self.features[n] for n in row["images"]]} for row in examples])


def cache_features(
    root: str, dataset: Dataset, parts: ModelAndProcessor, training: TrainingConfig
) -> tuple[Dataset, FeatureCache]:
    """Compute the features that are not there yet; each process of a distributed run computes its share.

    Args:
        root: folder of all caches.
        dataset: with the columns `images` and `messages`.
        parts: model, its stage applied, and processor.
        training: device, precision and workers.

    Returns:
        The data set, numbers in the place of its images, and the features behind the numbers.

    Raises:
        ValueError: the encoder trains or is split, or the folder cannot hold the features.
    """
    model, processor = parts
    if any(parameter.requires_grad for parameter in model.vision_tower.parameters()):
        raise ValueError(f"cache_features={root!r}: the encoder trains here, so its outputs change: remove it.")
    if any(hasattr(parameter, "ds_id") for parameter in model.vision_tower.parameters()):
        raise ValueError(f"cache_features={root!r}: ZeRO-3 splits the encoder over processes: use ZeRO-2 or FSDP.")
    with training.main_process_first(desc="hashing the images"):
        hashes = image_hashes(dataset, training.dataset_num_proc)
    places: dict[bytes, tuple[int, int]] = {}  # row and place in the row of every image, where it comes first
    for row, digests in enumerate(hashes):
        for index, digest in enumerate(digests):
            places.setdefault(digest, (row, index))
    unique = list(places)
    key = cache_key(model, processor, storage_dtype(model, training))
    cache = FeatureCache(root, key, unique)
    missing = len(cache.missing())
    _compute(cache, [places[digest] for digest in unique], dataset, parts, training)
    training.distributed_state.wait_for_everyone()
    if missing:
        cache = FeatureCache(root, key, unique)
    if absent := cache.missing():
        raise ValueError(
            f"cache_features={root!r} lacks {len(absent)} of {len(unique)} images although all processes have "
            "computed their share: name a folder that all machines share."
        )
    logger.info(f"Features of {len(unique)} images in {cache.folder}: {missing} computed")
    numbers = {digest: number for number, digest in enumerate(unique)}
    images = [[numbers[digest] for digest in digests] for digests in hashes]
    return dataset.remove_columns("images").add_column("images", images, feature=List(Value("int64"))), cache


def storage_dtype(model: SpatialBoostForConditionalGeneration, training: TrainingConfig) -> torch.dtype:
    """The format in which the projector's first product reads its input: nothing is lost by storing that."""
    if training.bf16 or training.fp16:
        return torch.bfloat16 if training.bf16 else torch.float16
    return model.model.multi_modal_projector.linear_1.weight.dtype


def cache_key(
    model: SpatialBoostForConditionalGeneration, processor: SpatialBoostProcessor, dtype: torch.dtype
) -> str:
    """SHA-256 of all that the features follow from, but the images: the encoder's weights, settings, preprocessing."""
    tower, config = model.vision_tower, model.config
    weights = hashlib.sha256()
    for name, tensor in sorted(tower.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        weights.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    image_processor = processor.image_processor
    parts = {
        "weights": weights.hexdigest(),
        "encoder": _settings(config.vision_config.backbone_config.to_dict()),
        "tokens": [config.vision_feature_layer, config.use_cls_token],
        "preprocessing": _settings(image_processor.to_dict()),
        "backend": [cls.__name__ for cls in type(image_processor).__mro__],  # torchvision and PIL resize differently
        "dtype": str(dtype),
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def image_hashes(dataset: Dataset, num_proc: int | None = None) -> list[list[bytes]]:
    """SHA-256 of the image files of every row; `datasets` keeps them, so that files are read once."""
    raw = dataset.select_columns(["images"]).with_format("arrow")
    hashed = raw.map(
        _hash_batch,
        batched=True,
        batch_size=64,
        remove_columns=["images"],
        features=Features({"hashes": List(Value("binary"))}),
        num_proc=num_proc,
        desc="Hashing the images",
    )
    return hashed.with_format(None)["hashes"][:]


def _hash_batch(batch: pa.Table) -> dict[str, list[list[bytes]]]:
    rows = batch["images"].to_pylist()
    return {"hashes": [[hashlib.sha256(_file_bytes(image)).digest() for image in row] for row in rows]}


def _file_bytes(image: dict[str, Any]) -> bytes:
    return image["bytes"] if image["bytes"] is not None else Path(image["path"]).read_bytes()


@torch.no_grad()
def _compute(
    cache: FeatureCache,
    places: list[tuple[int, int]],
    dataset: Dataset,
    parts: ModelAndProcessor,
    training: TrainingConfig,
) -> None:
    """Write what is missing of this process's share; `places` holds row and place in the row of every image.

    Shares follow from the images alone: processes may find different shards, others may be writing there too.
    """
    model, processor = parts
    dtype, home = storage_dtype(model, training), model.vision_tower.device
    size, (patch_height, patch_width) = processor.image_processor.size, processor.patch_size
    num_tokens = (size["height"] // patch_height) * (size["width"] // patch_width) + model.config.use_cls_token
    bytes_per_image = num_tokens * model.config.vision_config.hidden_size * dtype.itemsize
    per_shard = max(1, SHARD_BYTES // bytes_per_image)
    missing = set(cache.missing())
    shares = [range(start, min(start + per_shard, len(places))) for start in range(0, len(places), per_shard)]
    chunks = [[n for n in share if n in missing] for share in shares[training.process_index :: training.world_size]]
    if not any(chunks):
        return
    cache.reserve(len(missing) * bytes_per_image)
    model.vision_tower.to(training.device)
    quiet = training.disable_tqdm or training.process_index > 0
    progress = tqdm(total=sum(map(len, chunks)), desc="Caching features", unit="image", disable=quiet)
    for chunk in filter(None, chunks):
        features = []
        wanted = [places[number] for number in chunk]
        for pixel_values in _pixel_batches(dataset, wanted, processor, training.dataloader_num_workers):
            with torch.autocast(training.device.type, dtype, enabled=training.bf16 or training.fp16):
                batch = model.model.vision_features(pixel_values.to(training.device))  # (B, N, C)
            features.append(batch.to("cpu", dtype))
            progress.update(len(batch))
        cache.write(chunk, torch.cat(features))
    progress.close()
    model.vision_tower.to(home)


def _pixel_batches(
    dataset: Dataset, places: list[tuple[int, int]], processor: SpatialBoostProcessor, num_workers: int
) -> DataLoader:
    """Batches of pixel values (B, 3, H, W) of the images at `places`."""
    raw = dataset.select_columns(["images"]).with_format("arrow")
    decode = partial(_pixel_values, raw, processor)
    own = torch.Generator()  # a data loader draws from its generator; the run's stays as it is
    return DataLoader(
        places,  # type: ignore[arg-type]
        ENCODER_BATCH,
        num_workers=num_workers,
        collate_fn=decode,
        generator=own,
    )


def _pixel_values(raw: Dataset, processor: SpatialBoostProcessor, places: list[tuple[int, int]]) -> torch.Tensor:
    images = [Image().decode_example(raw[row]["images"][0][index].as_py()) for row, index in places]
    return processor.image_processor(images, return_tensors="pt")["pixel_values"]


def _settings(config: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in INCIDENTAL}
