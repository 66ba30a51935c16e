"""PyTorch to ONNX with every BatchNorm still in its place, constants evaluated, module paths kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import onnx_ir as ir
import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import InputError, MissingExtraError, ModelError, reason
from bnfold.runtime import bounded_run
from bnfold.torch.export import open_sizes as sizes_
from bnfold.torch.export import opset as opset_
from bnfold.torch.export import refuse_lossy, symbols, torchscript_exporter
from bnfold.torch.export.example_inputs import Note, discard
from bnfold.torch.export.outputs import Outputs, name_outputs, outputs_of
from bnfold.torch.export.signature import Inputs
from bnfold.torch.export.verify import Run, Sample, Verifier
from bnfold.torch.read.load import Loaded
from bnfold.torch.run_quietly import eval_mode, quiet, silent, untouched

_LARGEST_CONSTANT = 10**8  # elements; above the largest weight, which may have to be evaluated


@dataclass(frozen=True)
class _Job:
    """What is exported, on which inputs, and how.

    Attributes:
        source: The module, in eval mode; or the program.
        inputs: By name, in the order of `forward`; open sizes are at least 2.
        by_name: Whether `forward` is called with their names.
        sizes: Which of their sizes stay open.
        opset: The opset of the result; the exporter's default when None.
        ir_version: Its IR version, likewise.
        note: Called with what the user should know.
    """

    source: nn.Module | ExportedProgram
    inputs: Mapping[str, torch.Tensor]
    by_name: bool
    sizes: sizes_.Sizes
    opset: int | None
    ir_version: int | None
    note: Note

    @property
    def args(self) -> tuple[torch.Tensor, ...]:
        return () if self.by_name else tuple(_own(self.inputs).values())

    @property
    def kwargs(self) -> dict[str, torch.Tensor]:
        return _own(self.inputs) if self.by_name else {}

    def call(self, module: nn.Module) -> Run:
        """A call of `module`, in order or by name as in the job."""
        return lambda inputs: module(**_own(inputs)) if self.by_name else module(*_own(inputs).values())


def _own(inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copies, into which a forward may write."""
    return {name: tensor.clone() for name, tensor in inputs.items()}


def to_onnx(
    loaded: Loaded,
    inputs: Inputs,
    *,
    opset: int | None = None,
    ir_version: int | None = None,
    dynamic: Sequence[str] = (),
    note: Note = discard,
) -> ir.Model:
    """Export `loaded` in eval mode, and compare the export with it in ONNX Runtime.

    The exporter's own optimiser folds Conv and BatchNorm, without saying which and in the weights' own type;
    it stays off, and only constants are evaluated. Nodes keep the path of their module as the
    metadata `pkg.torch.onnx.name_scopes`. If the newer exporter fails, or gets it wrong, the older one, which
    is based on TorchScript, is tried; the same comparison decides.

    Args:
        loaded: The model. Every training flag and every buffer is restored when this returns or raises.
        inputs: Example inputs, in order or by name; for an exported program they may be empty; then
            nothing is compared.
        opset: The ONNX opset to write, 7 or newer; the exporter's default when None.
        ir_version: The IR version to write; the exporter's default when None.
        dynamic: Sizes to leave open, as `"batch"`, `"2=height"`, `"x:2=height"`; the export is also run at
            other sizes. An exported program has its own open sizes, which this only names.
        note: Called with what the user should know, as sentences.

    Raises:
        InputError: The model does not run on these inputs, or takes no other size where one is to be open.
        ModelError: The model does in eval mode what no export keeps; or the exporter cannot translate it, or
            not to this opset, or gets it wrong.
        MissingExtraError: onnxscript is not installed.
    """
    try:
        import onnxscript  # noqa: F401  (only to say how to install it)
    except ModuleNotFoundError:
        raise MissingExtraError("onnxscript", "torch", "export PyTorch models to ONNX") from None
    opset_.check(opset, ir_version)
    wanted = sizes_.parse_dynamic(dynamic)
    source = loaded.source
    if isinstance(source, ExportedProgram):
        model = _export_program(source, inputs, opset, ir_version, note)
        symbols.name_sizes(model, wanted)
        return model
    refuse_lossy.refuse_lazy(source)
    named, sizes = sizes_.opened(source, inputs, wanted)
    job = _Job(source, named, isinstance(inputs, Mapping), sizes, opset, ir_version, note)
    with eval_mode(source):
        return _export_module(job)


