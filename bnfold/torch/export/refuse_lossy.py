"""What exporters lose of a module's meaning: found before the export, and repaired, refused or reported.

- BatchNorm on the statistics of the batch in eval mode (`track_running_stats=False`, or
  `F.batch_norm(..., training=True)`): the exporter silently turns it into running statistics. Refused, unless
  it normalises weights (weight standardisation): that is a constant.
- Dropout that stays on in eval mode: there is no single result to compare with. Refused.
- Lazy modules that never ran: their weights do not exist. Refused.
- InstanceNorm with running statistics: a BatchNorm in eval mode, which the exporters write with `Tile` and
  `Reshape`, so that nothing can fold it. Exported as what it is.
- Statistics that were never trained: most likely a mistake. Reported.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakTensorKeyDictionary

from bnfold.errors import ModelError
from bnfold.torch.run_quietly import untouched

_BATCH_NORMS = frozenset(
    {
        *("batch_norm", "native_batch_norm", "_native_batch_norm_legit"),
        *("cudnn_batch_norm", "_batch_norm_impl_index"),
    }
)
_TRAINING = 5  # which argument of all of these it is
_DROPOUTS = frozenset(
    {
        *("dropout", "dropout1d", "dropout2d", "dropout3d"),
        *("alpha_dropout", "feature_alpha_dropout", "feature_dropout"),
    }
)
_SHOWN = 3


def refuse_lazy(module: nn.Module) -> None:
    """Refuse a module with parameters that have no shape yet.

    Raises:
        ModelError: Names the submodules.
    """
    lazy = [
        path
        for path, part in module.named_modules()
        if any(is_lazy(tensor) for tensor in (*part.parameters(recurse=False), *part.buffers(recurse=False)))
    ]
    if lazy:
        raise ModelError(
            f"The model has lazy layers that never ran: {_some(lazy)}. Their weights do not exist yet.",
            "Run the model once on real data, train it, and save it again.",
        )


def watched(
    module: nn.Module, args: tuple[torch.Tensor, ...], kwargs: Mapping[str, torch.Tensor]
) -> tuple[Any, list[ModelError]]:
    """Run `module` as it is, and watch what it does in eval mode that an export cannot keep.

    Buffers that the run changes are put back.

    Args:
        module: In eval mode.
        args: Inputs in order.
        kwargs: Inputs by name.

    Returns:
        What the module returns, and the refusals, the first call first.

    Raises:
        Exception: Whatever the module raises.
    """
    watch = _Watch(module)
    with untouched(module), watch.paths(), watch, torch.no_grad():
        result = module(*args, **kwargs)
    return result, watch.found


class _Watch(TorchFunctionMode):
    """Looks at the calls of torch's functions and the submodules in which they are made."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.found: list[ModelError] = []
        self._names = {part: path for path, part in module.named_modules()}
        self._stack: list[str] = []
        self._constant: MutableMapping[torch.Tensor, None] = WeakTensorKeyDictionary()
        """Tensors that follow from the weights alone."""
        self._constant.update(dict.fromkeys((*module.parameters(), *module.buffers())))

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Make the call, and note what may not be exported."""
        del types
        kwargs = kwargs or {}
        name = getattr(func, "__name__", "").partition(".")[0]  # an overload is called batch_norm.default
        path = next(reversed(self._stack), "")
        constant = self._are_constant((args, kwargs))
        target = args[:1] if name == "__setitem__" else ()
        if name in _BATCH_NORMS and _flag(args, kwargs, _TRAINING, "training", default=False):
            if not constant:
                self.found.append(_batch_statistics(path))
        elif name in _DROPOUTS and _drops(args, kwargs):
            self.found.append(_random(path))
        result = func(*args, **kwargs)
        if constant:
            self._constant.update(dict.fromkeys(_tensors(result)))
        elif any(tensor in self._constant for tensor in _tensors((result, target))):
            self._constant.clear()  # data was written into a constant, which others may be views of
        return result

    def _are_constant(self, arguments: Any) -> bool:
        tensors = _tensors(arguments)
        return bool(tensors) and all(tensor in self._constant for tensor in tensors)

    @contextlib.contextmanager
    def paths(self) -> Iterator[None]:
        """Keep the path of the submodule that is running."""
        enter = nn.modules.module.register_module_forward_pre_hook(self._enter)
        leave = nn.modules.module.register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            enter.remove()
            leave.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        del args
        self._stack.append(self._names.get(module, next(reversed(self._stack), "")))

    def _leave(self, module: nn.Module, args: Any, result: Any) -> None:
        del module, args, result
        self._stack.pop()


def _tensors(nested: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(nested) if isinstance(leaf, torch.Tensor)]


def _flag(args: tuple[Any, ...], kwargs: Mapping[str, Any], index: int, name: str, *, default: bool) -> bool:
    return bool(args[index]) if len(args) > index else bool(kwargs.get(name, default))


def _drops(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    share = args[1] if len(args) > 1 else kwargs.get("p", 0.5)
    name = "train" if "train" in kwargs else "training"
    return share > 0 and _flag(args, kwargs, 2, name, default=True)


def _batch_statistics(path: str) -> ModelError:
    return ModelError(
        f"A BatchNorm {_where(path)} normalises by the statistics of the batch, even in eval mode:"
        " there is nothing constant to fold, and an export would compute something else.",
        "Give it running statistics: track_running_stats=True, or training=False in F.batch_norm; make an"
        " exported program from a module after model.eval().",
    )


def _random(path: str) -> ModelError:
    return ModelError(
        f"A dropout {_where(path)} is on in eval mode: the model returns other numbers in every run.",
        "Pass training=self.training to F.dropout, or use nn.Dropout.",
    )


def _where(path: str) -> str:
    return f"at {path}" if path else "in the model's own forward"


def refuse_program(program: ExportedProgram) -> None:
    """Refuse a program with BatchNorms on statistics of the batch, of anything but its weights.

    Raises:
        ModelError: Names the submodule.
    """
    varying = _varying(program)
    for node in program.graph.nodes:
        if node not in varying:
            continue
        name = getattr(node.target, "__name__", "").partition(".")[0] if node.op == "call_function" else ""
        if name in _BATCH_NORMS and _flag(node.args, node.kwargs, _TRAINING, "training", default=False):
            raise _batch_statistics(_path_of(node))


def _varying(program: ExportedProgram) -> set[torch.fx.Node]:
    """The nodes that depend on the inputs; all of them where data is written into what does not."""
    inputs = set(map(str, program.graph_signature.user_inputs))
    varying: set[torch.fx.Node] = set()
    for node in program.graph.nodes:
        if node.name in inputs or not varying.isdisjoint(node.all_input_nodes):
            varying.add(node)
            written = node.args[0] if node.args and _writes(node) else None
            if isinstance(written, torch.fx.Node) and written not in varying:
                return set(program.graph.nodes)
    return varying


def _writes(node: torch.fx.Node) -> bool:
    """Whether an operator changes one of its arguments."""
    schema = getattr(node.target, "_schema", None)
    return schema is not None and schema.is_mutable


def _path_of(node: torch.fx.Node) -> str:
    """The path of the submodule that a node of a program comes from."""
    stack = list(node.meta.get("nn_module_stack", {}).values())
    return str(stack[-1][0]) if stack else ""


@contextlib.contextmanager
def instance_norms_as_batch_norms(source: nn.Module | ExportedProgram) -> Iterator[None]:
    """Within the block, InstanceNorms that use running statistics compute by `F.batch_norm`.

    Both are `y = γ·(x − μ)/√(σ² + ε) + β` then, with the same μ and σ² for every sample.
    """
    with _program_norms(source) if isinstance(source, ExportedProgram) else _module_norms(source):
        yield


@contextlib.contextmanager
def _module_norms(module: nn.Module) -> Iterator[None]:
    norms = [
        part
        for part in module.modules()
        if isinstance(part, _InstanceNorm)
        and part.track_running_stats
        and part.running_mean is not None
        and "_apply_instance_norm" not in vars(part)
    ]
    try:
        for norm in norms:
            # there is no public part of their forward without hooks, input checks and inputs without a batch
            norm._apply_instance_norm = _as_batch_norm(norm)  # type: ignore[method-assign]  # noqa: SLF001
        yield
    finally:
        for norm in norms:
            vars(norm).pop("_apply_instance_norm", None)


def _as_batch_norm(norm: _InstanceNorm) -> Callable[[torch.Tensor], torch.Tensor]:
    def apply(x: torch.Tensor) -> torch.Tensor:
        return nn.functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias, training=False, eps=norm.eps
        )

    return apply


@contextlib.contextmanager
def _program_norms(program: ExportedProgram) -> Iterator[None]:
    """The two operators take the same arguments in the same order."""
    aten = torch.ops.aten
    nodes = [
        node
        for node in program.graph.nodes
        if node.target is aten.instance_norm.default and not node.args[_TRAINING]
    ]
    try:
        for node in nodes:
            node.target = aten.batch_norm.default
        yield
    finally:
        for node in nodes:
            node.target = aten.instance_norm.default


def untrained(state: Mapping[str, Any]) -> str | None:
    """The note about BatchNorms whose statistics still are the initial ones: mean 0, variance 1 everywhere.

    Args:
        state: A `state_dict`.
    """
    found = [
        key.removesuffix("running_mean").removesuffix(".") or "the model itself"
        for key, mean in state.items()
        if key.rpartition(".")[2] == "running_mean"
        and isinstance(variance := state.get(key.removesuffix("mean") + "var"), torch.Tensor)
        and not mean.any()
        and bool((variance == 1).all())
    ]
    if not found:
        return None
    return (
        f"BatchNorms whose running statistics were never updated (mean 0, variance 1): {_some(found)}."
        " The model was not trained, or its weights were not loaded."
    )


def _some(paths: list[str]) -> str:
    more = len(paths) - _SHOWN
    return ", ".join(paths[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
