"""What the benchmarks of eight bits share: channels put out of balance, and the noise that is left."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.edge.channels import Channels
from bnfold.edge.equalize import write
from bnfold.edge.noise import Noise
from bnfold.graph.editor import Editor
from bnfold.graph.facts import Facts


def imbalanced(model: ir.Model, spread: int, seed: int = 0) -> ir.Model:
    """The same network with its channels scaled by powers of two between ±`spread`, which changes no bit."""
    if not spread:
        return model
    copy = model.clone()
    facts = Facts(copy)
    channels = Channels(facts)
    every = np.arange(channels.classes.size)
    steps = np.random.default_rng(seed).integers(-spread, spread + 1, len(every))
    steps[~channels.classes.is_free(every)] = 0
    editor = Editor(facts)
    write(channels, steps[channels.classes.root(every)], editor)
    editor.compute()
    return copy


def decibels(wanted: Any, found: Any) -> float:
    """The ratio of signal to noise of one array."""
    noise = Noise()
    noise.add(wanted, found)
    return noise.decibels
