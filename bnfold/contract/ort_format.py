"""ONNX Runtime's own format: its optimized graph, which its builds for small devices read without protobuf.

The file is what `onnxruntime.tools.convert_onnx_models_to_ort` makes for any processor: all optimizers at
their default but the one that arranges weights for x86, whose file others could not run.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bnfold.errors import ModelError
from bnfold.runtime.sessions import ModelLike, session

if TYPE_CHECKING:
    import onnxruntime as ort

FOR_X86 = ("NchwcTransformer",)
"""Optimizers whose result other processors cannot run."""


def write_ort(model: ModelLike | bytes, path: Path, threads: int | None = None) -> None:
    """Write a model in ONNX Runtime's format to a new file.

    Args:
        model: The model.
        path: Where to write it; its name must end in `.ort`.
        threads: As in [`session`][bnfold.runtime.sessions.session].

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ModelError: It cannot load the model, or cannot write it in its format; names the operator.
    """
    session(
        model,
        optimized="default",
        threads=threads,
        configure=partial(_write_to, path),
        disabled=FOR_X86,
    )
    if not path.is_file():
        raise ModelError(
            "ONNX Runtime wrote no file in its format.",
            "Export to .onnx, and convert it with onnxruntime.tools.",
        )


def _write_to(path: Path, options: ort.SessionOptions) -> None:
    options.optimized_model_filepath = str(path)
    options.add_session_config_entry("session.save_model_format", "ORT")
