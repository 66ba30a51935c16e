"""What a fold gives back: the model, and the fate of every affine in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import onnx
import onnx_ir as ir

from bnfold.reasons import Reason

Status = Literal["folded", "merged", "decomposed", "kept"]
ModelT = TypeVar("ModelT", onnx.ModelProto, ir.Model)


@dataclass(frozen=True)
class Site:
    """One BatchNormalization, or one chain of per-channel arithmetic, and what became of it.

    Attributes:
        name: The PyTorch module path where the exporter kept it, otherwise the node's name.
        node: The node's name in the original graph (for a chain, its last node's).
        op_type: `"BatchNormalization"`, or the chain's operators as in `"Mul+Add"`.
        graph: Where it is: `""` for the main graph, otherwise the function or subgraph.
        status: `"folded"`, `"merged"` (into parallel branches), `"decomposed"` (into other operators) or
            `"kept"`.
        into: Names of the nodes whose constants took the affine, or that stand for it; empty when kept.
        reason: Why it was not folded; None where it was. Where both directions were tried, why it cannot go
            towards its producers.
        reason_after: Why it cannot go into what follows it, where that was tried; otherwise None.
    """

    name: str
    node: str
    op_type: str
    graph: str
    status: Status
    into: tuple[str, ...] = ()
    reason: Reason | None = None
    reason_after: Reason | None = None


@dataclass(frozen=True)
class Merge:
    """Parallel branches that became one convolution.

    Attributes:
        into: Name of the convolution.
        branches: Names of the branches; `"identity"` for a source that was added as it is.
        multiply_adds_before: Multiply-adds of all branches for one position of the output.
        multiply_adds_after: The same for the one convolution.
    """

    into: str
    branches: tuple[str, ...]
    multiply_adds_before: int
    multiply_adds_after: int


@dataclass(frozen=True)
class Join:
    """Nodes that went into the layer next to them.

    Attributes:
        into: Name of the layer.
        nodes: Names of the nodes that are gone, as in the original graph.
        op_type: Their operators, as in `"Pad"` or `"MatMul+Add"`.
    """

    into: str
    nodes: tuple[str, ...]
    op_type: str


@dataclass(frozen=True)
class FoldResult(Generic[ModelT]):
    """The outcome of [`bnfold.fold`][bnfold.fold].

    Attributes:
        model: The folded model, of the kind that was given (a path gives an `onnx_ir.Model`).
        sites: One entry for each affine of the original, in graph order.
        nodes_before: Number of nodes in the original, `Constant` nodes left out.
        nodes_after: The same for the folded model.
        merges: The convolutions that were made of parallel branches.
        apart: Why parallel branches over one source stayed apart, once for each pair.
        joins: What went into the layers next to it: Pads, other layers, changes of the order of channels.
    """

    model: ModelT
    sites: tuple[Site, ...]
    nodes_before: int
    nodes_after: int
    merges: tuple[Merge, ...] = ()
    apart: tuple[Reason, ...] = ()
    joins: tuple[Join, ...] = ()

    @property
    def folded(self) -> tuple[Site, ...]:
        """The sites whose numbers are in others now."""
        return tuple(site for site in self.sites if site.status in ("folded", "merged"))

    @property
    def decomposed(self) -> tuple[Site, ...]:
        """The BatchNorms that were not folded and are other operators now."""
        return tuple(site for site in self.sites if site.status == "decomposed")

    @property
    def kept(self) -> tuple[Site, ...]:
        """The sites that stay, each with its reason."""
        return tuple(site for site in self.sites if site.status == "kept")
