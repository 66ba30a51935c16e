"""The last step of an export to ONNX Runtime's format: written, run, compared, and then put in place."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from bnfold.contract.ort_format import FOR_X86, write_ort
from bnfold.errors import BnfoldError
from bnfold.files.atomic import destination, replacing, save_errors
from bnfold.pipeline.steps import Done, Trial, bits
from bnfold.runtime.providers import import_runtime

if TYPE_CHECKING:
    from bnfold.runtime.sessions import Written


class OrtDiffersError(BnfoldError):
    """What ONNX Runtime wrote in its format does not compute the same; nothing was written."""

    exit_code = 1


def save_ort(model: ir.Model, target: Path, trial: Trial | None) -> Done:
    """Write a model in ONNX Runtime's format; the file that is there until then is replaced in one step.

    Args:
        model: The model.
        target: The file to write.
        trial: Runs the file against the model; None runs nothing.

    Raises:
        OrtDiffersError: The file does not compute what the model computes.
        BnfoldError: It could not be written; says why.
    """
    from bnfold.runtime.sessions import Written

    import_runtime()
    with closing(Written(model)) as written, tempfile.TemporaryDirectory(prefix="bnfold-") as folder:
        file = Path(folder) / "model.ort"
        source = written.source
        write_ort(source, file)
        said = f"Written in the format of ONNX Runtime {importlib.metadata.version('onnxruntime')}"
        proof: dict[str, Any] | None = None
        if trial is not None:
            proof = _proved(model, written, file, trial, target)
            said += f"; {proof['sentence']}"
        with save_errors(target), replacing(destination(target)) as stream, file.open("rb") as content:
            shutil.copyfileobj(content, stream)
    return Done("format", f"{said}.", {"format": "ort", "proof": proof})


def _proved(model: ir.Model, written: Written, file: Path, trial: Trial, target: Path) -> dict[str, Any]:
    """The outputs of the file are those of the model that it was made of, with the same optimizers."""
    from bnfold.runtime import agreement
    from bnfold.runtime.interface import interface
    from bnfold.runtime.sessions import run, session

    samples = trial.samples(model, written)
    threads = trial.checking.threads
    before = session(written.source, optimized="default", threads=threads, disabled=FOR_X86)
    after = session(str(file), optimized="default", threads=threads)
    ports, equal = interface(model).outputs, True
    for feeds in samples:
        for port, a, b in zip(ports, run(before, feeds), run(after, feeds), strict=True):
            if bits(a) == bits(b):
                continue
            equal = False
            found = agreement.compare(a, b, agreement.TOLERANCES.get(port.type, 0.0))
            if found.problem:
                raise OrtDiffersError(
                    f"{target} was not written: the output {port.name!r} of the file in ONNX Runtime's format"
                    f" differs from the model's. {found.problem}",
                    "Export to .onnx instead, and report this to ONNX Runtime.",
                )
    count = f"{len(samples)} {'sample' if len(samples) == 1 else 'samples'}"
    how = "the same bit for bit as the model's" if equal else "the model's but for last digits"
    return {
        "samples": len(samples),
        "equal": equal,
        "sentence": f"read again, every output of it is {how}, on {count}",
    }
