"""On which provider each node of a model really ran.

A session on CUDA has the CPU provider too. ONNX Runtime gives it every node for which CUDA has no kernel, and
the small arithmetic on shapes that a round trip to the GPU would only slow down. That is normal. A
convolution on the CPU is not: its time would be the CPU's, and its numbers would prove nothing about CUDA. So
nodes on another provider are counted in the report, and are an error only where an operator of
[`HEAVY`][bnfold.runtime.placement.HEAVY] computes with floats, since CUDA has no kernel for a MatMul of
integers; or where no node at all ran on the provider and floats were computed elsewhere.

OpenVINO, TensorRT, CoreML and others take whole subgraphs, each of which runs as one node: which operators
are in it cannot be seen any more, and none of them is elsewhere.

The source is ONNX Runtime's profile of one run, which says where kernels were executed, subgraphs included.
Since version 1.24 a session can report an assignment too, but it is made before the optimizer has finished.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bnfold.errors import ProviderError, listed
from bnfold.runtime.providers import short_name
from bnfold.runtime.sessions import Feeds, ModelLike, Optimizer, run, session
from bnfold.tensors.precision import FLOATS

HEAVY = frozenset(
    {
        *("Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"),
        *("AveragePool", "MaxPool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool"),
        *("FusedConv", "NhwcConv", "NhwcFusedConv", "FusedGemm", "FusedMatMul"),  # what the optimizer makes
    }
)
"""The operators that must run on the requested provider."""

_FLOATS = frozenset(dtype.name.lower() for dtype in FLOATS)  # as the profile has them: "float", "double"
_SUFFIX = "_kernel_time"


@dataclass(frozen=True)
class PlacedNode:
    """One node that ran.

    Attributes:
        name: Its name; the runtime makes one up for a node without.
        op_type: Its operator, after the optimizer: `FusedConv` is one.
        floats: Whether it read a float tensor.
        subgraph: Whether it stands for a whole part of the model that its provider runs at once.
    """

    name: str
    op_type: str
    floats: bool
    subgraph: bool = False

    @property
    def heavy(self) -> bool:
        """Whether a measurement is worthless if this node ran on another provider."""
        return self.floats and self.op_type in HEAVY

    def __str__(self) -> str:
        return f"{self.name} ({self.op_type})"


Placements = dict[str, tuple[PlacedNode, ...]]
"""The nodes that ran on each provider, by its short name, in the order of their first run."""


def placements(
    model: ModelLike,
    feeds: Feeds,
    *,
    provider: str = "cpu",
    optimized: Optimizer = "default",
    threads: int | None = 1,
) -> Placements:
    """Run a model once and find out on which provider each node ran.

    Args:
        model: A path, a `ModelProto` or an `onnx_ir.Model`.
        feeds: Inputs by name. Only nodes that run are seen: of an `If`, those of one branch.
        provider: Where to run it.
        optimized: ONNX Runtime's graph optimizer, as `session` takes it.
        threads: Threads within an operator.

    Raises:
        ModelError: The model cannot be loaded or run.
        ProviderError: The provider is absent, or the whole session would run on another one.
    """
    with tempfile.TemporaryDirectory(prefix="bnfold-") as folder:

        def profiled(options: Any) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")

        made = session(model, provider=provider, optimized=optimized, threads=threads, configure=profiled)
        try:
            run(made, feeds)
        finally:
            profile = Path(made.end_profiling())
        return parse(json.loads(profile.read_text(encoding="utf-8")))


def parse(events: Iterable[Mapping[str, Any]]) -> Placements:
    """Read a profile of ONNX Runtime, which is a list of events.

    A node that ran several times, in a loop, counts once. A subgraph is a node that ONNX Runtime names after
    its provider and itself: `OpenVINOExecutionProvider_OpenVINO-EP-subgraph_1_0`.
    """
    found: dict[str, dict[PlacedNode, None]] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith(_SUFFIX):
            continue  # an event of the session, or one that older versions write around a kernel
        details = event["args"]
        types = {kind for tensor in details.get("input_type_shape", ()) for kind in tensor}
        name, operator, provider = (
            event["name"].removesuffix(_SUFFIX),
            details["op_name"],
            details["provider"],
        )
        node = PlacedNode(name, operator, bool(types & _FLOATS), name.startswith(f"{provider}_{operator}"))
        found.setdefault(short_name(provider), {})[node] = None
    return {provider: tuple(nodes) for provider, nodes in found.items()}


def elsewhere(placed: Mapping[str, Sequence[PlacedNode]], provider: str) -> tuple[PlacedNode, ...]:
    """The nodes that did not run on `provider`."""
    return tuple(node for where, nodes in placed.items() if where != provider for node in nodes)


def sentence(placed: Mapping[str, Sequence[PlacedNode]], provider: str) -> str:
    """How many nodes ran on the provider, with the names of up to three that did not; for a report."""
    there, others = _amount(placed.get(provider, ())), elsewhere(placed, provider)
    if not others:
        return f"{there} ran on {provider}, and nothing elsewhere."
    return f"{there} ran on {provider}, and {_amount(others)} elsewhere: {listed(map(str, others), 3)}."


def _amount(nodes: Sequence[PlacedNode]) -> str:
    """How many nodes there are: `2 subgraphs and 1 node`."""
    wholes = sum(node.subgraph for node in nodes)
    counts = {"subgraph": wholes, "node": len(nodes) - wholes}
    words = [f"{number} {noun}{'s' if number > 1 else ''}" for noun, number in counts.items() if number]
    return " and ".join(words) or "no node"


def check(placed: Mapping[str, Sequence[PlacedNode]], provider: str) -> None:
    """Refuse a run that says nothing about a provider.

    Raises:
        ProviderError: Heavy operators, or everything with floats, ran on another one.
    """
    others = [node for node in elsewhere(placed, provider) if node.heavy]
    where = ", ".join(sorted(name for name in placed if name != provider))
    if not placed.get(provider) and any(node.floats for node in elsewhere(placed, provider)):
        raise ProviderError(
            f"No node of the model ran on {provider}, all did on {where}.",
            "Measure on the provider that runs the model.",
        )
    if others:
        raise ProviderError(
            f"{len(others)} nodes that do the model's work ran on {where} instead of {provider}: "
            f"{listed(map(str, others), 3)}.",
            f"The {provider} provider has no kernel for their type or version: export with other types or a "
            "newer opset, or measure on the CPU.",
        )
