"""What an export can do about what stands in the way to a target."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import onnx_ir as ir

from bnfold.runtime.interface import Port, interface
from bnfold.targets.attributes import Attribute
from bnfold.targets.batchnorm import BatchNorm
from bnfold.targets.constants import PlainConstants
from bnfold.targets.profile import Profile
from bnfold.targets.sizes import Sizes
from bnfold.targets.versions import IrVersion, Opset, opset_of
from bnfold.targets.view import View

_EXPORTERS = 20  # the opset that PyTorch's exporter writes where none is asked for


@dataclass(frozen=True)
class Plan:
    """What is asked of an export for a target; None and empty leave things as they are.

    Attributes:
        opset: Version of ONNX's operators.
        ir_version: IR version.
        batch: The first size of every input.
        shapes: Sizes of inputs by name, where not every input has a batch.
        plain_reshapes: Whether Reshapes lose `allowzero` where it means nothing.
        plain_constants: Whether Constants hold tensors in place of numbers.
        no_batchnorm: Whether BatchNorms that cannot be folded become other operators.
    """

    opset: int | None = None
    ir_version: int | None = None
    batch: int | None = None
    shapes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    plain_reshapes: bool = False
    plain_constants: bool = False
    no_batchnorm: bool = False


def plan(profile: Profile, model: ir.Model | None) -> Plan:
    """What an export can do for a target.

    Args:
        profile: The target.
        model: The model as it is; None for one that is yet to be exported from PyTorch, with the sizes that
            its user gives.
    """
    opset, version, sizes = (profile.limit(kind) for kind in (Opset, IrVersion, Sizes))
    batchnorm, constants = profile.limit(BatchNorm), profile.limit(PlainConstants)
    view = None if model is None else View(model)
    has_opset = _EXPORTERS if view is None else opset_of(view)
    batch, shapes = (None, {}) if model is None or not isinstance(sizes, Sizes) else _sizes(sizes, model)
    return Plan(
        opset=_other(opset.nearest(has_opset), has_opset) if isinstance(opset, Opset) else None,
        ir_version=_other(version.nearest(model.ir_version), model.ir_version)
        if isinstance(version, IrVersion) and model is not None
        else None,
        batch=batch,
        shapes=shapes,
        plain_reshapes=any(_wants_plain(rule.limit) for rule in profile.rules),
        plain_constants=constants is not None and view is not None and any(constants.look(view)),
        no_batchnorm=batchnorm is not None and (view is None or any(batchnorm.look(view))),
    )


def _other(wanted: int, has: int) -> int | None:
    return wanted if wanted != has else None


def _wants_plain(limit: object) -> bool:
    return isinstance(limit, Attribute) and limit.name == "allowzero" and 1 not in limit.allowed


def _sizes(limit: Sizes, model: ir.Model) -> tuple[int | None, dict[str, tuple[int, ...]]]:
    """A batch of one for inputs in which nothing else is open.

    Returns:
        The batch of all inputs; or None and the shapes of those, if others have no batch of one.
    """
    ports = interface(model).inputs
    open_ones = [port for port in ports if _open_batch_alone(port) and (limit.batch or limit.is_open(port))]
    if not open_ones:
        return None, {}
    batch = limit.batch or 1
    if all(port in open_ones or _first(port) in (batch, None) for port in ports):
        return batch, {}
    return None, {port.name: (batch, *_rest(port)) for port in open_ones}


def _first(port: Port) -> int | str | None:
    return port.shape[0] if port.shape else None


def _rest(port: Port) -> tuple[int, ...]:
    return tuple(size for size in (port.shape or ())[1:] if isinstance(size, int))


def _open_batch_alone(port: Port) -> bool:
    shape = port.shape
    return (
        bool(shape)
        and shape is not None
        and not isinstance(shape[0], int)
        and len(_rest(port)) == len(shape) - 1
    )
