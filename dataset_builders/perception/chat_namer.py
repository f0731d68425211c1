"""Names of image regions by a chat model that is shown the crop."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from dataset_builders.chat_messages import photograph, read_prompt
from dataset_builders.perception import Array, Box
from dataset_builders.perception.naming import short_name
from dataset_builders.scene import DropItem
from dataset_builders.text_client import ChatClient

MARGIN = 0.1  # of a box's sides, shown around it
MIN_SIDE_PX = 16  # of a crop; there is nothing to see in a smaller one
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}},
    "required": ["name"],
    "additionalProperties": False,
}


class ChatNamer:
    """Asks a chat model about each box, many at once."""

    def __init__(self, chat: ChatClient) -> None:
        """Name regions through this client."""
        self._chat = chat

    def name(self, images: Sequence[Array], boxes: Sequence[Sequence[Box]]) -> list[list[str]]:
        """One name per box of each image; "" where the model has none, refuses or fails."""
        crops = [crop(image, box) for image, some in zip(images, boxes) for box in some]
        with ThreadPoolExecutor(self._chat.options.concurrency) as pool:
            names = iter(list(pool.map(self._name_one, crops)))
        return [[next(names) for _ in some] for some in boxes]

    def _name_one(self, region: Array) -> str:
        if min(region.shape[:2]) < MIN_SIDE_PX:
            return ""
        try:
            answer = self._chat.ask("name", read_prompt("name"), [photograph(region)], SCHEMA)
        except DropItem:
            return ""
        return short_name(answer["name"])


def crop(image: Array, box: Box) -> Array:
    """What a box, x0, y0, x1, y1 in pixels, holds of an image, (H, W, 3), with some margin, (h, w, 3)."""
    x0, y0, x1, y1 = box
    across, down = MARGIN * (x1 - x0), MARGIN * (y1 - y0)
    left, top = max(int(x0 - across), 0), max(int(y0 - down), 0)
    return image[top : int(y1 + down) + 1, left : int(x1 + across) + 1]
