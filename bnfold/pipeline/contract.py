"""The contract before the fold: each change is proved by running the models before and after it.

The samples are drawn for the last model, whose inputs are those that callers will give. From there each
change says what the model before it gets for the same sample. Where nothing may round differently, every
output has to be the same bit for bit, with ONNX Runtime's optimizer off. Where a converter may compute the
same in another way, and does, the two models are validated like a fold.
"""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from bnfold.contract.contract import Contract
from bnfold.errors import BnfoldError, InputError, ModelError, UndecidedError
from bnfold.graph.scopes import nodes
from bnfold.pipeline.steps import Done, Trial, bits

if TYPE_CHECKING:
    from bnfold.contract.changed import Changed
    from bnfold.inputs.given import Inputs
    from bnfold.runtime.sessions import Feeds

    _Outputs = list[list[bytes]]

_MOST_UNITS = 8.0  # that preprocessing may be off in its type: at most four operations, each half a unit
_OPTIONS = {
    "preprocessing": "the options of preprocessing",
    "plain-reshapes": "--target",
    "plain-constants": "--target",
}
"""What to leave out for changes that have not an option of their name."""
_WITHOUT_REFERENCES = 2  # the version of marshal in which equal values have equal bytes


class ContractNotMetError(BnfoldError):
    """A change of the contract does not compute the same; nothing was written.

    Args:
        done: What was done, of which the last did not pass.
    """

    exit_code = 1

    def __init__(self, done: Sequence[Done]) -> None:
        option = _OPTIONS.get(done[-1].name, f"--{done[-1].name}")
        super().__init__(
            f"Nothing was written. {done[-1].sentence}",
            f"Leave {option} out. If the model gives another result each time, no proof is possible;"
            " --no-validate leaves it out.",
        )
        self.done = tuple(done)


@dataclass(frozen=True)
class Contracted:
    """A model after all changes of its contract.

    Attributes:
        model: The model.
        done: What was done, in order.
        preparing: Names of the nodes that prepare its input, where preprocessing was put into it.
    """

    model: ir.Model
    done: tuple[Done, ...] = ()
    preparing: tuple[str, ...] = ()

    def with_left(self, folded: ir.Model) -> tuple[Done, ...]:
        """What was done, and what the fold has left of the preprocessing where there was one."""
        if not self.preparing:
            return self.done
        known = {node.name: node for node in nodes(folded)}
        stay = [f"{known[name].op_type} {name!r}" for name in self.preparing if name in known]
        count = len(self.preparing)
        if not stay:
            said = f"All {count} nodes of the preprocessing went into the layers after them."
        elif len(stay) == count:
            said = f"Of the preprocessing all nodes stay: {', '.join(stay)}."
        else:
            said = (
                f"{count - len(stay)} of {count} nodes of the preprocessing went into the layers after them;"
                f" these stay: {', '.join(stay)}."
            )
        return *self.done, Done("preprocessing-left", said, {"nodes": count, "left": stay})


def contracted(model: ir.Model, contract: Contract, trial: Trial | None, *, runs: bool = True) -> Contracted:
    """Make the changes of a contract, and prove each.

    Args:
        model: The model, which stays as it is.
        contract: What is asked for.
        trial: Runs the models; None proves nothing.
        runs: Whether the command is one that runs models: one that does not makes no change that only a run
            can prove.

    Raises:
        ContractNotMetError: A change does not compute the same.
        UndecidedError: The models cannot be run.
        BnfoldError: As for [`changes`][bnfold.contract.apply.changes].
    """
    if contract.changes_nothing:
        return Contracted(model)
    from bnfold.contract.apply import changes  # most folds have no use for the converters

    chain = changes(model, contract)
    if not chain:  # a target asked for what the model has already
        return Contracted(model)
    unsure = [change.name for change in chain if change.by_others]
    if unsure and not runs:
        raise InputError(
            f"--{unsure[0]} is the work of a converter here: only a run proves it, and a fold runs nothing.",
            "Use bnfold export, which proves it.",
        )
    proofs = [None] * len(chain) if trial is None else _proofs(chain, trial)
    done: list[Done] = []
    for change, proof in zip(chain, proofs, strict=True):
        said = f"{change.sentence} {proof.sentence}".rstrip() if proof is not None else change.sentence
        details = {**change.details, "proof": None if proof is None else proof.details}
        done.append(Done(change.name, said, details, proof is None or proof.passed))
        if not done[-1].passed:
            raise ContractNotMetError(done)
    preparing = tuple(name for change in chain for name in change.nodes)
    return Contracted(chain[-1].model, tuple(done), preparing)


