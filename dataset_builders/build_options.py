"""What the arguments of `spatialboost build` mean: options of the source, of the models and of the whole plan."""

import argparse
import hashlib
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from dataset_builders.perception import PerceptionOptions
from dataset_builders.scene import DropItem, InputError, Intrinsics, Scene
from dataset_builders.sources import Source, SourceOptions

if TYPE_CHECKING:
    from dataset_builders.chat_endpoint import ChatOptions
    from dataset_builders.plans import BuildPlan

WITHOUT_FOLDER = ("synthetic", "hub")
PROJECTION_SAMPLE = 4  # scenes that are loaded to tell what a chat model will cost
REGIONS_PER_VIEW = 12.0  # assumed, where the chat model is to name what a segmenter will find


def read_recipe(argv: list[str] | None) -> list[str]:
    """The command line with the arguments of its --config before it, so that the command line wins.

    Raises:
        InputError: the recipe cannot be read or is no list of arguments.
    """
    words = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", type=Path)
    path = parser.parse_known_args(words)[0].config
    if path is None:
        return words
    import yaml

    try:
        recipe = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"--config {path} cannot be read ({error.strerror}); pass a recipe's path.") from error
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--config {path} is not YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(recipe, dict):
        raise InputError(f"--config {path} holds no arguments; write lines such as 'source: rgbd'.")
    given: list[str] = []
    for name, value in recipe.items():
        option = f"--{str(name).replace('_', '-')}"
        if isinstance(value, list):
            value = ",".join(map(str, value))
        if value is not None and value is not False:
            given += [option] if value is True else [f"{option}={value}"]
    return given + list(words)


def source_options(arguments: argparse.Namespace) -> SourceOptions:
    """Check the numbers among the arguments and hand the source what concerns it."""
    least = {"workers": 1, "shard_size": 1, "num_scenes": 1, "file_size_mb": 1, "batch_size": 1, "chat_concurrency": 1}
    for name, value in ((name, getattr(arguments, name)) for name in least):
        if value is not None and value < least[name]:
            raise InputError(f"--{name.replace('_', '-')} {value} is too small; pass at least {least[name]}.")
    if not 0 <= arguments.min_kept <= 1:
        raise InputError(f"--min-kept {arguments.min_kept:g} is no share; pass a number from 0 to 1.")
    if arguments.frame_step is not None and not 0 < arguments.frame_step < float("inf"):
        raise InputError(f"--frame-step {arguments.frame_step:g} is not positive; pass 1 for every frame.")
    if arguments.source in WITHOUT_FOLDER and arguments.input is not None:
        raise InputError(f"--input {arguments.input} is of no use to --source {arguments.source}; leave it out.")
    if (arguments.dataset is not None) != (arguments.source == "hub"):
        raise InputError(
            f"--source {arguments.source} and --dataset {arguments.dataset}: hub needs it, others do not."
        )
    size = re.fullmatch(r"(\d+)(?:x(\d+))?", arguments.resolution)
    if size is None:
        raise InputError(f"--resolution {arguments.resolution!r} is not HEIGHTxWIDTH; pass something like 240x320.")
    intrinsics = _numbers("--intrinsics", arguments.intrinsics, 4)
    up_world = _numbers("--up-world", arguments.up_world, 3)
    if intrinsics is not None and min(intrinsics[:2]) <= 0:
        raise InputError(f"--intrinsics {arguments.intrinsics} has a focal length that is not positive; give pixels.")
    if up_world is not None and not any(up_world):
        raise InputError(f"--up-world {arguments.up_world} has no direction; pass something like 0,0,1.")
    return SourceOptions(
        input_dir=arguments.input,
        seed=arguments.seed,
        num_scenes=arguments.num_scenes,
        views=arguments.views,
        frame_step=arguments.frame_step,
        image_size=(int(size[1]), int(size[2] or size[1])),
        intrinsics=None if intrinsics is None else Intrinsics(*intrinsics),
        up_world=None if up_world is None else (up_world[0], up_world[1], up_world[2]),
        dataset=arguments.dataset,
        dataset_config=arguments.dataset_config,
        dataset_split=arguments.dataset_split,
        image_column=arguments.image_column,
        variety=arguments.variety,
        with_held_out=arguments.with_held_out,
    )


