"""A causal language model that reads a scene: fused features through a linear projector into its embeddings."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from tqdm import tqdm
from transformers import AutoModelForCausalLM, AutoTokenizer, get_cosine_with_min_lr_schedule_with_warmup

from evaluators.heads import deterministic_kernels
from evaluators.scenes.language_config import ReaderConfig
from evaluators.scenes.scene_tokens import Tokens

GRADIENT_CLIP = 1.0
IGNORED_LABEL = -100


class SceneReader(nn.Module):
    """A language model with a projector for scene tokens.

    The projector is linear behind a layer norm, places have a linear layer of their own; both start at the scale of
    the model's embeddings. The model is frozen but for LoRA, if there is any.
    """

    def __init__(self, config: ReaderConfig, channels: int, place_size: int, dtype: torch.dtype) -> None:
        """Load the language model and make the projector."""
        super().__init__()
        name = config.language_model
        self.tokenizer: Any = AutoTokenizer.from_pretrained(name)
        language_model: Any = AutoModelForCausalLM.from_pretrained(name, dtype=dtype).requires_grad_(False).eval()
        if config.lora_rank:
            from peft import LoraConfig, get_peft_model

            adapter = LoraConfig(r=config.lora_rank, lora_alpha=2 * config.lora_rank, target_modules="all-linear")
            language_model = get_peft_model(language_model, adapter)
        self.language_model = language_model
        embeddings = language_model.get_input_embeddings()
        scale = float(embeddings.weight.float().std())
        width = embeddings.weight.shape[1]
        self.norm = nn.LayerNorm(channels)
        self.projector, self.place = nn.Linear(channels, width), nn.Linear(place_size, width)
        self.score = nn.Linear(width, 1)  # of an object
        for layer in (self.projector, self.place):
            nn.init.normal_(layer.weight, std=scale / layer.in_features**0.5)
            nn.init.zeros_(layer.bias)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.projector.weight.device

    @property
    def end(self) -> list[int]:
        """The token behind an answer."""
        return [] if self.tokenizer.eos_token_id is None else [self.tokenizer.eos_token_id]

    def trained_parameters(self) -> list[nn.Parameter]:
        """What the optimiser changes."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def scene(self, tokens: Tokens) -> torch.Tensor:
        """(T, D) embeddings of a scene's tokens, in the model's dtype."""
        features, places = tokens.features.to(self.device), tokens.places.to(self.device)
        return (self.projector(self.norm(features)) + self.place(places)).to(self.language_model.dtype)

    def text(self, text: str, begins: bool = False, end: bool = False) -> tuple[torch.Tensor, list[int]]:
        """(L, D) embeddings of a text and its L token ids; `begins` and `end` add the special tokens there."""
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) + (self.end if end else [])
        if begins and self.tokenizer.bos_token_id is not None:
            ids = [self.tokenizer.bos_token_id, *ids]
        embedded = self.language_model.get_input_embeddings()(torch.tensor(ids, dtype=torch.long, device=self.device))
        return embedded, ids


def pad(sequences: Sequence[torch.Tensor], left: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    """Stack (L_i, ...) sequences of one dtype to (B, L, ...), zeros behind (or before); and the (B, L) mask."""
    longest = max(len(one) for one in sequences)
    shape = (len(sequences), longest, *sequences[0].shape[1:])
    padded = sequences[0].new_zeros(shape)
    mask = torch.zeros(shape[:2], dtype=torch.long, device=padded.device)
    for row, one in enumerate(sequences):
        place = slice(longest - len(one), longest) if left else slice(0, len(one))
        padded[row, place], mask[row, place] = one, 1
    return padded, mask


def train_reader(
    make_reader: Callable[[], SceneReader],
    loss: Callable[[SceneReader, list[int], torch.Generator], torch.Tensor],
    num_items: int,
    config: ReaderConfig,
    seed: int,
    device: torch.device,
) -> Iterator[SceneReader]:
    """Train under a seed; yield the reader after every epoch, in eval mode.

    Args:
        make_reader: called under the seed.
        loss: of the reader, the places of the batch's items and a generator for whatever is drawn.
        num_items: of the training split.
        config: the optimisation.
        seed: decides the first weights, the order of the items and what is drawn.
        device: where it trains.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        reader = make_reader().to(device)
    generator = torch.Generator().manual_seed(seed)
    parameters = reader.trained_parameters()
    optimizer = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=config.weight_decay)
    steps = -(-num_items // config.batch_size) * config.epochs
    schedule = get_cosine_with_min_lr_schedule_with_warmup(
        optimizer, min(config.warmup_steps or 0, steps // 10), steps, min_lr_rate=0.1
    )
    for _ in tqdm(range(config.epochs), desc=f"scene reader, seed {seed}", unit="epoch"):
        reader.train()
        reader.language_model.train(bool(config.lora_rank))
        with deterministic_kernels():
            for batch in torch.randperm(num_items, generator=generator).split(config.batch_size):
                optimizer.zero_grad()
                loss(reader, batch.tolist(), generator).backward()
                nn.utils.clip_grad_norm_(parameters, GRADIENT_CLIP)
                optimizer.step()
                schedule.step()
        yield reader.eval()
