"""All changes of a contract, one after the other; nothing is run."""

from __future__ import annotations

import onnx_ir as ir

from bnfold.contract import constants, ports, preprocessing, reshapes, simplify, sizes, versions
from bnfold.contract.changed import Changed
from bnfold.contract.contract import Contract


def changes(model: ir.Model, contract: Contract) -> list[Changed]:
    """Make the changes that a contract asks for; the last one's model is the whole, and none is the model.

    Args:
        model: The model, which stays as it is.
        contract: What is asked for.

    Raises:
        InputError: Something that was asked for does not suit the model.
        ModelError: A converter cannot do it; names what stands in the way.
        MissingExtraError: The package is missing that does it.
    """
    versions.check(contract.opset, contract.ir_version)
    done: list[Changed] = []

    def now() -> ir.Model:
        return done[-1].model if done else model

    if contract.outputs:
        done.append(ports.cut(now(), contract.outputs))
    if contract.batch is not None or contract.shapes:
        done.append(sizes.fixed(now(), contract.batch, contract.shapes))
    if contract.simplify:
        done.append(simplify.simplified(now()))
    if contract.plain_reshapes and (change := reshapes.plain(now())) is not None:
        done.append(change)
    if contract.plain_constants:
        done.append(constants.plain(now()))
    if contract.opset is not None:
        done.append(versions.with_opset(now(), contract.opset))
    if contract.preprocessing is not None:
        done.append(preprocessing.preprocessed(now(), contract.preprocessing))
    if contract.rename:
        done.append(ports.renamed(now(), contract.rename))
    if contract.ir_version is not None:
        done.append(versions.with_ir_version(now(), contract.ir_version))
    return done