def _numbers(argument: str, text: str | None, count: int) -> list[float] | None:
    """Numbers separated by commas."""
    if text is None:
        return None
    try:
        numbers = [float(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(abs(number) < float("inf") for number in numbers):
        raise InputError(f"{argument} {text!r} is not {count} numbers separated by commas.")
    return numbers


def perception_options(arguments: argparse.Namespace) -> PerceptionOptions:
    """Which models to use, and how."""
    if arguments.namer == "chat" and arguments.chat_model is None:
        raise InputError(
            "--namer chat needs a chat model; pass --chat-model, and --chat-url for a server of your own."
        )
    return PerceptionOptions(
        depth=arguments.depth_model,
        detector=arguments.detector,
        segmenter=arguments.segmenter,
        namer=arguments.namer,
        reconstructor=arguments.reconstructor,
        distance=arguments.pair_distance,
        vocabulary=_vocabulary(arguments.vocabulary),
        device=arguments.device,
        dtype=arguments.dtype,
        batch_size=arguments.batch_size,
        keep_models=arguments.keep_models,
    )


def _vocabulary(text: str | None) -> tuple[str, ...]:
    """Names from a file of lines, or separated by commas."""
    if text is None:
        return ()
    lines = Path(text).read_text(encoding="utf-8").splitlines() if Path(text).is_file() else text.split(",")
    names = tuple(" ".join(line.split()) for line in lines if line.strip())
    if len(names) < 2:
        raise InputError(f"--vocabulary {text!r} holds {len(names)} names; pass at least two, or a file of lines.")
    return names


def chat_options(arguments: argparse.Namespace) -> "ChatOptions | None":
    """The chat model, None where none is asked for."""
    if arguments.chat_model is None:
        if arguments.chat_url or arguments.chat_provider:
            raise InputError("--chat-url and --chat-provider need --chat-model, the model's id there.")
        return None
    from dataset_builders.chat_endpoint import ChatOptions

    prices = _numbers("--token-price", arguments.token_price, 2)
    return ChatOptions(
        model=arguments.chat_model,
        base_url=arguments.chat_url,
        provider=arguments.chat_provider,
        concurrency=arguments.chat_concurrency,
        max_requests=arguments.max_requests,
        max_tokens=arguments.max_tokens,
        prices=None if prices is None else (prices[0], prices[1]),
        cache_dir=arguments.chat_cache
        or arguments.output.resolve().with_name(f"{arguments.output.resolve().name}.chat_cache"),
        seed=arguments.seed,
    )


def plan_of(
    arguments: argparse.Namespace, source: Source, options: SourceOptions, chat: "ChatOptions | None"
) -> "BuildPlan":
    """Everything that decides the bytes of the data set.

    Raises:
        InputError: the source has no scene, or a configuration is unknown.
    """
    from dataset_builders.configs import CONFIGS, DialogueOptions
    from dataset_builders.plans import BuildPlan

    items = tuple(source.list_items())
    if not items:
        raise InputError(f"--input {arguments.input} gives no scene; {source.how_to_get}")
    wanted = list(CONFIGS) if arguments.configs is None else arguments.configs.split(",")
    unknown = [name for name in wanted if name not in CONFIGS]
    if unknown:
        raise InputError(f"--configs {unknown[0]!r} is unknown; choose from {', '.join(CONFIGS)}.")
    return BuildPlan(
        source=arguments.source,
        source_options=options,
        dialogue=DialogueOptions(arguments.seed, arguments.order, arguments.allow_partial),
        configs=tuple(name for name in CONFIGS if name in wanted),
        items=items,
        shard_size=arguments.shard_size,
        input_fingerprint=_input_fingerprint(options),
        output_dir=arguments.output.resolve(),
        perception=perception_options(arguments),
        chat=chat,
        notices=tuple(getattr(source, "notices", ())),
        file_size_mb=arguments.file_size_mb,
    )


def project_chat(plan: "BuildPlan", source: Source) -> list[str]:
    """Lines that tell what the chat model will be asked at most, and what that costs, from a few loaded scenes."""
    from dataset_builders.chat_estimate import estimate

    assert plan.chat is not None
    scenes: list[Scene] = []
    for item in plan.items[: 4 * PROJECTION_SAMPLE]:
        with suppress(DropItem):
            scenes.append(source.load(item))
        if len(scenes) == PROJECTION_SAMPLE:
            break
    regions = REGIONS_PER_VIEW if plan.perception.namer == "chat" else 0.0
    by_distance = plan.perception.distance is not None
    return estimate(
        scenes, len(plan.items), plan.configs, plan.chat, by_distance=by_distance, regions_per_view=regions
    ).lines()


def _input_fingerprint(options: SourceOptions) -> str:
    """What tells changed input from the same input, where it lies in files here."""
    local = options.input_dir or Path(options.dataset or "")
    return _listing_hash(local) if options.input_dir or (options.dataset and local.is_dir()) else ""


def _listing_hash(path: Path) -> str:
    """Hash of names and sizes of all files in a folder: notices changed input without reading it."""
    files = sorted(one for one in path.rglob("*") if one.is_file()) or [path]
    digest = hashlib.sha256()
    for one in files:
        digest.update(f"{one.relative_to(path).as_posix()} {one.stat().st_size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]
