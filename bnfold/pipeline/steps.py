"""Steps after the fold: each makes another model of the folded one, proves it, and says what it did.

A step takes itself back where its proof fails: it then returns the model that it was given, and its record
says so. Steps come before the validation of the whole, which compares what all of them made with the
original.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import onnx_ir as ir

from bnfold.edge.balance import Equalized, held
from bnfold.edge.equalize import equalized
from bnfold.errors import BnfoldError
from bnfold.folding import record
from bnfold.options import Checking

if TYPE_CHECKING:
    from bnfold.inputs.given import Inputs
    from bnfold.runtime.sessions import Feeds, Optimizer

_OPTIMIZERS: tuple[Optimizer, ...] = ("off", "default")


@dataclass(frozen=True)
class Done:
    """What a step did.

    Attributes:
        name: Of the step, as its option on the command line without the hyphens: `"equalize"`.
        sentence: What it did, for the headline of a report.
        details: The same in figures, as plain values for JSON.
        passed: Whether its proof holds; where it does not, the step was taken back.
    """

    name: str
    sentence: str
    details: Mapping[str, Any] = field(default_factory=dict)
    passed: bool = True


class Step(Protocol):
    """Makes another model of a folded one."""

    @property
    def name(self) -> str:
        """As in its [`Done`][bnfold.pipeline.steps.Done]."""
        ...

    def __call__(self, model: ir.Model, trial: Trial | None) -> tuple[ir.Model, Done]:
        """Apply the step.

        Args:
            model: The model; it is not modified.
            trial: Runs models on the samples of the validation; None where nothing is to be run.

        Returns:
            The new model, or the given one if the step was taken back; and what was done.
        """
        ...


def apply(
    steps: Sequence[Step], model: ir.Model, trial: Trial | None = None
) -> tuple[ir.Model, tuple[Done, ...]]:
    """Apply steps one after the other."""
    done = []
    for step in steps:
        model, one = step(model, trial)
        done.append(one)
    return model, tuple(done)


@dataclass(frozen=True)
class Trial:
    """Runs models as the validation does: on the same samples and providers.

    Attributes:
        checking: How the whole is compared.
        inputs: What models are run on; None draws random inputs.
    """

    checking: Checking
    inputs: Inputs | None = None

    def different_bits(self, before: ir.Model, after: ir.Model) -> tuple[int, str | None]:
        """Compare all outputs of two models bit by bit, with ONNX Runtime's optimizer off and at its default.

        Returns:
            On how many samples; and the first difference as part of a sentence, None if there is none.

        Raises:
            BnfoldError: ONNX Runtime is not installed, or cannot run one of the models.
        """
        from bnfold.runtime.interface import interface
        from bnfold.runtime.sessions import Written, run, session

        with closing(Written(before)) as first, closing(Written(after)) as second:
            samples = self.samples(before, first)
            names = [port.name for port in interface(before).outputs]
            for provider in self.checking.providers:
                for optimizer in _OPTIMIZERS:
                    one, other = (
                        session(
                            written.source,
                            provider=provider,
                            optimized=optimizer,
                            threads=self.checking.threads,
                        )
                        for written in (first, second)
                    )
                    for feeds in samples:
                        for name, a, b in zip(names, run(one, feeds), run(other, feeds), strict=True):
                            if bits(a) != bits(b):
                                where = f"{provider}, optimizer {optimizer}"
                                return len(samples), f"the output {name!r} differs on {where}"
        return len(samples), None

    def why_bits_differ(self, before: ir.Model, after: ir.Model) -> str:
        """What of the values whose name changed is too large or too small for their type, as a clause.

        It begins with a semicolon, and is empty where nothing is.
        """
        from bnfold.edge.extremes import first_extreme
        from bnfold.runtime.sessions import Written

        with closing(Written(before)) as written:
            samples = self.samples(before, written)
        found = first_extreme(before, record.names(before) - record.names(after), samples)
        return f"; {found}" if found else ""

    def samples(self, model: ir.Model, written: Any) -> tuple[Feeds, ...]:
        """The samples of the validation; those that are drawn are drawn once for all steps.

        Args:
            model: The model that they are drawn for.
            written: The same as a [`Written`][bnfold.runtime.sessions.Written].
        """
        known = self._drawn
        if not known:
            from bnfold.inputs.given import as_samples
            from bnfold.inputs.samples import choose
            from bnfold.runtime.interface import interface
            from bnfold.runtime.sessions import run, session

            ports = interface(model).inputs
            if self.inputs is not None:
                known.extend(as_samples(self.inputs, ports).feeds)
            else:
                off = session(written.source, optimized="off", threads=self.checking.threads)
                checking = self.checking
                known.extend(
                    choose(
                        ports,
                        lambda feeds: run(off, feeds),
                        count=checking.samples,
                        seed=checking.seed,
                        model=model,
                    ).feeds
                )
        return tuple(known)

    @cached_property
    def _drawn(self) -> list[Feeds]:
        return []


def bits(output: Any) -> Any:
    """What has to be equal of an output: an array's type, shape and bytes; all of a sequence or map."""
    if isinstance(output, list | tuple):
        return [bits(one) for one in output]
    if isinstance(output, Mapping):
        return {key: bits(one) for key, one in output.items()}
    if isinstance(output, np.ndarray) and output.dtype.kind != "O":
        return output.dtype.str, output.shape, output.tobytes()
    return output.tolist() if isinstance(output, np.ndarray) else output


