"""The flags of the settings: how they are added to a command's parser, and how a recipe's are read."""

from __future__ import annotations

import argparse
from collections.abc import Container, Mapping
from dataclasses import fields
from pathlib import Path
from types import MappingProxyType
from typing import Any

from minicnn import recipes
from minicnn.app.settings import LIST, Config, flag_of


def add_flag(parser: argparse._ActionsContainer, name: str, **changed: Any) -> None:
    """Add the flag of one setting to a command, with what is otherwise there, such as another default."""
    (declared,) = (f for f in fields(Config) if f.name == name)
    parser.add_argument(flag_of(name), **(declared.metadata["flag"] | changed))
    if declared.metadata["shorthand"]:
        option, value = declared.metadata["shorthand"]
        parser.add_argument(
            option, dest=name, action="store_const", const=value, default=argparse.SUPPRESS,
            help=f"short for {flag_of(name)} {value}",
        )  # fmt: skip


def add_all_flags(
    groups: dict[str, argparse._ArgumentGroup], without: Mapping[str, Any] = MappingProxyType({})
) -> None:
    """Add the flag of each setting to its group; those ``without`` a flag get the values there."""
    for declared in fields(Config):
        group = groups[declared.metadata["group"]]
        if declared.name in without:
            group.set_defaults(**{declared.name: without[declared.name]})
        else:
            add_flag(group, declared.name)


def add_checkpoint_flags(parser: argparse.ArgumentParser) -> None:
    """Add --checkpoint, --tta, --precision and the choice of a backend, for commands that use a model."""
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="FILE",
        help="the trained model: best.safetensors or checkpoint.safetensors of a run",
    )  # fmt: skip
    (tta,) = (f.metadata["flag"] for f in fields(Config) if f.name == "tta")
    add_flag(parser, "tta", default=None, help=f"{tta['help']} (default: as in training)")
    precision = next(f.metadata["flag"] for f in fields(Config) if f.name == "precision")
    add_flag(parser, "precision", default=None, help=f"{precision['help']} (default: as in training)")
    for name in ("backend", "threads"):
        add_flag(parser, name)


def parse(
    parser: argparse.ArgumentParser, argv: list[str], without: Container[str] = ()
) -> argparse.Namespace:
    """All arguments, with the recipe's and then the defaults for those not given.

    Of a recipe, settings ``without`` a flag in this command are passed over.

    Raises: ValueError, OSError about a recipe that is wrong or not there
    """
    given = parser.parse_args(argv)
    if given.recipe in (None, LIST):
        return given
    chosen = [a for a in recipes.arguments(given.recipe) if _setting_of(a) not in without]
    for argument in chosen:
        if argument.startswith("--") and argument.partition("=")[0] not in parser._option_string_actions:
            raise ValueError(f"recipe {given.recipe}: expected flags of this command, got {argument}")
    return parser.parse_args([*chosen, *argv])


def _setting_of(argument: str) -> str:
    """The setting of a flag, with its value or without: batch_size of --batch-size=64."""
    return argument.partition("=")[0].removeprefix("--").replace("-", "_")
