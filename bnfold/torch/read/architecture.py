"""The network that weights belong to, made by the user's own code."""

from __future__ import annotations

import functools
import importlib
import json
import re
from collections.abc import Mapping
from typing import Any

from torch import nn

from bnfold.errors import InputError, reason
from bnfold.torch.read.safety.importing import from_here

_FACTORY = re.compile(r"(?P<module>\w+(\.\w+)*):(?P<name>\w+(\.\w+)*)")


def build(arch: str, arguments: Mapping[str, Any] | str | None = None) -> nn.Module:
    """Import a factory and call it: **this runs code that the user has chosen**.

    Args:
        arch: `package.module:factory`, a class or a function that makes an `nn.Module`. The current folder
            is searched too, first.
        arguments: Its keyword arguments, or a JSON object that holds them.

    Raises:
        InputError: It cannot be imported, fails, or makes something else; or the arguments are not JSON.
    """
    keywords = parse_arguments(arguments)
    match = _FACTORY.fullmatch(arch)
    if match is None:
        raise InputError(
            f"--arch {arch} does not name a factory.",
            "Write --arch package.module:factory, as in nets:resnet18",
        )
    with from_here():
        factory = _import(arch, match["module"], match["name"])
        try:
            network = factory(**keywords)
        except Exception as error:  # the user's own code
            called = f"{match['name']}({', '.join(f'{name}={value!r}' for name, value in keywords.items())})"
            raise InputError(
                f"--arch {arch}: {called} raised {type(error).__name__}: {reason(error)}.",
                "Call it in Python to see where. Its keyword arguments come from --arch-args, a JSON object.",
            ) from error
    if not isinstance(network, nn.Module):
        raise InputError(
            f"--arch {arch} gave a {type(network).__name__}, not an nn.Module.",
            "Name a class of networks, or a function that returns one.",
        )
    return network


def parse_arguments(arguments: Mapping[str, Any] | str | None) -> dict[str, Any]:
    """Read `--arch-args`.

    Raises:
        InputError: Not a JSON object.
    """
    if arguments is None or isinstance(arguments, Mapping):
        return dict(arguments or {})
    fix = """Write a JSON object, as in: --arch-args '{"num_classes": 10}'"""
    try:
        found = json.loads(arguments)
    except ValueError as error:
        raise InputError(f"--arch-args {arguments!r} is not JSON: {reason(error)}.", fix) from None
    if not isinstance(found, dict):
        raise InputError(f"--arch-args {arguments!r} is not a JSON object.", fix)
    return found


def _import(arch: str, module: str, name: str) -> Any:
    try:
        home = importlib.import_module(module)
    except Exception as error:  # the import runs the user's code, which can raise anything
        raise InputError(
            f"--arch {arch}: {module} could not be imported: {type(error).__name__}: {reason(error)}.",
            "Run this in the folder that holds it, or install its package.",
        ) from error
    try:
        factory = functools.reduce(getattr, name.split("."), home)
    except AttributeError:
        raise InputError(f"--arch {arch}: {module} has no {name}.", "Check what follows the colon.") from None
    if not callable(factory):
        raise InputError(f"--arch {arch} is a {type(factory).__name__}, not a factory.", "Name a function.")
    return factory
