"""The smallest world and starting models that the tests of the experiments share."""

from experiments.base_encoder import EncoderShape
from experiments.language_model import LanguageShape
from tests.commands import build

IMAGE_SIZE_PX = 32
SHAPE = EncoderShape(image_size_px=IMAGE_SIZE_PX, width=32, num_layers=1)
LANGUAGE = LanguageShape(width=32, num_layers=1, vocabulary_size=320)


def build_rooms(folder, num_scenes=12):
    """A data set of small rooms; the encoder sees them smaller still."""
    words = ["--source", "synthetic", "--num-scenes", str(num_scenes), "--resolution", "64"]
    assert build([*words, "--allow-partial", "--output", str(folder)]) == 0
    return folder
