"""The proof of a fold, value by value, in float64.

A fold gives a new name to every value that it changes, so a name that both models have stands for the same
value. Between one such value and the next lies a region: a few nodes of the original, and the folded nodes
that replace them. Each region of the folded model is evaluated from the values that the *original* has at its
start, so that errors neither grow from region to region nor hide each other. If every region computes the
same, the models do.

A right fold may differ by one rounding of its weights. How much that is shows the original itself, evaluated
in the same way with its weights moved by one random rounding: a region may be off by `ROUNDINGS` times as
much and `ULPS` units in the last place.

float64 hides what overflows in float16. So every value of a region is held against the range of its type
too, and where the original's stay within it, the folded model's have to.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from bnfold.engines import base, known
from bnfold.folding.recognise import is_batchnorm
from bnfold.graph.nodes import captured, label, module_name
from bnfold.oracle.oracle import Oracle
from bnfold.runtime import sessions
from bnfold.runtime.agreement import UNITS
from bnfold.runtime.interface import dtype_name, interface
from bnfold.runtime.sessions import Feeds
from bnfold.validation.channels import luck
from bnfold.validation.choose_reference import SEEDS
from bnfold.validation.deviation import deviation
from bnfold.validation.layers import Blame, Layer
from bnfold.validation.lockstep import Compared, merged, walk
from bnfold.validation.pairing import cast
from bnfold.validation.ranges import Ranges, excesses

# Right folds come to at most 0.41 of what these allow, an omitted ε of 1e-5 to 7 times it (docs/proof.md).
ROUNDINGS = 4.0
ULPS = 2.0
RUNTIME_FACTOR = 4.0
_EXACT = 1e-12  # the rounding of float64 itself, where sums are in another order


def prove(
    original: ir.Model,
    folded: ir.Model,
    feeds: Feeds,
    unit: float,
    *,
    pinned: bool = True,
    apart: bool = False,
    oracle: Callable[[ir.Model, int | None], Oracle] = Oracle,
) -> tuple[Layer, ...]:
    """Compare every value that both models compute.

    Args:
        original: The model before the fold.
        folded: The model after it.
        feeds: One sample.
        unit: Unit roundoff of the coarsest float type among the original's weights; for a region that of its
            own weights counts.
        pinned: Whether equal names are known to mean equal values, so that each value is computed from the
            true values before it. Otherwise each is computed from the inputs, and is allowed what rounding
            all weights does to it.
        apart: Whether the evaluations are compared with the truth one after the other, which takes more
            time, and memory for two of them instead of five.
        oracle: Makes the oracle of a model, with a seed where its weights are moved.

    Raises:
        NotEvaluableError: One of them has an operator that the oracle does not know.
    """
    names = shared(original, folded)
    before, after = Ranges(original, names), Ranges(folded, names)
    others = [
        *((oracle(original, seed), _unseen) for seed in SEEDS),
        (oracle(folded, None), after.see),
    ]
    truth = oracle(original, None)
    found = [
        walk(
            truth.steps(feeds),
            [(one.steps(feeds), watch) for one, watch in together],
            names,
            pinned=pinned,
            watch=before.see,
        )
        for together in ([[one] for one in others] if apart else [others])
    ]
    compared = merged(found)
    regions = Regions(original, folded, names, unit)
    beyond = excesses(before, after, names) if pinned or before.is_narrow else {}
    layers = (
        regions.layer(name, depth, *_worst_group(compared[name]))
        for depth, name in enumerate(names)
        if name in compared and compared[name].errors[-1]
    )
    return tuple(replace(layer, beyond_range=beyond.get(layer.name)) for layer in layers)


def _unseen(_name: str, _value: object) -> None:
    """Nobody looks."""


def _worst_group(value: Compared) -> tuple[float, float, str]:
    """The error and its bound in the channels where it is farthest beyond it, and which these are."""
    *roundings, errors = value.errors
    found = []
    for number, (group, size) in enumerate(value.groups):
        moved = max((one[number] for one in roundings if one), default=0.0)
        found.append((errors[number], ROUNDINGS * luck(size) * moved + _EXACT, str(group)))
    return max(found, key=lambda one: one[0] / one[1])


def worst(proofs: Sequence[Sequence[Layer]]) -> tuple[Layer, ...]:
    """Combine proofs on several samples: for every value the sample in which it is farthest off."""
    found: dict[str, Layer] = {}
    for layer in (layer for proof in proofs for layer in proof):
        known = found.setdefault(layer.name, layer)
        if _badness(layer) > _badness(known):
            found[layer.name] = layer
    return tuple(sorted(found.values(), key=lambda layer: layer.depth))


def _badness(layer: Layer) -> tuple[bool, bool, float]:
    error = layer.fold_error / layer.bound
    return error > 1, layer.beyond_range is not None, error


def shared(original: ir.Model, folded: ir.Model) -> tuple[str, ...]:
    """The names of the values that nodes of both main graphs compute, in the original's order."""
    there = {value.name for node in folded.graph for value in node.outputs if node.op_type != "Constant"}
    return tuple(
        value.name
        for node in original.graph
        for value in node.outputs
        if value.name and value.name in there and node.op_type != "Constant"
    )


