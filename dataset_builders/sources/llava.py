"""The `llava` source: the public LLaVA sets, whose conversations are kept as they are.

    LLaVA-Pretrain/blip_laion_cc_sbu_558k.json      and images/00453/004539375.jpg beside it (stage 1)
    data/llava_v1_5_mix665k.json                    and coco/train2017, gqa/images, ocr_vqa/images,
                                                    textvqa/train_images, vg/VG_100K, vg/VG_100K_2 beside it (stage 2)

Both hold a list of {"id", "image", "conversations": [{"from": "human" | "gpt", "value"}, ...]}. The file, a gigabyte,
is never parsed whole: one pass finds where each record lies, and the name of an item says it, so that any process can
jump to it. About 40,000 records of the 665K are text only; they are dropped with the reason "no_image".
"""

import json
import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar

from dataset_builders.scene import DropItem, InputError, Scene
from dataset_builders.sources import SourceOptions
from dataset_builders.sources.image_files import photograph, read_image, refuse_views, safe_id

LICENCE = "LLaVA terms (texts CC BY 4.0, images keep their own)"
IMAGE_TOKEN = "<image>"
SPEAKERS = ("human", "gpt")
_TEXT = rb'"(?:[^"\\]++|\\.)*+"'
_RECORD = re.compile(rb'\{(?:[^"{}]++|' + _TEXT + rb"|\{(?:[^\"{}]++|" + _TEXT + rb")*+\})*+\}", re.DOTALL)
_BETWEEN = re.compile(rb"[\s,\[\]\xef\xbb\xbf]*+")  # byte-order mark included


class LlavaSource:
    """One scene with one view and its `conversation` per record."""

    how_to_get: ClassVar[str] = (
        "Download liuhaotian/LLaVA-Pretrain (images.zip extracted to images/) or liuhaotian/LLaVA-Instruct-150K with "
        "the images of COCO, GQA, OCR-VQA, TextVQA and Visual Genome that https://github.com/haotian-liu/LLaVA lists, "
        "and accept the terms of each."
    )

    def __init__(self, options: SourceOptions) -> None:
        """Find the JSON file.

        Raises:
            InputError: there is none, or several, or several views are asked for.
        """
        refuse_views(options, "llava")
        self.options = options
        self.path = _find_file(options.input_dir)

    def list_items(self) -> Sequence[str]:
        """Records as "number@first byte-end", in the order of the file.

        Raises:
            InputError: the file is no list of records.
        """
        items = [f"{number:07d}@{start}-{end}" for number, (start, end) in enumerate(_record_places(self.path))]
        if not items:
            raise InputError(f"--input {self.path} holds no record; give a file like blip_laion_cc_sbu_558k.json.")
        return items[: self.options.num_scenes]

    def load(self, item: str) -> Scene:
        """Read one record and its image.

        Raises:
            DropItem: "bad_record", "no_image", or a reason of `question_answers`, `read_image` or `photograph`.
        """
        number, _, place = item.partition("@")
        start, end = map(int, place.split("-"))
        with self.path.open("rb") as stream:
            stream.seek(start)
            content = stream.read(end - start)
        name = f"record {number}"
        try:
            record = json.loads(content)
            image, turns = record.get("image"), [(turn["from"], turn["value"]) for turn in record["conversations"]]
            identifier = str(record.get("id", ""))
        except (ValueError, KeyError, TypeError) as error:
            raise DropItem("bad_record", f"{name} of {self.path.name} is garbled: {error}") from error
        if not image:
            raise DropItem("no_image", f"{name} ({identifier}) is text only")
        conversation = question_answers(turns, name)
        if not isinstance(image, str):
            raise DropItem("several_images", f"{name} ({identifier}) has {len(image)} images")
        file = read_image(_image_path(self.path.parent, image), f"{name}: {image}")
        return Scene(
            id=safe_id(f"{number}-{identifier}" if identifier else number),
            source="llava",
            licence=LICENCE,
            views=(photograph(file, self.options.intrinsics),),
            scale_source="none",
            conversation=conversation,
        )


def question_answers(turns: Sequence[tuple[Any, Any]], name: str) -> tuple[tuple[str, str], ...]:
    """Turns of (speaker, text) as pairs of question and answer without the image token.

    Raises:
        DropItem: "bad_record", "several_images", "empty_conversation", "not_alternating" or "empty_turn"; `name` is
            what it calls the record.
    """
    if not turns:
        raise DropItem("empty_conversation", f"{name} has no turn")
    if not all(isinstance(text, str) for _, text in turns):
        raise DropItem("bad_record", f"{name} has a turn that is no text")
    if sum(text.count(IMAGE_TOKEN) for _, text in turns) > 1:
        raise DropItem("several_images", f"{name} speaks of more than one image")
    if [speaker for speaker, _ in turns] != list(SPEAKERS) * (len(turns) // 2):
        raise DropItem("not_alternating", f"{name} does not alternate between {SPEAKERS[0]} and {SPEAKERS[1]}")
    texts = [text.replace(IMAGE_TOKEN, "").strip() for _, text in turns]
    if not all(texts):
        raise DropItem("empty_turn", f"{name} has a turn without text")
    return tuple(zip(texts[::2], texts[1::2]))


def _find_file(given: Path | None) -> Path:
    """The JSON file that the user names, or the only one in the folder that the user names."""
    if given is not None and given.is_file():
        return given
    if given is None or not given.is_dir():
        raise InputError(
            f"--input {given} does not exist; give a file like blip_laion_cc_sbu_558k.json or its folder."
        )
    found = [path for path in sorted(given.glob("*.json")) if not path.stem.endswith("_meta")]
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise InputError(f"--input {given} should hold one .json file but holds {names}; give the file itself.")
    return found[0]


def _record_places(path: Path) -> Iterator[tuple[int, int]]:
    """First byte and end of every outermost {...} of a JSON file."""
    if not path.stat().st_size:
        return
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        position = 0
        while True:
            between = _BETWEEN.match(content, position)
            position = position if between is None else between.end()
            if position == len(content):
                return
            record = _RECORD.match(content, position)
            if record is None:
                raise InputError(f"--input {path} is no list of records: it breaks off at byte {position}.")
            yield record.span()
            position = record.end()


def _image_path(folder: Path, image: str) -> Path:
    """Where an image lies: beside the JSON file, or in the folder images/ beside it."""
    beside = folder / image
    return (
        beside if beside.is_file() else next((path for path in [folder / "images" / image] if path.is_file()), beside)
    )
