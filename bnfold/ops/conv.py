"""Conv and ConvTranspose in one to three dimensions, with groups, strides, dilation and padding."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from bnfold import reasons
from bnfold.algebra.affine import Affine, Array
from bnfold.algebra.kernel import Kernel
from bnfold.graph.editor import Editor
from bnfold.graph.facts import NO_FOLDS, Facts, Folds
from bnfold.graph.nodes import integer, integers, label, name_of, text
from bnfold.ops import quantized
from bnfold.ops.base import Absorb, Answer
from bnfold.ops.constraints import invalid
from bnfold.ops.linear import (
    Weighted,
    bias_problem,
    channel_problem,
    constant_problem,
    multiplied,
    weight_shape,
    write_bias,
    write_weight,
)
from bnfold.reasons import Reason
from bnfold.tensors.parts import parts
from bnfold.tensors.precision import Elements


class Convolution(Weighted):
    """What both directions share.

    The weight's first two axes are channels, in an order and grouping that the directions do not share.
    """

    def channels(self, weight: tuple[int, ...], groups: int) -> tuple[int, int]:
        """Number of input and of output channels, from the weight's shape."""
        raise NotImplementedError

    def shift_problem(self, node: ir.Node, kernel: tuple[int, ...]) -> Reason | None:
        """Why an input's shift is not the same addend at every output element; None where it is."""
        raise NotImplementedError

    def on_inputs(self, vector: Array, weight: tuple[int, ...], groups: int) -> Array:
        """A number for each input channel, laid out over the weight's first two axes."""
        raise NotImplementedError

    def on_outputs(self, vector: Array, weight: tuple[int, ...], groups: int) -> Array:
        """A number for each output channel, laid out over the weight's first two axes."""
        raise NotImplementedError

    def from_shift(self, weight: ir.TensorProtocol, shift: Array, groups: int) -> Array:
        """`Σ W·t` for each output channel, of a shift t that is laid out over the weight's first two axes."""
        raise NotImplementedError

    def problem(self, node: ir.Node, facts: Facts) -> Reason | None:
        """Why the weight and the bias cannot be rewritten; None where they can."""
        problem = constant_problem(node, 1, facts) or invalid(node, facts)
        if problem is not None:
            return problem
        _, cout = self.channels(weight_shape(node, 1, facts), integer(node, "group", 1))
        return bias_problem(node, 2, facts, cout)

    def at_output(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale the filters, shift the bias: exact whatever the borders are."""
        del index
        problem = self.problem(node, facts)
        if problem is None:
            _, cout = self.channels(weight_shape(node, 1, facts), integer(node, "group", 1))
            problem = channel_problem(node, affine, 1, cout)
        return problem or self.absorb(node, 1, Absorb("output", affine), facts)

    def at_input(self, node: ir.Node, index: int, affine: Affine, facts: Facts) -> Answer:
        """Scale the filters' input channels, add what the shift gives to the bias."""
        if index != 0:
            return reasons.WEIGHT_NOT_CONSTANT(value=name_of(node.inputs[index]), node=label(node))
        problem = self.problem(node, facts)
        if problem is None:
            shape = weight_shape(node, 1, facts)
            cin, _ = self.channels(shape, integer(node, "group", 1))
            problem = channel_problem(node, affine, 1, cin)
            if problem is None and affine.has_shift:
                problem = self.shift_problem(node, shape[2:])
        return problem or self.absorb(node, 1, Absorb("input", affine), facts)

    def scales(self, node: ir.Node, folds: Folds, facts: Facts) -> tuple[Array, Array]:
        """The scales of both sides, over the weight's first two axes."""
        shape, groups = weight_shape(node, 1, facts), integer(node, "group", 1)
        cin, cout = self.channels(shape, groups)

        def laid_out(affine: Affine, size: int, lay: Callable[..., Array]) -> Array:
            scale, _ = affine.vectors(1, size)
            over = lay(scale, shape, groups) if affine.scale_axes else affine.scale.reshape(1, 1)
            return over.reshape(over.shape + (1,) * (len(shape) - 2))

        return laid_out(folds.outward, cout, self.on_outputs), laid_out(folds.inward, cin, self.on_inputs)

    def bias(self, node: ir.Node, folds: Folds, facts: Facts) -> Array:
        """`s·(b + Σ W·t_in) + t`, shape `(Cout,)`, in float64."""
        old, shape, groups = facts.operand(node, 2), weight_shape(node, 1, facts), integer(node, "group", 1)
        cin, cout = self.channels(shape, groups)
        _, shift_in = folds.inward.vectors(1, cin)
        scale, shift = folds.outward.vectors(1, cout)
        bias = np.zeros(cout) if old is None or not np.any(old) else old  # zeros may have any shape
        if folds.inward.has_shift:  # 0·∞ is NaN: without a shift, weights are not read
            given = np.broadcast_to(self.on_inputs(shift_in, shape, groups), shape[:2])
            bias = bias + self.from_shift(facts.weight(node, 1), given, groups)
        return scale * bias + shift

    def write(self, node: ir.Node, folds: Folds, facts: Facts, editor: Editor) -> None:
        """Write the bias, and the weight times its factor."""
        write_bias(node, 2, self.bias(node, folds, facts), facts, editor)
        write_weight(node, 1, self.factors(node, folds, facts), facts, editor)


class Conv(Convolution):
    """Conv, weight `[Cout, Cin/g, k…]`.

    Output: `s·(W*x + b) + t = (s·W)*x + (s·b + t)`, s along the weight's axis 0; always.
    Input: `W*(s·x + t) + b = (W·s)*x + (b + Σ W·t)`, s along the weight's axis 1 within each group; the shift
    only where no tap meets implicit zeros, which are zeros after the affine and not before it.
    """

    def channels(self, weight: tuple[int, ...], groups: int) -> tuple[int, int]:
        """Axis 1 holds one group's input channels, axis 0 all output channels."""
        return weight[1] * groups, weight[0]

    def shift_problem(self, node: ir.Node, kernel: tuple[int, ...]) -> Reason | None:
        """Implicit zeros at the border do not get the shift."""
        return reasons.PADDING(node=label(node)) if _pads(node, kernel) else None

    def kernel(self, node: ir.Node, facts: Facts) -> Kernel | None:
        """The form that the node has with all that it has absorbed; None where something is not known."""
        if self.problem(node, facts) or quantized.source(node, 1):
            return None
        shape = weight_shape(node, 1, facts)
        pads = _explicit_pads(node, shape[2:], facts)
        if pads is None:
            return None
        folds, weight = facts.folds.get(node, NO_FOLDS), facts.operand(node, 1)
        assert weight is not None, "the weight is constant"
        ones, spatial = (1,) * len(shape[2:]), len(shape[2:])
        dilation = integers(node, "dilations") or ones
        reach = [step * (size - 1) for step, size in zip(dilation, shape[2:], strict=True)]
        margin = (pads[axis] + pads[axis + spatial] - reach[axis] for axis in range(spatial))
        return Kernel(
            weight=weight * multiplied(self.factors(node, folds, facts)),
            bias=self.bias(node, folds, facts),
            groups=integer(node, "group", 1),
            stride=integers(node, "strides") or ones,
            dilation=dilation,
            offset=tuple(-pad for pad in pads[:spatial]),
            margin=tuple(margin),
        )

    def on_inputs(self, vector: Array, weight: tuple[int, ...], groups: int) -> Array:
        """Every output channel reads the input channels of its group."""
        return _for_groups(vector, weight, groups)

    def on_outputs(self, vector: Array, weight: tuple[int, ...], groups: int) -> Array:
        """Output channels are the rows."""
        del weight, groups
        return vector[:, None]

    def from_shift(self, weight: ir.TensorProtocol, shift: Array, groups: int) -> Array:
        """Output channels are the rows, which are summed up block by block."""
        del groups
        sums = np.empty(len(shift))
        for rows, part in parts(weight, whole=len(weight.shape) - 1):
            sums[rows] = (_taps(part) * shift[rows]).sum(1)
        return sums


class ConvTranspose(Convolution):
    """ConvTranspose, weight `[Cin, Cout/g, k…]`: output channels stand on axis 1, by group.

    Output: `s·(Wᵀ*x + b) + t`: s along the weight's axis 1 within each group; always.
    Input: s along the weight's axis 0; the shift only where every output element sums the same taps, that is
    with stride 1 and the border, which sees fewer, cropped away.
    """

    def channels(self, weight: tuple[int, ...], groups: int) -> tuple[int, int]:
        """Axis 0 holds all input channels, axis 1 one group's output channels."""
        return weight[0], weight[1] * groups

    def shift_problem(self, node: ir.Node, kernel: tuple[int, ...]) -> Reason | None:
        """Outputs near the border, and between strides, see other taps."""
        if _sees_same_taps(node, kernel):
            return None
        setting = "outputs that see different taps"
        return reasons.SETTING(node=label(node), operator=node.op_type, setting=setting)

    def on_inputs(self, vector: Array, weight: tuple[int, ...], groups: int) -> Array:
        """Input channels are the rows."""
        del weight, groups
        return vector[:, None]

    def on_outputs(self, vector: Array, weight: tuple[int, ...], groups: int) -> Array:
        """Every input channel feeds the output channels of its group."""
        return _for_groups(vector, weight, groups)

    def from_shift(self, weight: ir.TensorProtocol, shift: Array, groups: int) -> Array:
        """A group's rows add up to its output channels."""
        matrix = np.empty(shift.shape)
        for rows, part in parts(weight, whole=len(weight.shape) - 1):
            matrix[rows] = _taps(part) * shift[rows]
        return np.asarray(matrix.reshape(groups, -1, shift.shape[1]).sum(1)).reshape(-1)


def _for_groups(vector: Array, weight: tuple[int, ...], groups: int) -> Array:
    """A number for each channel of the weight's axis 1 in each group, over its first two axes."""
    each = vector.reshape(groups, weight[1])
    return each if groups == 1 else np.repeat(each, weight[0] // groups, axis=0)


def _taps(weight: Elements) -> Array:
    """A kernel summed up over its taps, in float64."""
    return np.asarray(np.asarray(weight, np.float64).reshape(*weight.shape[:2], -1).sum(2))


def _pads(node: ir.Node, kernel: tuple[int, ...]) -> bool:
    """Whether a window may reach over the border; one element wide, it cannot, whatever `auto_pad` says."""
    mode = text(node, "auto_pad", "NOTSET")
    if mode.startswith("SAME"):
        return any(size != 1 for size in kernel)
    return mode == "NOTSET" and any(integers(node, "pads"))


def _explicit_pads(node: ir.Node, kernel: tuple[int, ...], facts: Facts) -> tuple[int, ...] | None:
    """The `pads` that `auto_pad` stands for; None where they depend on unknown sizes.

    The oracle has its own window arithmetic in `oracle/ops/windows.py`: a judge shares no code with what it
    judges.
    """
    mode = text(node, "auto_pad", "NOTSET")
    none = (0,) * (2 * len(kernel))
    if mode in ("NOTSET", "VALID"):
        return none if mode == "VALID" else integers(node, "pads") or none
    begins, ends = [], []
    for axis, size in enumerate(kernel):
        stride = (integers(node, "strides") or none)[axis] or 1
        reach = (integers(node, "dilations") or (1,) * len(kernel))[axis] * (size - 1)
        length = facts.size(node.inputs[0], axis + 2)
        if stride != 1 and length is None:
            return None
        total = max((-(-(length or 0) // stride) - 1) * stride + reach + 1 - (length or 0), 0)
        total = reach if stride == 1 else total
        begins.append(total // 2 if mode == "SAME_UPPER" else total - total // 2)
        ends.append(total - begins[-1])
    return (*begins, *ends)


def _sees_same_taps(node: ir.Node, kernel: tuple[int, ...]) -> bool:
    mode = text(node, "auto_pad", "NOTSET")
    if mode.startswith("SAME") or "output_shape" in node.attributes or any(integers(node, "output_padding")):
        return False
    if any(stride != 1 for stride in integers(node, "strides")):
        return False
    none = (0,) * (2 * len(kernel))
    crop = none if mode == "VALID" else integers(node, "pads") or none
    dilations = integers(node, "dilations") or (1,) * len(kernel)
    reach = [dilation * (size - 1) for dilation, size in zip(dilations, kernel, strict=True)]
    return all(have >= need for have, need in zip(crop, reach + reach, strict=True))


OPERATORS = {"Conv": Conv(), "ConvTranspose": ConvTranspose()}
