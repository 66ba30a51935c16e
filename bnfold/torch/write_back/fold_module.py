"""Back into PyTorch: a module without its BatchNorms, its numbers under their own names."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import onnx_ir as ir
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from bnfold import reasons
from bnfold.errors import BnfoldError, DisagreementError, InputError, ModelError, reason
from bnfold.folding.fold import fold as fold_graph
from bnfold.graph.nodes import module_name, path_of
from bnfold.reasons import GRAPH_OUTPUT, ON_REQUEST, Reason
from bnfold.result import FoldResult, Merge, Site
from bnfold.torch.export import refuse_lossy
from bnfold.torch.export.to_onnx import to_onnx
from bnfold.torch.read.load import Loaded
from bnfold.torch.write_back import verify_eager
from bnfold.torch.write_back.edits import apply
from bnfold.torch.write_back.graph_diff import Comparison, Difference
from bnfold.torch.write_back.parameter_origins import origins
from bnfold.torch.write_back.tensor_lookup import named_tensors
from bnfold.torch.write_back.trace_run import Rehearsal, expose, rehearse

ExampleInputs = torch.Tensor | Sequence[torch.Tensor] | Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Folded:
    """A folded copy of a module.

    Attributes:
        module: The copy: its type, device, hooks and modes are the original's.
        sites: The fate of every BatchNorm, as in [`FoldResult`][bnfold.result.FoldResult].
        merges: The convolutions that were made of parallel branches.
        nodes_before: Number of operations in the exported graph of the original, constants left out.
        nodes_after: The same after the fold.
        parameters: For every name in the copy's state_dict, the names in the original's whose numbers are in
            it; the tensor that it is made from comes first, and is the only one where nothing was folded.
        notes: Sentences on what was left as it is beside the sites, and on how the module was taken.
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
    written back where the module has a place for them: under the parameters' own names, with `nn.Identity` in
    the place of a BatchNorm. What it has no place for stays, with the reason. At the end the copy is run
    beside the module, both in float64, on the example inputs and on random ones.

    Args:
        module: The module, on any device; it is not changed. Its hooks run, as in every call; what they see
            stays the same in the copy.
        example_inputs: One tensor, several in order, or several by name. Their shapes are what is exported.
        merge: Whether parallel branches become one convolution where a module around them is only that.
        keep: Names of BatchNorms, by their path in the module, that shall stay as they are.

    Returns:
        The folded copy and what became of every BatchNorm.

    Raises:
        InputError: The module does not run on these inputs in float64, or a name in `keep` is none in it.
        ModelError: It cannot be copied, exported, or run once it is folded.
        DisagreementError: The copy computes something else. That would be a mistake in bnfold.
    """
    args, kwargs = _in_order_and_by_name(example_inputs)
    with torch.random.fork_rng(devices=[]):  # the module may draw random numbers
        original = _in_float64(module)
        exported = copy.deepcopy(original)
        rehearsal = rehearse(exported, args, kwargs)
        graph, owners = _graph(exported, rehearsal, kwargs or args)
        comparison = Comparison(graph, exported, module, rehearsal)
        refusals = _Refusals({}, {value: _is_hooked(path) for value, path in owners.items()})

        def error_of(difference: Difference) -> float:
            return verify_eager.compare(original, _applied(difference, original), args, kwargs)

        result, difference, error = _fold_what_holds(
            graph, comparison, refusals, error_of, merge, frozenset(keep)
        )
        made = _applied(difference, module)
        _check_rounding(_applied(difference, original), made)
    return Folded(
        made,
        tuple(_sites(result, refusals)),
        result.merges,
        result.nodes_before,
        result.nodes_after,
        origins(module, made, difference, result),
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
    """A tensor of its own, into which a forward may write."""
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
                f"The module{path and f' at {path}'} is one of torch.compile.",
                "Fold the module that it was made from, its _orig_mod, and compile the copy.",
            )
    try:
        made = copy.deepcopy(module)
        if shared := _own(module) & _own(made):
            raise TypeError(
                f"copy.deepcopy gives {len(shared)} of its parts or tensors and no copies of them"
            )
        made.cpu().double().eval()  # each need not return the module: many an own `train` returns nothing
    except Exception as error:  # a module may hold what cannot be copied, each in its own way
        raise ModelError(
            f"The module cannot be copied: {reason(error)}.",
            "copy.deepcopy(module) has to work. Computed weights hinder it: undo weight_norm and pruning"
            " first (remove_weight_norm, prune.remove), or take those of torch.nn.utils.parametrizations.",
        ) from error
    return made


def _own(module: nn.Module) -> set[int]:
    """What a module is made of, by identity."""
    return {id(one) for one in (*module.modules(), *module.parameters(), *module.buffers())}


def _applied(difference: Difference, module: nn.Module) -> nn.Module:
    """A copy with its edits."""
    made = copy.deepcopy(module)
    apply(difference.edits, made)
    return made


def _graph(
    module: nn.Module, rehearsal: Rehearsal, inputs: tuple[torch.Tensor, ...] | dict[str, torch.Tensor]
) -> tuple[ir.Model, dict[str, str]]:
    """Export; the values that hooks see are outputs, which no fold changes, and are told by their names."""
    owners = expose(module, rehearsal.hooked)
    graph = to_onnx(Loaded(module, "module", was_training=False), inputs)
    seen = [value.name or "" for value in graph.graph.outputs][len(graph.graph.outputs) - len(owners) :]
    return graph, dict(zip(seen, owners, strict=True))


@dataclass
class _Refusals:
    """What the module has no place for, as the fold meets it: nodes to keep, values that are outputs.

    Attributes:
        nodes: Why, by the node's name.
        values: What to say of a site that would change a value, by the value's name.
        apart: How a report calls the branches that could not be merged.
    """

    nodes: dict[str, Reason]
    values: dict[str, Callable[[str], Reason]]
    apart: dict[str, str] = field(default_factory=dict)

    def copy(self) -> _Refusals:
        """The same for now, for a fold on trial."""
        return _Refusals(dict(self.nodes), dict(self.values), dict(self.apart))

    def translated(self, reason: Reason | None, site: Site) -> Reason | None:
        """A reason of the fold in terms of the module."""
        if reason is not None and reason.rule is ON_REQUEST:
            return self.nodes.get(reason.facts["node"], reason)
        if reason is not None and reason.rule is GRAPH_OUTPUT and reason.facts["value"] in self.values:
            return self.values[reason.facts["value"]](site.name)
        return reason


def _fold_what_holds(
    graph: ir.Model,
    comparison: Comparison,
    refusals: _Refusals,
    error_of: Callable[[Difference], float],
    merge: bool,
    keep: frozenset[str],
) -> tuple[FoldResult[ir.Model], Difference, float]:
    """Fold what fits, without what the module's code turns out to depend on where no graph shows it.

    A forward may ask whether a layer has a bias, return a norm of its weight, multiply by a size, or take
    another path at another one. The graph knows one run only; the copy in eager mode shows the rest.

    Args:
        graph: The original.
        comparison: Of `graph`.
        refusals: What the module has no place for; what is found is added.
        error_of: Runs the folded copy, and raises where it does not hold.
        merge: As in `fold`, like the next.
        keep: Names of BatchNorms.
    """
    while True:
        result, difference = _fold_what_fits(graph, comparison, refusals, merge, keep)
        try:
            return result, difference, error_of(difference)
        except (ModelError, DisagreementError):
            found = _dependent(graph, comparison, refusals, error_of, result.folded, merge, keep)
            if not found and not result.merges:
                raise
            if not found:  # no BatchNorm alone is to blame, so it is what they have become together
                merge = False
                refusals.apart.update({one.into: one.into for one in result.merges})
            refusals.nodes.update(found)


def _dependent(
    graph: ir.Model,
    comparison: Comparison,
    refusals: _Refusals,
    error_of: Callable[[Difference], float],
    suspects: Sequence[Site],
    merge: bool,
    keep: frozenset[str],
) -> dict[str, Reason]:
    """The sites whose folds do not hold even if they are alone; the arguments are as above."""
    nodes = frozenset(site.node for site in suspects)

    def tried(sites: Sequence[Site]) -> tuple[Sequence[Site], BnfoldError | None]:
        others = nodes - {site.node for site in sites}
        went: Sequence[Site] = ()
        with _outputs_restored(graph):
            try:
                result, difference = _fold_what_fits(graph, comparison, refusals.copy(), merge, keep | others)
                went = result.folded
                error_of(difference)
            except (ModelError, DisagreementError) as problem:
                return went, problem
        return went, None

    instead, problem = tried([])
    if problem is not None:  # where they stay others go, arithmetic of the forward, and those are to blame
        more = keep | nodes
        return _dependent(graph, comparison, refusals, error_of, instead, merge, more) if instead else {}
    return {
        site.node: reasons.DEPENDS(node=site.name, problem=found.problem)
        for site, found in _culprits(suspects, lambda sites: tried(sites)[1])
    }


def _culprits(
    sites: Sequence[Site], problem_of: Callable[[Sequence[Site]], BnfoldError | None]
) -> Iterator[tuple[Site, BnfoldError]]:
    """The sites whose folds do not hold, and what is wrong with each; halves that hold are left out."""
    problem = problem_of(sites) if sites else None
    if problem is not None and len(sites) == 1:
        yield sites[0], problem
    elif problem is not None:
        middle = len(sites) // 2
        yield from _culprits(sites[:middle], problem_of)
        yield from _culprits(sites[middle:], problem_of)


@contextlib.contextmanager
def _outputs_restored(graph: ir.Model) -> Iterator[None]:
    count = len(graph.graph.outputs)
    try:
        yield
    finally:
        while len(graph.graph.outputs) > count:
            graph.graph.outputs.pop()


def _fold_what_fits(
    graph: ir.Model, comparison: Comparison, refusals: _Refusals, merge: bool, keep: frozenset[str]
) -> tuple[FoldResult[ir.Model], Difference]:
    """Fold again and again, each time leaving alone what the module had no place for, until all has one."""
    while True:
        result = fold_graph(graph, merge=merge, keep=keep | refusals.nodes.keys())
        difference = comparison.of(result)
        apart = [name for name in dict.fromkeys(difference.apart) if name not in refusals.apart]
        new = {node: reason for node, reason in difference.keep.items() if node not in refusals.nodes}
        if not difference.keep and not difference.apart:
            return result, difference
        if not apart and not new:
            raise ModelError(
                f"The fold at {', '.join([*difference.keep, *difference.apart])} has no form in the module.",
                "Please report this with the model; keep= leaves the BatchNorms that it names as they are.",
            )
        refusals.nodes.update(new)
        for name in apart:
            value = comparison.value(name)
            producer = value.producer()
            refusals.apart[name] = module_name(producer) if producer is not None else "identity"
            refusals.values.setdefault(name, _is_a_branch)
            if not value.is_graph_output():
                graph.graph.outputs.append(value)


def _is_hooked(path: str) -> Callable[[str], Reason]:
    return lambda site: reasons.HOOK(node=site, module=path)


def _is_a_branch(site: str) -> Reason:
    return reasons.NO_PLACE(node=site, why="it would change a branch of a sum that the forward computes")


def _check_rounding(exact: nn.Module, made: nn.Module) -> None:
    """What is given back must be what was verified, rounded once to each tensor's type."""
    wide, own = dict(named_tensors(exact)), dict(named_tensors(made))
    same = wide.keys() == own.keys() and all(
        verify_eager.relative_error(wide[name].to(tensor.dtype), tensor.cpu()) == 0
        for name, tensor in own.items()
    )
    if not same:
        raise DisagreementError("The copy is not what was verified.", "Please report this with the model.")


def _sites(result: FoldResult[ir.Model], refusals: _Refusals) -> Iterator[Site]:
    """The sites with reasons in terms of the module; arithmetic that its code does is none of them."""
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
            " module around them did nothing but add them up, with one activation behind at most."
        )
    return [*notes, *(f"Branches are left apart: {reason.sentence}" for reason in result.apart)]
