"""The size of a model in addition to its time: file, nodes, parameters, multiply-adds, memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.errors import BnfoldError
from bnfold.files.external_data import data_files, tensors
from bnfold.graph.nodes import count_nodes
from bnfold.latency import memory_probe
from bnfold.runtime import sessions
from bnfold.runtime.interface import as_ir
from bnfold.runtime.providers import import_runtime, provider_list
from bnfold.runtime.sessions import Feeds

_SECONDS = 120.0
_CONFIG = ("session.intra_op.allow_spinning", "session.inter_op.allow_spinning")


@dataclass(frozen=True)
class Footprint:
    """The size of one model.

    Attributes:
        bytes: Size of its file and of the files with its weights; for a model in memory, of the file that
            would be written.
        nodes: Number of nodes in all scopes, without `Constant`.
        parameters: Number of elements in all its constants: weights, and also shapes and the like.
        multiply_adds: Multiply-adds of its convolutions and matrix products on the inputs that were timed
            first; None where they cannot be counted.
        peak_memory: Largest growth in bytes of a new process while it loads the model and runs it once, after
            ONNX Runtime was imported. None where the platform does not say.
    """

    bytes: int
    nodes: int
    parameters: int
    multiply_adds: int | None = None
    peak_memory: int | None = None


def footprint(file: Path, feeds: Feeds, provider: str | None, threads: int) -> Footprint:
    """Measure the size of a model at ONNX Runtime's default.

    Args:
        file: The model.
        feeds: Inputs by name.
        provider: Its short name; the memory is the host's in all cases. None leaves the memory out.
        threads: Threads within an operator.
    """
    model = as_ir(file)
    constants = list(tensors(model))
    return Footprint(
        bytes=sum(path.stat().st_size for path in (file, *data_files(model))),
        nodes=count_nodes(model),
        parameters=sum(tensor.size for tensor in constants),
        multiply_adds=_multiply_adds(model, feeds),
        peak_memory=None if provider is None else _peak_memory(file, feeds, provider, threads),
    )


def _multiply_adds(model: ir.Model, feeds: Feeds) -> int | None:
    from bnfold.oracle.multiply_adds import multiply_adds

    try:
        return multiply_adds(model, feeds)
    except BnfoldError:
        return None


def _peak_memory(file: Path, feeds: Feeds, provider: str, threads: int) -> int | None:
    """Run `memory_probe` on the model; None where it gives no answer."""
    with tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True) as folder:
        arrays = [
            array.astype(str) if array.dtype.kind == "O" else array
            for array in map(np.asarray, feeds.values())
        ]
        stored = Path(folder) / "feeds.npz"
        np.savez(stored, *arrays)
        request = json.dumps(
            {"model": str(file), "feeds": str(stored), "names": list(feeds)} | _conditions(provider, threads)
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
        try:
            done = subprocess.run(
                [sys.executable, memory_probe.__file__, request],
                capture_output=True,
                check=True,
                timeout=_SECONDS,
                env=environment,
            )
            return int(json.loads(done.stdout))
        except (OSError, subprocess.SubprocessError, ValueError):
            return None


def _conditions(provider: str, threads: int) -> dict[str, Any]:
    """The settings of `sessions` in a form that can be passed to another process."""
    runtime = import_runtime()
    options = sessions.session_options(runtime, "default", threads)
    return {
        "level": options.graph_optimization_level.name,
        "threads": options.intra_op_num_threads,
        "config": {key: options.get_session_config_entry(key) for key in _CONFIG},
        "providers": provider_list(runtime, provider, threads=threads),
    }
