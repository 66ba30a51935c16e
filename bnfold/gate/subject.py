"""A model under check: what several rules ask for is made once, when the first asks."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bnfold.gate.settings import Settings, Source

if TYPE_CHECKING:
    import onnx_ir as ir

    from bnfold.gate.numbers import Numbers
    from bnfold.graph.facts import Facts
    from bnfold.latency.optimized_graph import OptimizedGraph
    from bnfold.result import FoldResult
    from bnfold.targets.check import Broken
    from bnfold.validation.results import Validation


_LAYERS = frozenset(
    {"Conv", "ConvTranspose", "Gemm", "MatMul", "LSTM", "GRU", "RNN", "PRelu", "BatchNormalization"}
    | {"LayerNormalization", "InstanceNormalization", "GroupNormalization", "RMSNormalization"}
)
_PARAMETERS = frozenset({"weight", "bias", "running_mean", "running_var"})


class Subject:
    """One file, what is demanded of it, and what it is compared with.

    Attributes:
        path: The file.
        settings: What is demanded of this file.
        source: What it was made from; None where no source is configured.
        earlier: The file that it was before; None without one.
    """

    def __init__(
        self, path: Path, settings: Settings, source: Source | None = None, earlier: Path | None = None
    ) -> None:
        self.path, self.settings, self.source, self.earlier = path, settings, source, earlier

    @functools.cached_property
    def problem(self) -> tuple[str, str] | None:
        """Why nothing else can be asked, as the code of a rule and a sentence without a full stop."""
        from bnfold.errors import ExternalDataError, ModelError

        try:
            is_onnx = self.is_onnx
        except ModelError as error:
            return "M301", _without(error.problem, self.path)
        try:
            if is_onnx:
                self.model  # noqa: B018 - reading it is the question
            else:
                self.statistics  # noqa: B018
        except ExternalDataError as error:
            return ("M305" if error.is_outside else "M304"), _without(error.problem, self.path)
        except ModelError as error:
            return ("M302" if self._begins_as_a_model else "M301"), _without(error.problem, self.path)
        return None

    @property
    def _begins_as_a_model(self) -> bool:
        from bnfold.files.file_kind import TORCH_KINDS, FileKind, kind_of

        return kind_of(self.path) in {FileKind.ONNX, *TORCH_KINDS}

    @functools.cached_property
    def is_onnx(self) -> bool:
        """Whether the file holds a graph; the others are PyTorch's, and hold weights.

        Raises:
            ModelError: It is not there, or not a file.
        """
        from bnfold.files.file_kind import TORCH_KINDS, kind_of

        return kind_of(self.path) not in TORCH_KINDS

    @functools.cached_property
    def model(self) -> ir.Model:
        """The ONNX model; its weights stay on disk.

        Raises:
            ModelError: It cannot be read.
        """
        from bnfold.files.load import load_onnx

        return load_onnx(self.path)

    @functools.cached_property
    def facts(self) -> Facts:
        """What is known of the graph."""
        from bnfold.graph.facts import Facts

        return Facts(self.model)

    @functools.cached_property
    def broken(self) -> tuple[Broken, ...]:
        """What stands in its way to each target of the settings.

        Raises:
            InputError: A target is not known.
        """
        from bnfold.targets.check import obstacles
        from bnfold.targets.profile import load
        from bnfold.targets.view import View

        if not self.settings.targets:
            return ()
        view = View(self.model, self.facts)
        return tuple(one for name in self.settings.targets for one in obstacles(load(name), view))

    @functools.cached_property
    def folded(self) -> FoldResult[ir.Model]:
        """What a fold would do, without what ONNX Runtime would run worse, where that is installed."""
        from bnfold.options import Checking
        from bnfold.pipeline.harm import without_harm
        from bnfold.pipeline.progress import silent
        from bnfold.pipeline.read import Source as Read
        from bnfold.pipeline.rollback import Attempt

        read = Read(self.path, "onnx", False, self.model)
        attempt = Attempt(read, (), True, False, Checking(), None, silent)
        folded = attempt.fold()
        if not any(site.status in ("folded", "merged") for site in folded.sites) and not folded.merges:
            return folded
        return without_harm(attempt, folded)[1]

    @functools.cached_property
    def numbers(self) -> tuple[Numbers, ...]:
        """Every weight of floats, measured."""
        from bnfold.gate.numbers import measure
        from bnfold.tensors.precision import FLOATS

        return tuple(measure(name, tensor) for name, tensor in self._weights() if tensor.dtype in FLOATS)

    @functools.cached_property
    def multiplied(self) -> frozenset[str]:
        """The names of the weights that layers multiply with, or add to what they computed."""
        if not self.is_onnx:
            return frozenset(name for name, _ in self._weights() if name.rsplit(".", 1)[-1] in _PARAMETERS)
        from bnfold.graph.scopes import ONNX_DOMAINS

        return frozenset(
            value.name
            for scope in self.facts.scopes
            for node in scope.graph
            if node.op_type in _LAYERS and node.domain in ONNX_DOMAINS
            for value in node.inputs
            if value is not None and value.name
        )

    def _weights(self) -> Iterator[tuple[str, ir.TensorProtocol]]:
        """The constants of the file by name, one at a time."""
        if not self.is_onnx:
            from bnfold.torch.read.raw_weights import raw_weights

            yield from ((tensor.name or "", tensor) for tensor in raw_weights(self.path))
            return
        for scope in self.facts.scopes:
            for value in getattr(scope.graph, "initializers", {}).values():
                if value.const_value is not None:
                    yield value.name, value.const_value
            for node in scope.graph:
                held = node.attributes.get("value") if node.op_type == "Constant" else None
                if held is not None and not held.is_ref():
                    yield node.outputs[0].name or "", held.as_tensor()

    @functools.cached_property
    def statistics(self) -> Mapping[str, tuple[Any, Any]]:
        """The running mean and variance of every BatchNorm as arrays, by its name."""
        if not self.is_onnx:
            named = dict(self._weights())
            stems = [name.removesuffix("running_mean") for name in named if name.endswith("running_mean")]
            pairs = {stem: (named[f"{stem}running_mean"], named.get(f"{stem}running_var")) for stem in stems}
            return {
                stem.removesuffix(".") or "running_mean": (mean.numpy(), variance.numpy())
                for stem, (mean, variance) in pairs.items()
                if variance is not None
            }
        from bnfold.folding.recognise import is_batchnorm
        from bnfold.graph.nodes import module_name

        found: dict[str, tuple[Any, Any]] = {}
        for scope in self.facts.scopes:
            for node in filter(is_batchnorm, scope.graph):
                constants = [self.facts.operand(node, place) for place in (3, 4)]
                if constants[0] is not None and constants[1] is not None:
                    found[module_name(node)] = (constants[0], constants[1])
        return found

    @functools.cached_property
    def against_source(self) -> Validation:
        """This file held against its source.

        Raises:
            BnfoldError: The source cannot be read, or the two cannot be compared.
        """
        from bnfold.options import Reading
        from bnfold.pipeline.read import read_model

        assert self.source is not None, "asked for files with a source only"
        return self._compared(read_model(self.source.file, Reading(**self.source.reading)).model)

    @functools.cached_property
    def against_earlier(self) -> Validation:
        """This file held against what it was before.

        Raises:
            BnfoldError: The two cannot be compared.
        """
        return self._compared(self.earlier)

    @functools.cached_property
    def differences(self) -> tuple[str, ...]:
        """What callers meet otherwise than in the earlier file, as sentences; nothing is run.

        Raises:
            BnfoldError: The earlier file cannot be read.
        """
        from bnfold.files.load import load_onnx
        from bnfold.runtime.interface import interface
        from bnfold.validation.pairing import model_differences, pair

        assert self.earlier is not None, "asked for files with an earlier version only"
        before = load_onnx(self.earlier)
        pairing = pair(interface(before), interface(self.model))
        return (*pairing.problems, *pairing.notes, *sorted(model_differences(before, self.model)))

    @functools.cached_property
    def has_other_sizes(self) -> bool:
        """Whether the sizes of the inputs are others than in the earlier file.

        Raises:
            BnfoldError: The earlier file cannot be read.
        """
        from bnfold.files.load import load_onnx
        from bnfold.runtime.interface import interface

        assert self.earlier is not None, "asked for files with an earlier version only"
        models = (load_onnx(self.earlier), self.model)
        before, now = ([port.shape for port in interface(model).inputs] for model in models)
        return before != now

    def _compared(self, other: Any) -> Validation:
        from bnfold.inputs.given import Given
        from bnfold.validation.validate import validate

        given = self.settings.validation
        inputs = Given.parse(given.inputs) if given.inputs else None
        return validate(other, self.path, inputs=inputs, samples=given.samples, seed=given.seed)

    def optimized(self, path: Path) -> OptimizedGraph:
        """What ONNX Runtime makes of a file."""
        from bnfold.latency.optimized_graph import optimized_graph

        return optimized_graph(path)


def _without(problem: str, path: Path) -> str:
    """A problem as part of a line that begins with the path."""
    text = " ".join(problem.split()).rstrip(".")
    return f"it {text.removeprefix(f'{path} ')}" if text.startswith(f"{path} ") else text
