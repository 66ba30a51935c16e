"""`bnfold export --to`: write a PyTorch file instead of an ONNX file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from . import _groups, _terminal

if TYPE_CHECKING:
    from bnfold.torch.write_back.save import Form

_SUFFIXES = {"pt2": ".folded.pt2", "module": ".folded.pt", "state_dict": ".folded.state_dict.pt"}
_OF_TORCH = frozenset({".pt", ".pth", ".pt2", ".ckpt", ".safetensors"})
_NOT_OF_TORCH = frozenset({".onnx", ".ort", ".safetensors"})
_OF_ONNX = frozenset({"", ".onnx", ".ort"})
_LATER = {
    ".dlc": "Qualcomm's converter",
    ".engine": "TensorRT",
    ".espdl": "ESP-PPQ",
    ".har": "the Hailo Dataflow Compiler",
    ".hef": "the Hailo Dataflow Compiler",
    ".mnn": "MNNConvert",
    ".param": "pnnx",
    ".plan": "TensorRT",
    ".pte": "ExecuTorch",
    ".rknn": "RKNN-Toolkit2",
    ".tflite": "the LiteRT converter",
    ".trt": "TensorRT",
    ".xml": "OpenVINO's converter",
}
"""How the files of toolchains end, and what writes them from the file that bnfold writes."""
_READING = (
    "input_shape",
    "dtype",
    "arch",
    "arch_args",
    "key",
    "allow",
    "trust",
    "dynamic",
    "ignore_unexpected",
)
_ALLOWED = {
    *(*_READING, "merge", "keep", "model", "output", "form", "no_bench", "target"),
    *("json_path", "quiet", "verbose"),
}

option = _groups.together(
    "The file",
    click.option(
        "--to",
        "form",
        type=click.Choice(list(_SUFFIXES)),
        help="Write a PyTorch file instead of ONNX: a program of torch.export, the pickled module, or only"
        " its weights. The folded module is verified in eager mode and float64.",
    ),
)


def check_name(output: Path | None, form: Form | None, target: str | None = None) -> None:
    """Refuse a name that says another kind of file than is written.

    Args:
        output: The name; None where none was given.
        form: What is written; None for an ONNX file.
        target: What the file is for, if that is why it has this form.

    Raises:
        InputError: The name is one of a PyTorch file, and ONNX is written, or the other way round, or it is
            one that neither has.
    """
    from bnfold.errors import InputError

    if output is None or output.is_dir():  # a folder is refused where the file is written
        return
    suffix = output.suffix.lower()
    if form is None and suffix in _OF_TORCH:
        other = output.with_suffix(".onnx")
        to = "--to pt2" if suffix == ".pt2" else "--to module or --to state_dict"
        raise InputError(
            f"{output} is the name of a PyTorch file, but an ONNX file would be written.",
            f"Call it {other}."
            if target is not None
            else f"For a PyTorch file, add {to} to bnfold export; for ONNX, call it {other}.",
        )
    if form is None:
        known = suffix in _OF_ONNX
    else:
        known = suffix in {"", ".pt2"} if form == "pt2" else suffix not in {*_NOT_OF_TORCH, *_LATER}
    if known:
        return
    own = ".onnx" if form is None else Path(_SUFFIXES[form]).suffix
    replaced = suffix in {*_LATER, *_OF_ONNX, *_OF_TORCH, ".html", ".json"} - {""}
    other = output.with_suffix(own) if replaced else output.with_name(f"{output.name}{own}")
    if form is not None and suffix not in _LATER:
        what = f"--to {form} writes" if target is None else f"is written for --target {target}"
        leave = ", or leave --to out for an ONNX file." if suffix == ".onnx" and target is None else "."
        raise InputError(f"{output} is not a name for what {what}.", f"Call it {other}{leave}")
    said = f"{output} is not the name of an ONNX file, which is what would be written."
    if suffix in _LATER:
        kind = "a PyTorch" if form else "an ONNX"
        said = f"{output} is what {_LATER[suffix]} writes afterwards, from {kind} file of bnfold's."
    raise InputError(said, f"Call it {other}.")


def export(model: Path, output: Path | None, form: Form, json_path: Path | None, *, quiet: bool) -> Path:
    """Do the whole job and print its report, with the options of the running command.

    Returns:
        The file that was written.
    """
    from bnfold.errors import InputError
    from bnfold.files.file_kind import kind_of
    from bnfold.options import Reading
    from bnfold.pipeline.export_module import export_module
    from bnfold.report import module as report

    context = click.get_current_context()
    refused = [
        f"--{name.removesuffix('_path').replace('_', '-')}"
        for name in context.params
        if name not in _ALLOWED and context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    ]
    if refused:
        raise InputError(
            f"{', '.join(refused)} has no meaning with {_asked(context, form)}.",
            "Leave it out: it is for ONNX files.",
        )
    kind_of(model)  # raises the usual error if it is not a file
    destination = output or model.with_suffix(_SUFFIXES[form])
    _terminal.check_report(json_path, model, destination)
    reading = Reading(**{name: context.params[name] for name in _READING})
    folding = {name: context.params[name] for name in ("merge", "keep")}
    with _terminal.progress(quiet=quiet) as progress:
        done = export_module(model, destination, form, reading, **folding, progress=progress)
    if json_path is not None:
        _terminal.write_json(report.module_document(done), json_path)
    shown = report.module_report(done, verbose=context.params["verbose"])
    _terminal.show(shown, quiet=quiet, json_path=json_path)
    return destination


def _asked(context: click.Context, form: Form) -> str:
    """The option that asked for a form: `--target` where `--to` was not typed."""
    typed = context.params["form"] is not None
    return f"--to {form}" if typed else f"--target {context.params['target']}"
