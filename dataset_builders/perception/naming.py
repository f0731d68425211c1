"""Names of image regions by Florence-2, and what makes a name of any model's answer."""

import re
from collections.abc import Sequence

import torch

from dataset_builders.perception import Array, Box, PerceptionOptions
from dataset_builders.perception.loading import batches, load, sizes_of

ARCHITECTURES = {"florence2": ("Florence2ForConditionalGeneration", "Florence2Processor")}
TASK = "<REGION_TO_DESCRIPTION>"  # gives an adjective with the noun, where <REGION_TO_CATEGORY> gives the noun alone
LOCATION_BINS = 1000  # of <loc_0> ... <loc_999> along either side of the image
MAX_NEW_TOKENS = 24
NAMES_PER_CALL = 16  # regions per image of a batch that are named at a time

MAX_WORDS = 3
_SUBJECT = (
    r"(?:the |this |that )?(?:main |central |highlighted )?"
    r"(?:it|this|that|there|object|item|thing|region|image|picture|photo|crop|box|area|answer|name)"
    r"(?: (?:in|of|inside) (?:the|this) (?:\w+ )?(?:image|picture|photo|region|box|crop|area))?"
)
_OPENING = re.compile(
    rf"^(?:{_SUBJECT} )?(?:is|are|shows|depicts|contains|appears to be|seems to be|looks like|could be|may be) "
    r"(?:likely |probably |called |mostly )?"
)


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_ARTICLES = _words("a an the some this that these those its his her their one another two three four several")
_MEASURES = _words("pair piece set group kind type part bunch pile row couple image picture photo photograph view")
_COLOURS = _words("black white red green blue yellow brown grey gray pink purple beige silver gold golden")
_BREAKS = _words(
    "on in at with by from for to into near next under over above below behind beside between inside outside "
    "against around through across along beneath and or but that which who whose where while as is are was were has "
    "have had being sitting standing lying hanging placed resting leaning mounted facing wearing holding attached "
    "made filled covered parked located positioned using"
)
_NOUNS_IN_ING = _words("building painting ceiling railing clothing awning swing string ring wing king lightning")
_NO_NAMES = _words("object objects thing things item items region area image background foreground something")
_REFUSALS = _words("i i'm sorry no none not nothing cannot unable unclear unknown unsure unanswerable")


class FlorenceNamer:
    """Florence-2 asked about each box; the image is encoded once for all its boxes."""

    def __init__(self, name: str, options: PerceptionOptions) -> None:
        """Load by id or folder; see `loading.load` for errors."""
        self._loaded = load("namer", name, options, ARCHITECTURES)
        self._batch_size = options.batch_size

    @torch.inference_mode()
    def name(self, images: Sequence[Array], boxes: Sequence[Sequence[Box]]) -> list[list[str]]:
        """One short name per box; "" where the answer holds none."""
        names: list[list[str]] = [[] for _ in images]
        for indices in batches(images, self._batch_size, equal_shape=False):
            chosen = [images[k] for k in indices]
            inputs = self._loaded.prepare(chosen, text=[""] * len(chosen))
            features = self._loaded.model.get_image_features(inputs["pixel_values"]).pooler_output  # (B, T, d)
            asked = [(position, box) for position, index in enumerate(indices) for box in boxes[index]]
            for start in range(0, len(asked), NAMES_PER_CALL):
                part = asked[start : start + NAMES_PER_CALL]
                prompts = [self._prompt(box, sizes_of(chosen)[position]) for position, box in part]
                answers = self._answers(features[[position for position, _ in part]], prompts)
                for (position, _), answer in zip(part, answers):
                    names[indices[position]].append(short_name(answer))
        return names

    def _prompt(self, box: Box, size: tuple[int, int]) -> str:
        """What the processor makes of the task for a box, in an image of (H, W); the image's tokens come first."""
        processor = self._loaded.processor
        question = processor.task_prompts_with_input[TASK].format(input=location_tokens(box, size))
        image_tokens = processor.image_token * processor.num_image_tokens
        return image_tokens + processor.tokenizer.bos_token + question + processor.tokenizer.eos_token

    def _answers(self, features: torch.Tensor, prompts: list[str]) -> list[str]:
        """What the model says to each prompt about the image of those features, (B, T, d)."""
        model, processor = self._loaded.model, self._loaded.processor
        inputs = processor.tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt")
        inputs = inputs.to(self._loaded.device)
        embeddings = model.get_input_embeddings()(inputs["input_ids"])
        places = (inputs["input_ids"] == model.config.image_token_id)[..., None].expand_as(embeddings)
        encoded = model.get_encoder()(  # `generate` of Florence-2 would encode the image anew for each region
            inputs_embeds=embeddings.masked_scatter(places, features.to(embeddings.dtype)),
            attention_mask=inputs["attention_mask"],
        )
        tokens = model.generate(
            encoder_outputs=encoded,
            attention_mask=inputs["attention_mask"],
            max_new_tokens=MAX_NEW_TOKENS,
            do_sample=False,
            num_beams=1,
        )
        return processor.batch_decode(tokens, skip_special_tokens=True)


def location_tokens(box: Box, size: tuple[int, int]) -> str:
    """A box in pixels, in an image of (H, W), as Florence-2 writes it: `<loc_x0><loc_y0><loc_x1><loc_y1>`."""
    height, width = size
    sides = (width, height, width, height)
    bins = [min(max(int(edge / side * LOCATION_BINS), 0), LOCATION_BINS - 1) for edge, side in zip(box, sides)]
    return "".join(f"<loc_{one}>" for one in bins)


def short_name(text: str) -> str:
    """A noun with at most two words before it, lower case, without article, of a model's answer about one thing.

    "The object is a small red box on a table." becomes "small red box"; "" where the answer names nothing.
    """
    text = re.sub(r"<[^>]*>", " ", text).strip().lower().replace("\u2019", "'")
    line = re.sub(r"[*_`\"\u201c\u201d]", " ", text).strip().partition("\n")[0]
    label, colon, rest = line.partition(":")
    line = rest if colon and rest.strip() and len(label.split()) <= MAX_WORDS else line
    line = re.sub(r"\b(it|this|that|there)'s\b", r"\1 is", " ".join(line.split()))
    line = re.split(r"[.,;:!?()\[\]/]", _OPENING.sub("", line).strip(" ."))[0]
    words = re.findall(r"[a-zà-ÿ]+(?:[-'][a-zà-ÿ]+)*", line)
    if not words or words[0] in _REFUSALS:
        return ""
    words = _noun_phrase([word for word in words if word not in _ARTICLES])
    if not words or words[-1] in _NO_NAMES | _COLOURS | _BREAKS:
        return ""
    return " ".join(words[-MAX_WORDS:])


def _noun_phrase(words: list[str]) -> list[str]:
    """The words up to the first that ends a noun phrase."""
    while len(words) > 2 and words[1] == "of" and words[0] in _MEASURES:  # "pair of shoes", "picture of a cat"
        words = words[2:]
    if len(words) > 3 and words[1] == "and" and words[0] in _COLOURS and words[2] in _COLOURS:
        words = words[3:]  # "black and white cat"
    ends = [k for k, word in enumerate(words) if k and (word in _BREAKS or _is_participle(word))]
    words = words[: ends[0]] if ends else words
    if "of" in words and len(words) > MAX_WORDS:  # but "cup of coffee"
        words = words[: words.index("of")]
    return words


def _is_participle(word: str) -> bool:
    return word.endswith("ing") and word not in _NOUNS_IN_ING
