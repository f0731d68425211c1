"""The arguments of `spatialboost train`: a recipe's mistakes are named with the file, and help starts with our own."""

import argparse
import dataclasses
import difflib
from pathlib import Path
from typing import Any

import yaml
from trl import TrlParser

USUAL = (
    "output_dir", "resume_from_checkpoint", "learning_rate", "num_train_epochs", "max_steps", "warmup_steps",
    "per_device_train_batch_size", "logging_steps", "save_steps", "save_total_limit", "optim", "seed",
)  # fmt: skip
KINDS = {int: "a whole number", float: "a number", bool: "true or false"}


class RecipeParser(TrlParser):
    """TRL's parser, which tells a user what is wrong in one sentence.

    `--help` shows the arguments of the first data class, what the others add to TRL's, and the usual ones of TRL;
    `--help-all` shows all.
    """

    def __init__(self, dataclass_types: tuple[Any, ...], **kwargs: Any) -> None:
        """`dataclass_types`: our own arguments first, then those that extend a configuration of TRL."""
        super().__init__(dataclass_types, **kwargs)
        own = [field.name for field in dataclasses.fields(dataclass_types[0])]
        added = [name for extended in dataclass_types[1:] for name in extended.__annotations__]
        self.shown = list(dict.fromkeys([*own, *added, *USUAL]))
        self.add_argument("--config", metavar="RECIPE.yaml", help="A recipe; arguments override what it says.")
        self.add_argument("--help-all", action=_HelpAll, nargs=0, help="Show all arguments, TRL's among them.")

    def parse_args_and_config(self, args: list[str] | None = None, **kwargs: Any) -> tuple[Any, ...]:
        """Arguments and recipe as data classes.

        Raises:
            ValueError: an unknown argument or key, a value of another type, a recipe that cannot be read.
        """
        argv = [part for word in args or [] for part in _split(word)]
        for word in argv:
            if word.startswith("--") and not self._knows(word):
                raise ValueError(f"{word} is no argument of {self.prog}: {self._nearest(word, '--')}")
        if "--config" in argv:
            position = argv.index("--config") + 1
            if position == len(argv):
                raise ValueError("--config has no value: pass the path of a recipe.")
            self._check_recipe(argv[position])
        *parsed, rest = super().parse_args_and_config(argv, return_remaining_strings=True, **kwargs)
        if rest:
            raise ValueError(f"{rest[0]!r} belongs to no argument: remove it, or write --ARGUMENT in front of it.")
        return tuple(parsed[: len(self.dataclass_types)])

    def format_help(self) -> str:
        """Our own arguments, and the usual ones of TRL."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, [], [])
        formatter.add_text(self.description)
        formatter.start_section("arguments")
        by_name = {action.dest: action for action in self._actions}
        formatter.add_arguments([by_name[name] for name in (*self.shown, "config", "help_all") if name in by_name])
        formatter.end_section()
        formatter.add_text(f"{len(by_name) - len(self.shown)} more, all of TRL's SFTConfig: --help-all")
        return formatter.format_help()

    def _check_recipe(self, path: str) -> None:
        """Find keys that do not exist and values of another type, before any default is taken from the file."""
        try:
            recipe = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise ValueError(f"--config {path} is no YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(recipe, dict):
            raise ValueError(f"--config {path} holds no settings: write one `name: value` a line.")
        actions = {action.dest: action for action in reversed(self._actions)}  # --no_x comes after --x
        for key, value in recipe.items():
            if key == "env":  # environment variables, which TRL sets
                continue
            if key not in actions or key in ("help", "help_all", "config"):
                raise ValueError(f"{path}: there is no setting {key!r}: {self._nearest(str(key))}")
            _check_type(path, actions[key], value)

    def _knows(self, word: str) -> bool:
        return any(option.startswith(word) for option in self._option_string_actions)  # argparse takes beginnings

    def _nearest(self, word: str, prefix: str = "") -> str:
        names = [f"{prefix}{action.dest}" for action in self._actions]
        wanted = prefix + word.removeprefix(prefix).replace("-", "_")
        near = difflib.get_close_matches(wanted, names, n=1)
        return f"did you mean {near[0]}?" if near else f"{self.prog} --help-all lists all."


class _HelpAll(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *args: Any, **kwargs: Any) -> None:
        print(TrlParser.format_help(parser))
        parser.exit()


def _split(word: str) -> list[str]:
    """`--name=value` as two words."""
    return word.split("=", 1) if word.startswith("--") and "=" in word else [word]


def _check_type(path: str, action: argparse.Action, value: Any) -> None:
    converter: Any = action.type or str
    try:
        kind = KINDS[type(converter("1"))]
    except (KeyError, TypeError, ValueError):
        return  # texts, and what only transformers can judge
    items = value if isinstance(value, list) and action.nargs == "+" else [value]
    for item in items:
        try:
            converter(str(item))
        except (ValueError, argparse.ArgumentTypeError) as error:
            if item is not None:
                raise ValueError(f"{path}: {action.dest} must be {kind}, not {item!r}.") from error