def as_given(inputs: Inputs | None, contract: Contract) -> Inputs | None:
    """Pictures as the model takes them that prepares them itself; other data is the new inputs' already.

    Raises:
        InputError: Pictures are to be normalised twice.
    """
    from bnfold.inputs.given import Given
    from bnfold.inputs.images import Look

    asked = contract.preprocessing
    if asked is None or not isinstance(inputs, Given) or inputs.kind != "images":
        return inputs
    prepares = bool(asked.mean or asked.std or asked.uint8 or asked.factor)
    if prepares and (inputs.mean, inputs.std) != (Look.mean, Look.std):
        raise InputError(
            "The pictures are to be normalised before the model, and the model prepares them itself.",
            "Give the numbers of --mean and --std to --normalize, and leave the two out.",
        )
    return replace(inputs, raw=asked.factor is not None, bgr=asked.bgr)


@dataclass(frozen=True)
class _Proof:
    sentence: str
    passed: bool
    details: dict[str, Any]


def _proofs(chain: Sequence[Changed], trial: Trial) -> list[_Proof]:
    """The proof of each change, on the same samples; every model is run once."""
    from bnfold.runtime.sessions import Written

    last = chain[-1].model
    with closing(Written(last)) as written:
        feeds = trial.samples(last, written)
    proofs: list[_Proof] = []
    known: tuple[ir.Model, _Outputs] | None = None
    for change in reversed(chain):
        if change.model is change.reference:
            proofs.append(_Proof("", True, {"samples": len(feeds), "equal": True}))
            continue
        same = known is not None and known[0] is change.model
        after = known[1] if known is not None and same else _outputs(change.model, feeds, trial, change.name)
        samples, feeds = feeds, tuple(change.back(one) for one in feeds)
        before = _outputs(change.reference, feeds, trial, change.name)
        proofs.append(_proof(change, samples, before, after, trial))
        known = change.reference, before
    return proofs[::-1]


def _proof(
    change: Changed, samples: Sequence[Feeds], before: _Outputs, after: _Outputs, trial: Trial
) -> _Proof:
    count = len(samples)
    details: dict[str, Any] = {"samples": count, "equal": True}
    on = f"on {count} {'sample' if count == 1 else 'samples'}"
    if change.rounding is not None:
        units = max(map(change.rounding, samples))
        details["units"] = units
        if not units <= _MOST_UNITS:  # it may be NaN
            return _Proof(f"Its type is too coarse: it is off by {units:.3g} units.", False, details)
    difference = _difference(change, before, after)
    if difference is None:
        than = "" if change.rounding is None else " as with the same done in NumPy before the model"
        return _Proof(f"Every output is the same bit for bit{than}, {on}.", True, details)
    details |= {"equal": False, "difference": difference}
    if not change.may_round:
        return _Proof(f"But {difference}.", False, details)
    failures = _failures(change, samples, trial)
    if failures:
        return _Proof(f"But it does not agree: {failures[0]}", False, details)
    return _Proof(f"It agrees with the float64 reference, {on}; last digits differ.", True, details)


def _difference(change: Changed, before: _Outputs, after: _Outputs) -> str | None:
    """The first difference between the outputs, as part of a sentence; None if there is none."""
    from bnfold.runtime.interface import interface

    names = [port.name for port in interface(change.model).outputs]
    for number, (one, other) in enumerate(zip(before, after, strict=True), 1):
        for name, a, b in zip(names, one, other, strict=True):
            if a != b:
                return f"the output {name!r} differs in its bits on sample {number}"
    return None


def _outputs(model: ir.Model, samples: Sequence[Feeds], trial: Trial, name: str) -> _Outputs:
    """Hashes of all outputs, from ONNX Runtime, or in float64 where that has not all of the operators.

    Raises:
        UndecidedError: Neither runs the model.
    """
    from bnfold.oracle.oracle import Oracle
    from bnfold.runtime.sessions import Written, run, session

    with closing(Written(model)) as written:
        try:
            off = session(written.source, optimized="off", threads=trial.checking.threads)
            found = [run(off, feeds) for feeds in samples]
        except ModelError as error:
            try:
                found = [Oracle(model).run(feeds) for feeds in samples]
            except BnfoldError:
                raise UndecidedError(
                    f"--{name} cannot be proved: {error.problem}", "Skip the proof with --no-validate."
                ) from error
    return [
        [hashlib.blake2b(marshal.dumps(bits(one), _WITHOUT_REFERENCES)).digest() for one in outputs]
        for outputs in found
    ]


def _failures(change: Changed, samples: Sequence[Feeds], trial: Trial) -> Sequence[str]:
    """What the validation of the change finds wrong."""
    from bnfold.validation.compare import compare

    checking = replace(trial.checking, strict=False, per_layer=False, cover=False)
    found = compare(change.reference, change.model, checking, list(samples))
    return found.failures or ([found.undecided] if found.undecided else [])