@dataclass(frozen=True)
class Equalize:
    """Balance the channels of weights by powers of two; the proof is that the outputs are equal bit for bit.

    Attributes:
        in_memory: Whether the new weights are computed at once, and not when the model is written.
    """

    in_memory: bool = True
    name: str = "equalize"

    def __call__(self, model: ir.Model, trial: Trial | None) -> tuple[ir.Model, Done]:
        """Apply it; taken back where one bit of an output differs."""
        result = equalized(model, in_memory=self.in_memory)
        count, channels = result.moved, sum(one.channels for one in result.layers)
        if not count:
            return model, Done(self.name, f"Nothing to equalise: {_nothing(result)}.", _details(result, None))
        bits = [
            sum(getattr(one, name) for one in result.layers) / len(result.layers)
            for name in ("bits_before", "bits_after")
        ]
        said = (
            f"Equalised {count:,} of {channels:,} channels by powers of two: one step for a whole weight"
            f" costs a channel {bits[1]:.2f} bits on average, {bits[0]:.2f} before"
        )
        proof: dict[str, Any] | None = None
        if trial is None:
            said += ". Nothing was run; powers of two round nothing, unless a value overflows or is subnormal"
        else:
            try:
                samples, difference = trial.different_bits(model, result.model)
            except BnfoldError as error:
                said += f". The outputs could not be compared bit by bit: {error.problem.rstrip('.')}"
            else:
                proof = {"samples": samples, "optimizers": list(_OPTIMIZERS), "equal": difference is None}
                if difference is not None:
                    why = trial.why_bits_differ(model, result.model)
                    back = f"The equalisation was taken back: {difference} from that before it{why}."
                    return model, Done(self.name, back, _details(result, proof), passed=False)
                noun = "sample" if samples == 1 else "samples"
                said += f". Every output is the same bit for bit, on {samples} {noun}"
        keep_record(model, result.model)
        return result.model, Done(self.name, f"{said}.", _details(result, proof))


def _nothing(result: Equalized[ir.Model]) -> str:
    """Why no channel moved, with the first reason of all; the report has the others."""
    if not result.layers:
        first = next(iter(result.refused.items()), None)
        return "no weight can be scaled" + (f", first {first[0]!r}, because {first[1]}" if first else "")
    stopped = [one for one in result.layers if one.stopped]
    if not stopped:
        return "no channel gains by it"
    verb = "layer is" if len(result.layers) == 1 else "layers is" if len(stopped) == 1 else "layers are"
    return (
        f"no channel gains by it, and {len(stopped)} of {len(result.layers)} {verb} held, first "
        f"{stopped[0].layer!r}, because {held(stopped[0].stopped)}"
    )


def _details(result: Equalized[ir.Model], proof: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "layers": [dict(vars(one)) for one in result.layers],
        "refused": dict(result.refused),
        "proof": proof,
    }


def keep_record(before: ir.Model, after: ir.Model) -> None:
    """Let the record of the fold in a model stand for what a step made of it, with new names for new values.

    Args:
        before: The model that the step was given.
        after: What it made, whose record is written.
    """
    text = before.metadata_props.get(record.KEY)
    if text is None:
        return
    try:
        entries = json.loads(text)
    except ValueError:
        return
    if not isinstance(entries, dict) or entries.get("folded") != record.digest(before):
        return  # it was of another model before
    new = record.names(after) - record.names(before)
    known = set(entries.get("new_values", ())) & record.names(after)
    entries |= {"folded": record.digest(after), "new_values": sorted(known | new)}
    after.metadata_props[record.KEY] = json.dumps(entries, separators=(",", ":"))


def asked_for(*, equalize: bool, in_memory: bool = True) -> tuple[Step, ...]:
    """The steps of some options, in their order."""
    return (Equalize(in_memory),) if equalize else ()