class Regions:
    """The nodes of both models between one shared value and the shared values before it."""

    def __init__(self, original: ir.Model, folded: ir.Model, names: Collection[str], unit: float) -> None:
        self._names = frozenset(names)
        self._unit = unit
        self._functions = original.functions
        self._made = [_producers(model) for model in (original, folded)]
        self._stay = {label(node) for node in folded.graph}

    def layer(self, name: str, depth: int, fold_error: float, moved: float, where: str) -> Layer:
        """The report of one shared value, with its nodes in both models and the BatchNorms that are gone.

        `moved` is the error that rounding its weights explains; some units in the last place are added.
        `where` names the channels that have this error, if they are not all.
        """
        originals, nodes = (self._between(name, made) for made in self._made)
        gone = [node for node in originals if is_batchnorm(node) and label(node) not in self._stay]
        return Layer(
            name=name,
            depth=depth,
            fold_error=fold_error,
            bound=moved + ULPS * self._unit_of(originals),
            site=", ".join(map(module_name, gone)) or None,
            nodes=tuple(map(label, nodes)),
            originals=tuple(map(label, originals)),
            channels=where or None,
        )

    def _unit_of(self, originals: Sequence[ir.Node]) -> float:
        """Unit roundoff of the coarsest float type among the constants that nodes of the original read.

        A float16 table elsewhere does not excuse an error of float32 weights. What a function or a subgraph
        reads is not looked up: there the coarsest type of the whole model counts.
        """
        if any(_has_body(node) or node.op_identifier() in self._functions for node in originals):
            return self._unit
        read = (value for node in originals for value in node.inputs if value is not None)
        held = (tensor for value in read if (tensor := ir.convenience.get_const_tensor(value)) is not None)
        units = [UNITS[name] for tensor in held if (name := dtype_name(tensor.dtype)) in UNITS]
        return max(units, default=min(self._unit, UNITS["float32"]))

    def _between(self, name: str, made: Mapping[str, ir.Node]) -> list[ir.Node]:
        """The nodes that compute a value from the shared values before it, in the order of evaluation."""
        found: dict[ir.Node, None] = {}
        pending = [made[name]]
        while pending:
            node = pending.pop()
            if node in found:
                continue
            found[node] = None
            inputs = (*node.inputs, *captured(node))
            read = dict.fromkeys(value.name or "" for value in inputs if value is not None)
            pending.extend(made[before] for before in read if before in made and before not in self._names)
        return list(found)[::-1]


def _producers(model: ir.Model) -> dict[str, ir.Node]:
    return {
        value.name: node
        for node in model.graph
        for value in node.outputs
        if value.name and node.op_type != "Constant"
    }


def _has_body(node: ir.Node) -> bool:
    kinds = (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
    return any(attribute.type in kinds for attribute in node.attributes.values())


def measure(
    layers: Sequence[Layer],
    original: ir.Model,
    folded: ir.Model,
    feeds: Feeds,
    provider: str,
    threads: int,
    oracle: Callable[[ir.Model], Oracle] = Oracle,
) -> tuple[Layer, ...]:
    """Add the error at every value in both models, in ONNX Runtime with the optimizer off.

    Raises:
        ModelError: ONNX Runtime, or the runtime that `provider` is the title of, does not give every value.
    """
    names = [layer.name for layer in layers]
    truth: dict[str, Any] = {}
    oracle(original).walk(feeds, lambda name, value: truth.setdefault(name, value) if name in names else None)
    found = []
    for model in (original, folded):
        values = _values(_exposing(model, names), names, feeds, provider, threads)
        found.append(
            [deviation(truth[name], value).largest for name, value in zip(names, values, strict=True)]
        )
    return tuple(
        replace(layer, original_error=before, folded_error=after)
        for layer, before, after in zip(layers, *found, strict=True)
    )


def _values(
    model: ir.Model, names: Sequence[str], feeds: Feeds, provider: str, threads: int
) -> Sequence[Any]:
    """The values of these names, all of which are outputs of the model."""
    given = cast(feeds, interface(model).inputs)
    if (other := known.titled(provider)) is not None:
        made = base.load(other.engine, model, threads, other.precision).run(given)
        found = dict(zip((value.name for value in model.graph.outputs), made, strict=True))
        return [found[name] for name in names]
    return sessions.run(
        sessions.session(model, provider=provider, optimized="off", threads=threads), given, names
    )


def first_off(layers: Sequence[Layer], provider: str) -> Blame | None:
    """The first value at which ONNX Runtime is much farther from the truth in the folded model.

    Args:
        layers: The values, with both errors measured.
        provider: Where they were measured.
    """
    for layer in layers:
        before, after = layer.original_error or 0.0, layer.folded_error or 0.0
        if after > RUNTIME_FACTOR * before + layer.bound:
            return Blame(layer, runtime=True, provider=provider)
    return None


def _exposing(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy whose graph gives the values of these names too."""
    copy = model.clone()
    there = {value.name for value in copy.graph.outputs}
    made = {value.name: value for node in copy.graph for value in node.outputs}
    copy.graph.outputs.extend(made[name] for name in names if name not in there)
    return copy
