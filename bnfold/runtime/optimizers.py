"""Which of ONNX Runtime's graph optimizers changes what a model computes.

An optimizer may change roundings and nothing else. Where the default session is wrong and the session with
the optimizer off is not, the optimizer that causes it is found in two steps:

1. Find those that changed the graph at all: ONNX Runtime's log names each with `modified: 1`. It is read from
   the standard error of a separate process, since ONNX Runtime does not write it through Python.
2. Find which of those must be switched off: QuickXplain (Junker, "QUICKXPLAIN: Preferred Explanations and
   Relaxations for Over-Constrained Problems", AAAI 2004) finds a smallest set with a few sessions instead of
   one for each optimizer.

The log names the transformer `Level1_RuleBasedTransformer` as a whole, and `disabled_optimizers` takes its
names of single rules; [`RULES`][bnfold.runtime.optimizers.RULES] lists them.

ONNX Runtime 1.31.1, for example, makes a Gemm of `MatMul(x, W)` and the BatchNormalization after it, across
any Reshape and Transpose between them (`MatMul_BatchNormalization_Fusion`). It only compares the number of
channels with the number of columns of W. So a 2-D MatMul with a 4×4 weight → Transpose(1, 0) or Reshape to
[1, 4, 4] → BatchNormalization of 4 channels becomes wrong, because the channels are the rows. Transposed back
after the Reshape it happens to be right, and a MatMul of rank 3 is left alone.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import onnx_ir as ir

from bnfold.errors import ModelError
from bnfold.files.external_data import self_contained
from bnfold.runtime.interface import as_ir
from bnfold.runtime.sessions import Feeds, ModelLike, run, session

RULES = (
    *("EliminateIdentity", "EliminateSlice", "UnsqueezeElimination", "EliminateDropout", "ExpandElimination"),
    *("CastElimination", "CastChainElimination", "PreShapeNodeElimination", "NoopElimination"),
    *("DivMulFusion", "FuseReluClip", "GemmSumFusion", "GemmTransposeFusion", "NotWhereFusion"),
    *("ConvAddFusion", "ConvMulFusion", "ConvBNFusion", "Pad_Fusion", "MatMul_BatchNormalization_Fusion"),
    *("LabelEncoderFusion", "ClipQuantRewrite", "ReluQuantRewrite"),
)
"""The rules of ONNX Runtime's rule-based transformers, by the names that `disabled_optimizers` takes."""

LEVELS = ("ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
"""Settings of `graph_optimization_level`, each doing what the one before it does and more."""

_MODIFIED = re.compile(r"GraphTransformer (\S+) modified: 1 ")
_SECONDS = 600.0

_CHILD = """
import json, sys
arguments = json.loads(sys.argv[1])
sys.path[:] = arguments["path"]
from bnfold.errors import BnfoldError
from bnfold.runtime.sessions import session
def verbose(options):
    options.log_severity_level = 1
try:
    session(
        arguments["model"],
        provider=arguments["provider"],
        optimized="default",
        threads=arguments["threads"],
        configure=verbose,
    )
except BnfoldError as error:
    sys.exit(error.problem)
"""


def culprits(
    model: ModelLike,
    feeds: Feeds,
    wrong: Callable[[list[Any]], bool],
    *,
    provider: str = "cpu",
    threads: int = 1,
) -> tuple[str, ...]:
    """Find the graph optimizers without which a model's outputs are right.

    Args:
        model: A path, a `ModelProto` or an `onnx_ir.Model`.
        feeds: Inputs for which the default session is wrong.
        wrong: Says whether outputs, in the model's order, are farther from a reference than they may be.
        provider: Where to run.
        threads: Threads within an operator.

    Returns:
        A smallest set of names, nearly always one, that `InferenceSession(disabled_optimizers=[...])` takes
        and with which the outputs are right: none of them can be left out. Where no set of names helps, the
        lowest of [`LEVELS`][bnfold.runtime.optimizers.LEVELS] at which the outputs are wrong. Empty where the
        default is right, or where the outputs are wrong with the optimizer off as well.

    Raises:
        ModelError: The model cannot be loaded or run.
        ProviderError: The provider is absent, or another one would run the model.
    """

    def right(disabled: Sequence[str] = (), level: str = LEVELS[-1]) -> bool:
        def at_level(options: Any) -> None:
            kind = type(options.graph_optimization_level)
            options.graph_optimization_level = getattr(kind, level)

        made = session(
            model,
            provider=provider,
            optimized="default",
            threads=threads,
            configure=at_level,
            disabled=disabled,
        )
        return not wrong(run(made, feeds))

    if right() or not right(level="ORT_DISABLE_ALL"):
        return ()
    candidates = _expand(modifiers(model, provider=provider, threads=threads))
    if candidates and right(candidates):
        return smallest(right, candidates)
    return (next(level for level in LEVELS if not right(level=level)),)


def modifiers(model: ModelLike, *, provider: str = "cpu", threads: int = 1) -> tuple[str, ...]:
    """Name the graph transformers of the default session that change the model, in the order that they run.

    Raises:
        ModelError: The session could not be made, or no process can be started.
    """
    with tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True) as folder:
        path = _as_file(model, Path(folder) / "model.onnx")
        arguments = {"model": str(path), "provider": provider, "threads": threads, "path": sys.path}
        command = [sys.executable, "-c", _CHILD, json.dumps(arguments)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise ModelError(f"ONNX Runtime's log could not be read: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        raise ModelError(f"ONNX Runtime could not load the model in a separate process: {last}")
    return tuple(dict.fromkeys(_MODIFIED.findall(done.stderr)))


def _as_file(model: ModelLike, path: Path) -> Path:
    """The path of the model, or of a copy of it on disk, whatever its size."""
    if isinstance(model, (str, os.PathLike)):
        return Path(model)
    ir.save(self_contained(as_ir(model)), path, external_data="model.onnx.data")
    return path


def _expand(transformers: Sequence[str]) -> tuple[str, ...]:
    """The names to try: the single rules first, and the transformers, which may consist of them, last."""
    rule_based = any(name.endswith("_RuleBasedTransformer") for name in transformers)
    return (*(RULES if rule_based else ()), *transformers)


def smallest(
    enough: Callable[[Sequence[str]], bool], candidates: Sequence[str], taken: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """The smallest part of `candidates` that is enough together with `taken`.

    It is known that all of them are enough and that `taken` alone is not. QuickXplain halves: first it finds
    what the second half must add to the whole first half, then what the first half must add to that.
    """
    if len(candidates) == 1:
        return tuple(candidates)
    middle = len(candidates) // 2
    first, second = tuple(candidates[:middle]), tuple(candidates[middle:])
    late = () if enough((*taken, *first)) else smallest(enough, second, (*taken, *first))
    early = () if late and enough((*taken, *late)) else smallest(enough, first, (*taken, *late))
    return (*early, *late)
