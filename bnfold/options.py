"""Options that are passed on together: how a model is read, checked and timed.

The public functions take them as keywords; inside, they travel as one object.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, TypedDict

OracleMode: TypeAlias = Literal["auto", "on", "off"]
Match: TypeAlias = Literal["name", "order"]

SECONDS = 10.0
"""The most time that a timing takes on each provider, unless it is given another."""


@dataclass(frozen=True)
class Reading:
    """How a PyTorch file is read and exported to ONNX. An ONNX file needs none of this.

        Reading(input_shape="1x3x224x224", dynamic="batch")
        Reading(input_shape=["ids=1x16", "mask=1x16"], dtype="ids=int64,mask=bool")
        Reading(input_shape=(1, 3, 32, 32), arch="package.module:factory", arch_args={"num_classes": 10})

    Attributes:
        input_shape: Shape of a module's input, as `(1, 3, 224, 224)` or `"1x3x224x224"`; for several inputs a
            list such as `["image=1x3x8x8", "mask=1x8"]`.
        dtype: Type of the inputs, as `"float16"`, or types by name, as `"ids=int64,mask=bool"`.
        arch: The class or function that makes the network for a file of weights, as
            `"package.module:factory"`. It is imported and run.
        arch_args: Keyword arguments of `arch`, or a JSON object that holds them.
        key: Where the model is in a checkpoint, with dots, as `"ema.state_dict"`.
        allow: Classes that a pickle may use in addition to torch.nn's, as `"package.module.Class"`.
        trust: Whether a pickle may run any code while it is read.
        opset: ONNX opset of the export; None leaves the choice to the exporter.
        ir_version: IR version of the export; None leaves the choice to the exporter.
        dynamic: Sizes of the inputs to leave open: `"batch"` is the first size of every input, `"2=height"`
            is axis 2 of every input, `"x:2=height"` is axis 2 of the input x.
        ignore_unexpected: Whether weights that `arch` does not have are left out; missing ones are an error.
    """

    input_shape: Sequence[int] | Sequence[str] | str | None = None
    dtype: str | None = None
    arch: str | None = None
    arch_args: Mapping[str, Any] | str | None = None
    key: str | None = None
    allow: Sequence[str] = ()
    trust: bool = False
    opset: int | None = None
    ir_version: int | None = None
    dynamic: Sequence[str] | str = ()
    ignore_unexpected: bool = False

    @property
    def shapes(self) -> list[str]:
        """`input_shape` in the form of the command line: one text per input."""
        shape = self.input_shape
        if not shape:
            return []
        if isinstance(shape, str):
            return [shape]
        if all(isinstance(part, int) for part in shape):
            return ["x".join(str(part) for part in shape)]
        return [str(part) for part in shape]

    @property
    def open_sizes(self) -> list[str]:
        """`dynamic` as a list."""
        return [self.dynamic] if isinstance(self.dynamic, str) else list(self.dynamic)

    @property
    def given(self) -> dict[str, Any]:
        """The options that were given, for a report: enough to read the file in the same way again."""
        lists = {"input_shape": self.shapes, "allow": list(self.allow), "dynamic": self.open_sizes}
        values = {field.name: getattr(self, field.name) for field in fields(self)} | lists
        return {name: value for name, value in values.items() if value}


PLAIN = Reading()
"""A file is read without any option."""


@dataclass(frozen=True)
class Checking:
    """How a folded model is compared with its original.

        Checking(providers=("cpu", "cuda"), samples=20)
        Checking(tolerance=1e-4, oracle="off")

    Attributes:
        providers: Where the folded model runs: `"cpu"`, `"cuda"`, or any other provider of the installed ONNX
            Runtime by its short name ([`providers`][bnfold.runtime.providers]).
        samples: Number of random inputs; more are drawn where dynamic dimensions need them.
        seed: Seed of the random inputs.
        tolerance: Largest difference from the original that passes, relative to an output's scale; nothing
            else then decides. None uses what the oracle allows: four times the original's own error plus 8
            units in the last place. Without an oracle it is 5e-5 for float32, 1e-12 for float64, and 8 units
            in the last place for float16 and bfloat16.
        threads: Threads within an operator; None uses every CPU that this process may use.
        oracle: `"auto"` uses the float64 oracle unless that takes too long, `"on"` always; `"off"` compares
            in the model's own type.
        per_layer: Whether the error of every layer is measured in ONNX Runtime too.
        match: Whether the inputs and outputs of the two models are paired by `"name"` or by `"order"`.
        strict: Whether other names, types, open sizes, opsets or metadata than the original's are a failure.
        cover: Whether more random inputs are drawn, aimed at what the first ones did not show, until nothing
            new is seen, or for at most `cover_seconds` and 200 inputs.
        cover_seconds: The time for that.
        runtimes: Other runtimes that both models run in besides, as `"openvino"`, or with the precision to
            compute in as `"openvino:bfloat16"` ([`known`][bnfold.engines.known]).
    """

    providers: Sequence[str] = ("cpu",)
    samples: int = 6
    seed: int = 0
    tolerance: float | None = None
    threads: int | None = None
    oracle: OracleMode = "auto"
    per_layer: bool = False
    match: Match = "name"
    strict: bool = False
    cover: bool = False
    cover_seconds: float = 60.0
    runtimes: Sequence[str] = ()


class CheckingOptions(TypedDict, total=False):
    """The fields of [`Checking`][bnfold.options.Checking] as keywords of a public function."""

    providers: Sequence[str]
    samples: int
    seed: int
    tolerance: float | None
    threads: int | None
    oracle: OracleMode
    per_layer: bool
    match: Match
    strict: bool
    cover: bool
    cover_seconds: float
    runtimes: Sequence[str]


@dataclass(frozen=True)
class Timing:
    """How the latency of two models is measured; the names are those of `bnfold.benchmark`.

        Timing(seconds=30)
        Timing(threads=(1, 4), batches=(1, 8))

    Attributes:
        threads: Threads within an operator: a number, or several, each of which is timed.
        seconds: Time to measure for on each provider, where `rounds` is None. None takes up to `SECONDS`, and
            less where the answer is clear before ([`stopping`][bnfold.latency.stopping]).
        rounds: Rounds for each setting; None fills the time.
        seed: Seed of the inputs, the order and the bootstrap.
        batches: Batch sizes to time; empty uses the inputs as they are.
        provider_options: Names of what the provider is set to, each of which is timed
            ([`OPTIONS`][bnfold.runtime.providers.OPTIONS]); what this provider does not have is left out.
    """

    threads: int | Sequence[int] = 1
    seconds: float | None = None
    rounds: int | None = None
    seed: int = 0
    batches: Sequence[int] = ()
    provider_options: Sequence[str] = ("bnfold",)

    @property
    def thread_counts(self) -> tuple[int, ...]:
        """Every number of threads once, in the order in which they were given."""
        counts = (self.threads,) if isinstance(self.threads, int) else tuple(self.threads)
        return tuple(dict.fromkeys(counts))
