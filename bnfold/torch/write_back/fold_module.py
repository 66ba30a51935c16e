"""Folding a PyTorch module: a copy without its BatchNorms, whose parameters keep their names."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

import onnx_ir as ir
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bnfold import reasons
from bnfold.display.shown import Shown
from bnfold.errors import DisagreementError, InputError, ModelError, reason
from bnfold.graph.nodes import path_of
from bnfold.result import FoldResult, Merge, Site, by_fate, said
from bnfold.torch.export import refuse_lossy
from bnfold.torch.export.signature import Inputs
from bnfold.torch.export.to_onnx import to_onnx
from bnfold.torch.read.load import Loaded
from bnfold.torch.write_back import verify_eager
from bnfold.torch.write_back.edits import apply
from bnfold.torch.write_back.graph_diff import Comparison, GraphDiff
from bnfold.torch.write_back.parameter_origins import parameter_origins
from bnfold.torch.write_back.refold import Refold, Refusals
from bnfold.torch.write_back.tensor_lookup import named_tensors
from bnfold.torch.write_back.trace_run import TraceRun, expose, trace_run

if TYPE_CHECKING:
    from bnfold.display.plots import Bar

ExampleInputs = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]


@dataclass(frozen=True, repr=False)
class Folded(Shown):
    """A folded copy of a module. It is true if no BatchNorm stays.

    Attributes:
        module: The copy: its type, device, hooks and modes are the original's.
        sites: The fate of every BatchNorm, as in [`FoldResult`][bnfold.result.FoldResult].
        merges: The convolutions that were made of parallel branches.
        nodes_before: Number of operations in the exported graph of the original, constants left out.
        nodes_after: The same after the fold.
        parameters: For every name in the copy's state_dict, the names in the original's whose numbers are in
            it; the tensor that it is made from comes first, and is the only one where nothing was folded.
        notes: Sentences on what else was left as it is, and on how the module was read.
        error: The largest relative error in float64, before the one rounding to the parameters' own type.
    """

    module: nn.Module
    sites: tuple[Site, ...]
    merges: tuple[Merge, ...]
    nodes_before: int
    nodes_after: int
    parameters: Mapping[str, tuple[str, ...]]
    notes: tuple[str, ...]
    error: float

    axis: ClassVar[str] = "sites"

    @property
    def headline(self) -> str:
        """How many BatchNorms are gone, and why others stay."""
        return f"{type(self.module).__name__}: {said(self.sites, self.nodes_before, self.nodes_after)}"

    def __bool__(self) -> bool:
        return not any(site.is_batchnorm for site in self.kept)

    def records(self) -> list[dict[str, Any]]:
        """A row for each BatchNorm."""
        return [site.record() for site in self.sites]

    def bars(self) -> Sequence[Bar]:
        """How many BatchNorms had each fate."""
        return by_fate(self.sites)

    @property
    def folded(self) -> tuple[Site, ...]:
        """The sites that are gone."""
        return tuple(site for site in self.sites if site.status != "kept")

    @property
    def kept(self) -> tuple[Site, ...]:
        """The sites that stay, each with its reason."""
        return tuple(site for site in self.sites if site.status == "kept")


def fold(
    module: nn.Module, example_inputs: ExampleInputs, *, merge: bool = True, keep: Collection[str] = ()
) -> Folded:
    """Fold the BatchNorms of a module into the weights around them, in a copy.

    The folds are found and proved on the exported graph, by the same pass as everywhere in bnfold, and are
    written back where the module has a place for them: under the parameters' own names, with `nn.Identity`
    instead of a BatchNorm. What it has no place for stays, with the reason. At the end the copy is compared
    with the module, both in float64, on the example inputs and on random ones.

    Args:
        module: The module, on any device; it is not changed. Its hooks run, as in every call; they see the
            same values in the copy.
        example_inputs: One tensor, several in order, or several by name. Their shapes are what is exported.
        merge: Whether parallel branches become one convolution where a module around them is only that.
        keep: Names of BatchNorms, by their path in the module, that stay as they are.

    Returns:
        The folded copy and what became of every BatchNorm.

    Raises:
        InputError: The module does not run on these inputs in float64, or a name in `keep` is not in it.
        ModelError: It cannot be copied, exported, or run once it is folded.
        DisagreementError: The copy computes something else. That would be a mistake in bnfold.

    Examples:
        >>> bnfold.torch.fold(net, x)
        <Folded: Sequential: 1 of 1 BatchNorm folded; 3 → 2 nodes.>
    """
    args, kwargs = _in_order_and_by_name(example_inputs)
    with torch.random.fork_rng(devices=[]):  # the module may draw random numbers
        original = _in_float64(module)
        exported = copy.deepcopy(original)
        run = trace_run(exported, args, kwargs)
        graph, owners = _graph(exported, run, kwargs or args)
        comparison = Comparison(graph, exported, module, run)
        refusals = Refusals({}, {value: partial(reasons.HOOK, module=path) for value, path in owners.items()})

        def error_of(difference: GraphDiff) -> float:
            return verify_eager.compare(original, _applied(difference, original), args, kwargs)

        refold = Refold(graph, comparison, refusals, error_of, merge, frozenset(keep))
        result, difference, error = refold.run()
        made = _applied(difference, module)
        _check_rounding(_applied(difference, original), made)
    return Folded(
        made,
        tuple(_sites(result, refusals)),
        result.merges,
        result.nodes_before,
        result.nodes_after,
        parameter_origins(module, made, difference, result),
        tuple(_notes(module, graph, result, refusals.apart.values())),
        error,
    )


def _in_order_and_by_name(inputs: ExampleInputs) -> tuple[tuple[torch.Tensor, ...], dict[str, torch.Tensor]]:
    """The example inputs on the CPU and with float64 for every float."""
    args: tuple[torch.Tensor, ...] = ()
    kwargs: dict[str, torch.Tensor] = {}
    if isinstance(inputs, Mapping):
        kwargs = dict(inputs)
    elif isinstance(inputs, torch.Tensor) or not isinstance(inputs, Sequence):
        args = (inputs,)
    else:
        args = tuple(inputs)
    if not all(isinstance(value, torch.Tensor) for value in (*args, *kwargs.values())):
        raise InputError(
            "The example inputs are not all tensors.",
            "Give one tensor, a tuple of tensors in the order of forward, or a dictionary by its names.",
        )
    if not all(value.numel() for value in (*args, *kwargs.values())):
        raise InputError("An example input has no elements.", "Nothing can be compared on it: give it some.")
    return tuple(map(_wide, args)), {name: _wide(value) for name, value in kwargs.items()}


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """A copy, into which a forward may write."""
    tensor = tensor.detach().cpu().clone()
    return tensor.double() if tensor.is_floating_point() else tensor


def _in_float64(module: nn.Module) -> nn.Module:
    """A copy in eval mode, on the CPU."""
    if any(is_lazy(tensor) for tensor in (*module.parameters(), *module.buffers())):
        raise InputError("The module has layers without a shape yet.", "Run it once, then fold it.")
    for path, part in module.named_modules():
        if isinstance(part, torch.jit.ScriptModule):
            raise InputError(
                f"TorchScript{path and f' at {path}'} has no modules to write back to.",
                "Fold the module that it was made from.",
            )
        if hasattr(part, "_orig_mod"):
            raise InputError(
                f"The module{path and f' at {path}'} was made by torch.compile.",
                "Fold the module that it was made from, its _orig_mod, and compile the copy.",
            )
    try:
        made = copy.deepcopy(module)
        if shared := _own(module) & _own(made):
            raise TypeError(
                f"copy.deepcopy returns {len(shared)} of its parts or tensors themselves, not copies"
            )
        made.cpu().double().eval()  # what it returns is not used: an overridden `train` may return nothing
    except Exception as error:  # a module may hold what cannot be copied, each in its own way
        raise ModelError(
            f"The module cannot be copied: {reason(error)}.",
            "copy.deepcopy(module) has to work. Computed weights prevent it: undo weight_norm and pruning"
            " first (remove_weight_norm, prune.remove), or use those of torch.nn.utils.parametrizations.",
        ) from error
    return made


def _own(module: nn.Module) -> set[int]:
    """What a module is made of, by identity."""
    return {id(one) for one in (*module.modules(), *module.parameters(), *module.buffers())}


def _applied(difference: GraphDiff, module: nn.Module) -> nn.Module:
    """A copy of `module` with the edits."""
    made = copy.deepcopy(module)
    apply(difference.edits, made)
    return made


def _graph(module: nn.Module, run: TraceRun, inputs: Inputs) -> tuple[ir.Model, dict[str, str]]:
    """Export, with the values that hooks see as outputs, so that no fold changes them; name their modules."""
    owners = expose(module, run.hooked)
    graph = to_onnx(Loaded(module, "module", was_training=False), inputs)
    seen = [value.name or "" for value in graph.graph.outputs][len(graph.graph.outputs) - len(owners) :]
    return graph, dict(zip(seen, owners, strict=True))


def _check_rounding(exact: nn.Module, made: nn.Module) -> None:
    """The result must be what was verified, rounded once to each tensor's type."""
    wide, own = dict(named_tensors(exact)), dict(named_tensors(made))
    same = wide.keys() == own.keys() and all(
        verify_eager.relative_error(wide[name].to(tensor.dtype), tensor.cpu()) == 0
        for name, tensor in own.items()
    )
    if not same:
        raise DisagreementError("The copy is not what was verified.", "Please report this with the model.")


def _sites(result: FoldResult[ir.Model], refusals: Refusals) -> Iterator[Site]:
    """The sites with reasons in terms of the module, without arithmetic in its code."""
    for site in result.sites:
        why = refusals.translated(site.reason, site)
        after = refusals.translated(site.reason_after, site)
        if site.op_type == "BatchNormalization" or why == site.reason:
            yield replace(site, reason=why, reason_after=after)


def _notes(
    module: nn.Module, graph: ir.Model, result: FoldResult[ir.Model], apart: Iterable[str]
) -> list[str]:
    notes = []
    if any(part.training for part in module.modules()):
        notes.append("The module is in train mode; it was folded as it computes in eval mode.")
    if untrained := refuse_lossy.untrained(module.state_dict()):
        notes.append(untrained)
    if all(path_of(node) is None for node in graph.graph):
        notes.append("The exporter kept no module paths, so nothing could be written back.")
    if names := ", ".join(dict.fromkeys(apart)):
        notes.append(
            f"Branches that the forward adds up are left apart: {names}. They would be one convolution if a"
            " module around them did nothing but add them up, with at most one activation after them."
        )
    return [*notes, *(f"Branches are left apart: {reason.sentence}" for reason in result.apart)]
