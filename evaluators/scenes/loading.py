"""From a task's configuration to its scenes."""

import importlib

from evaluators.scenes.language_config import QuestionData, ReaderConfig
from evaluators.scenes.scene import SceneConfig, SceneData


def load_scenes(config: SceneConfig) -> SceneData:
    """Read the scenes of a configuration; views and points are read when asked for.

    Raises:
        ValueError: they are not there or not as they should be.
    """
    assert config.data is not None  # the catalogue says that the data set has a place
    if config.limit is not None and config.limit < 1:
        raise ValueError(f"limit {config.limit} leaves no image to fuse: pass 1 or more")
    if config.data_set == "rooms":
        from evaluators.scenes.rooms import load_rooms

        return load_rooms(config.data, config.limit)
    module = importlib.import_module(f"evaluators.data_sets.{config.data_set}")
    return module.load(config.data, config.limit, config.frame_step)


def load_questions(config: ReaderConfig) -> QuestionData:
    """Read the questions of a configuration and find their scenes.

    Raises:
        ValueError: they are not there or not as they should be.
    """
    assert config.data is not None
    if config.limit is not None and config.limit < 1:
        raise ValueError(f"limit {config.limit} leaves no question: pass 1 or more")
    module = importlib.import_module(f"evaluators.data_sets.{config.data_set}")
    return module.load(config.data, config.scannet, config.limit, config.frame_step)