def _export_program(
    program: ExportedProgram, inputs: Inputs, opset: int | None, ir_version: int | None, note: Note
) -> ir.Model:
    refuse_lossy.refuse_program(program)
    if untrained := refuse_lossy.untrained(program.state_dict):
        note(untrained)
    tensors = tuple(inputs.values() if isinstance(inputs, Mapping) else inputs)
    names = [str(name) for name in program.graph_signature.user_inputs]
    job = _Job(program, dict(zip(names, tensors, strict=False)), False, {}, opset, ir_version, note)
    if not tensors:
        return _attempt(job, _dynamo, None, ())
    try:
        with quiet():
            module = program.module()
            result = bounded_run.run(lambda: _without_gradients(job, module, job.inputs))
    except Exception as error:  # whatever its operators raise
        raise ModelError(
            f"The program does not run on inputs of its own sizes: {reason(error)}.", "Export it again."
        ) from error
    sample = Sample(job.inputs, outputs_of(result))
    return _attempt(job, _dynamo, module, [sample])


def _export_module(job: _Job) -> ir.Model:
    """Try one exporter after the other; if both fail, the first one's error is raised."""
    assert isinstance(job.source, nn.Module), "programs are exported above"
    samples = [Sample(job.inputs, _observed(job, job.source)), *_elsewhere(job, job.source)]
    if untrained := refuse_lossy.untrained(job.source.state_dict()):
        job.note(untrained)
    if isinstance(job.source, torch.jit.ScriptModule):
        model = _attempt(job, _legacy, job.source, samples)
        job.note("TorchScript goes through PyTorch's legacy exporter: torch.export does not take it.")
        return model
    try:
        return _attempt(job, _dynamo, job.source, samples)
    except ModelError as error:
        problem = error
    if isinstance(problem.__cause__, bounded_run.TooLongError):
        raise problem
    if job.opset is not None and job.opset not in torchscript_exporter.NATIVE:
        raise problem
    try:
        model = _attempt(job, _legacy, job.source, samples)
    except ModelError:
        raise problem from None
    job.note(f"Exported by PyTorch's legacy exporter, because the newer one failed: {problem.problem}")
    return model


def _observed(job: _Job, module: nn.Module) -> Outputs:
    """Run the module itself; where it fails, its own message is clearer than any exporter's."""
    try:
        with quiet():
            result, refusals = bounded_run.run(lambda: refuse_lossy.watched(module, job.args, job.kwargs))
    except Exception as error:  # the user's own code
        tensors = job.inputs.values()
        shapes = ", ".join("x".join(map(str, tensor.shape)) or "scalar" for tensor in tensors)
        types = ", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors}))
        raise InputError(
            f"The model does not run on inputs of shape {shapes} ({types}): {reason(error)}.",
            "Give the shape it expects with --input-shape, the type with --dtype.",
        ) from error
    if refusals:
        raise refusals[0]
    return outputs_of(result)


def _attempt(
    job: _Job, exporter: Callable[[_Job], ir.Model], module: nn.Module | None, samples: Sequence[Sample]
) -> ir.Model:
    """Export, clean, convert, name, and compare."""
    try:
        with refuse_lossy.instance_norms_as_batch_norms(job.source):
            model = exporter(job)
    except Exception as error:  # the exporter runs the model, which can raise anything
        raise ModelError(
            f"The model could not be exported to ONNX: {_first_useful_line(error)}.",
            "Make it pass torch.onnx.export(model, inputs, dynamo=True), or give an .onnx file.",
        ) from error
    model = _finished(job, model)
    _refuse_fixed(job, model)
    if module is not None:
        single = "output" if exporter is _legacy else None  # which names it by a number
        name_outputs(model, samples[0].outputs.names, single=single)
        _compare(job, model, module, samples)
    return model


