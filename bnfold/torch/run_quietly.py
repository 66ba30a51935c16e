"""The exporters talk much: what is theirs stays away from the user, what is the model's own passes."""

from __future__ import annotations

import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

_LOGGERS = (
    *("torch.onnx", "torch.export", "torch._export", "torch._dynamo", "torch.fx", "torch._subclasses"),
    *("onnxscript", "onnx_ir"),
)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Run a module by itself: pass on warnings that its own code raises, and not torch's.

    What the model prints goes to standard error: standard output is for results.
    """
    with warnings.catch_warnings(record=True) as caught, contextlib.redirect_stdout(sys.stderr):
        warnings.simplefilter("always")
        yield
    for warning in caught:
        if not from_torch(warning.filename):
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Let an exporter talk to nobody: what goes wrong comes as an exception.

    What the model itself prints and warns of has been passed on when it ran by itself.
    """
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(nowhere),
            contextlib.redirect_stderr(nowhere),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Put every submodule in eval mode, and back to its own mode afterwards."""
    # frozen TorchScript has no mode, and cannot be given one
    modes = [(part, part.training) for part in module.modules() if hasattr(part, "training")]
    try:
        if modes:
            module.eval()
        yield
    finally:
        for part, training in modes:
            part.training = training


def from_torch(filename: str) -> bool:
    """Whether a file is one of torch's own."""
    home = torch.__file__
    return home is not None and Path(filename).is_relative_to(Path(home).parent)


@contextlib.contextmanager
def untouched(module: nn.Module) -> Iterator[None]:
    """Put the buffers back that the block changes; running a module can change them, even in eval mode."""
    before = [(buffer, buffer.clone()) for buffer in module.buffers()]
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in before:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
