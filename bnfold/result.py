"""What a fold gives back: the model, and the fate of every affine in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import onnx
import onnx_ir as ir

from bnfold.display.shown import Shown, counted
from bnfold.reasons import Reason

if TYPE_CHECKING:
    from bnfold.display.plots import Bar

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

    @property
    def is_batchnorm(self) -> bool:
        """Whether it is a BatchNormalization, and not other arithmetic."""
        return self.op_type == "BatchNormalization"

    def record(self) -> dict[str, Any]:
        """The site as a row of plain values."""
        why = [reason for reason in (self.reason, self.reason_after) if reason is not None]
        return {
            "site": self.name,
            "operator": self.op_type,
            "status": self.status,
            "into": ", ".join(self.into),
            "reason": ", ".join(reason.code for reason in why),
            "why": " ".join(reason.sentence for reason in why),
            "graph": self.graph,
        }


def said(sites: Sequence[Site], nodes_before: int, nodes_after: int) -> str:
    """What became of sites, in a sentence or two."""
    norms = [site for site in sites if site.is_batchnorm]
    others = [site for site in sites if not site.is_batchnorm and site.status != "kept"]
    gone = sum(site.status in ("folded", "merged") for site in norms)
    text = (
        f"{gone} of {len(norms)} BatchNorm{'' if len(norms) == 1 else 's'} folded"
        if norms
        else "No BatchNorm"
    )
    if others:
        text += f", and arithmetic at {len(others)} other place{'' if len(others) == 1 else 's'}"
    text += f"; {nodes_before} → {nodes_after} nodes."
    codes = Counter(site.reason.code for site in norms if site.status == "kept" and site.reason is not None)
    stays = counted({f"for {code}": number for code, number in codes.most_common(6)})
    return f"{text} Kept: {stays}." if stays else text


def by_fate(sites: Sequence[Site]) -> list[Bar]:
    """Sites counted by operator and fate, for a plot."""
    from bnfold.display.plots import Bar

    fates = Counter(f"{site.op_type}, {site.status}" for site in sites)
    return [Bar(label, number) for label, number in fates.most_common()]


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


@dataclass(frozen=True, repr=False)
class FoldResult(Shown, Generic[ModelT]):
    """The outcome of [`bnfold.fold`][bnfold.fold]. It is true if no BatchNorm stays.

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

    axis: ClassVar[str] = "sites"

    @property
    def headline(self) -> str:
        """How many BatchNorms are gone, and why others stay."""
        return said(self.sites, self.nodes_before, self.nodes_after)

    def __bool__(self) -> bool:
        return not any(site.is_batchnorm for site in self.kept)

    def records(self) -> list[dict[str, Any]]:
        """A row for each site."""
        return [site.record() for site in self.sites]

    def bars(self) -> Sequence[Bar]:
        """How many sites of each operator had each fate."""
        return by_fate(self.sites)

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
