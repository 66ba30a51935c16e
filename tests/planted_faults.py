"""Mistakes that folding programs make, each planted alone into a right fold.

There are three ways to plant one. Numbers of the folded model are altered. Or the original's BatchNorm is
altered as the mistaken program misreads it, and folded rightly. Or a BatchNorm that has to stay is folded all
the same. What was tampered with is then known, and so is the BatchNorm that had been folded there.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests import planted_statistics as statistics
from tests import planted_weights as weights
from tests.planting import Case, Fault, Planted

__all__ = ["FAULTS", "Case", "Planted"]


def renamed_output(case: Case) -> Iterator[Planted]:
    """An output has another name."""
    graph = case.edit()
    output = graph.model.graph.output[0]
    maker = graph.makers[output.name]
    if not graph.readers(output.name):
        maker.output[list(maker.output).index(output.name)] = output.name = "renamed"
        yield Planted(graph.model)


def frozen_size(case: Case) -> Iterator[Planted]:
    """A symbolic size became a number."""
    graph = case.edit()
    for size in graph.model.graph.input[0].type.tensor_type.shape.dim:
        if size.HasField("dim_param"):
            size.dim_value = 1
            yield Planted(graph.model)
            return


FAULTS: dict[str, Fault] = {
    "one output channel 1 % off": weights.in_weight(weights.one_channel),
    "weights rounded to float16": weights.in_weight(weights.to_half),
    "two output channels swapped": weights.in_weight(weights.swapped_outputs),
    "two input channels swapped": weights.in_weight(weights.swapped_inputs),
    "one weight is NaN": weights.in_weight(weights.one_nan),
    "one weight with the wrong sign": weights.in_weight(weights.one_sign),
    "kernel mirrored": weights.in_weight(weights.mirrored),
    "groups in another order": weights.in_weight(weights.mixed_groups),
    "bias dropped": weights.in_bias(weights.no_bias),
    "bias rounded to bfloat16": weights.in_bias(weights.bias_to_bfloat16),
    "scaled along the wrong axis": weights.wrong_axis,
    "two layers' weights exchanged": weights.exchanged,
    "shared weight written over": weights.shared_weight,
    "ε omitted": statistics.misread(statistics.without_epsilon),
    "ε of another framework": statistics.misread(statistics.other_epsilon),
    "batch statistics used": statistics.misread(statistics.batch_statistics),
    "removed, not folded": statistics.misread(statistics.removed),
    "folded twice": statistics.misread(statistics.folded_twice),
    "shift with the wrong sign": statistics.misread(statistics.shift_sign),
    "γ left out": statistics.misread(statistics.without_gamma),
    "running mean left out": statistics.misread(statistics.without_mean),
    "sign of γ lost": statistics.misread(statistics.positive_gamma),
    "square root forgotten": statistics.misread(statistics.without_root),
    "layer's own bias not scaled": statistics.misread(statistics.bias_unscaled),
    "statistics one channel off": statistics.misread(statistics.turned_channels),
    "another BatchNorm's statistics": statistics.misread(statistics.other_norm),
    "branch dropped in a merge": statistics.misread(statistics.dropped, merged=True),
    "branch off the kernel's centre": statistics.off_centre,
    "shift folded through zero padding": statistics.through_padding,
    "float16 overflow": statistics.overflow,
    "output renamed": renamed_output,
    "symbolic size frozen": frozen_size,
}