def _finished(job: _Job, model: ir.Model) -> ir.Model:
    import onnxscript

    with silent():
        onnxscript.optimizer.fold_constants(
            model, input_size_limit=_LARGEST_CONSTANT, output_size_limit=_LARGEST_CONSTANT
        )
        onnxscript.optimizer.remove_unused_nodes(model)
    if job.opset is not None and model.graph.opset_imports.get("") != job.opset:
        model = opset_.convert(model, job.opset)
    if job.ir_version is not None:
        opset_.set_ir_version(model, job.ir_version)
    return model


def _dynamo(job: _Job) -> ir.Model:
    """Export by torch.export."""
    native = opset_.NATIVE
    call = partial(
        torch.onnx.export,
        job.source,
        () if isinstance(job.source, ExportedProgram) else job.args,
        kwargs=job.kwargs or None,
        dynamo=True,
        optimize=False,
        verbose=False,
        opset_version=None if job.opset is None else min(max(job.opset, native[0]), native[-1]),
        dynamic_shapes=job.sizes if any(job.sizes.values()) else None,
    )
    with silent():  # which the process is, and not the thread alone
        program = bounded_run.run(call, torchscript_exporter.SECONDS)
    if program is None:
        raise ModelError("torch.onnx.export returned no model.", "Install torch 2.9 or newer.")
    return program.model


def _legacy(job: _Job) -> ir.Model:
    """Export by TorchScript."""
    assert isinstance(job.source, nn.Module), "programs have no other exporter"
    return torchscript_exporter.export(
        job.source, job.args, job.kwargs, names=list(job.inputs), opset=job.opset, sizes=job.sizes
    )


def _first_useful_line(error: BaseException) -> str:
    """The innermost cause's first line; the exporter wraps it in pages of advice."""
    while error.__cause__ is not None:
        error = error.__cause__
    return reason(error)


def _elsewhere(job: _Job, module: nn.Module) -> list[Sample]:
    """What the module returns at a larger and at a smaller size for each one that is open."""
    found: list[Sample] = []
    stuck = dict.fromkeys(name for axes in job.sizes.values() for name in axes.values())
    for name, tries in sizes_.other_sizes(job.inputs, job.sizes):
        for length, inputs in tries:
            try:
                with untouched(module), quiet():
                    outputs = outputs_of(bounded_run.run(partial(_without_gradients, job, module, inputs)))
            except Exception:  # a size that the user's own code does not take
                continue
            found.append(Sample(inputs, outputs, f" at {name} {length}"))
            stuck.pop(name, None)
            break
    for name in stuck:
        raise InputError(
            f"{name} cannot stay open: the model takes no other size there.", f"Leave --dynamic {name} out."
        )
    return found


def _without_gradients(job: _Job, module: nn.Module, inputs: Mapping[str, torch.Tensor]) -> object:
    with torch.no_grad():  # which torch keeps for each thread
        return job.call(module)(inputs)


def _compare(job: _Job, model: ir.Model, module: nn.Module, samples: Sequence[Sample]) -> None:
    """Compare the export with the module on every sample."""
    kinds = {tensor.dtype for one in samples for tensor in (*one.inputs.values(), *one.outputs.tensors)}
    if torch.bfloat16 in kinds:
        job.note("The export was not compared with the module: NumPy has no bfloat16.")
        return
    try:
        verifier = Verifier(model, module, job.call)
    except MissingExtraError:
        job.note("The export was not compared with the module: ONNX Runtime is not installed.")
        return
    except ModelError as error:
        if job.opset is not None:
            raise ModelError(
                f"The export does not run at opset {job.opset}: {error.problem}", "Take another --opset."
            ) from error
        job.note(f"The export was not compared with the module: {error.problem}")
        return
    for sample in samples:
        verifier.check(sample)


def _refuse_fixed(job: _Job, model: ir.Model) -> None:
    """Refuse an export with a fixed number for a size that should stay open."""
    for value in model.graph.inputs:
        for axis, name in job.sizes.get(value.name or "", {}).items():
            if value.shape is not None and isinstance(value.shape[axis], int):
                raise ModelError(
                    f"The exporter fixed {name}, axis {axis} of {value.name}.", f"Leave --dynamic {name} out."
                )
