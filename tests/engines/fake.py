"""A runtime that stands in for others: ONNX Runtime, which rounds as it is set to, and says so or not."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import onnx

from bnfold.engines.base import Array, Engine, Loaded, Precision
from bnfold.errors import ModelError
from bnfold.runtime import sessions
from bnfold.runtime.interface import Interface
from bnfold.runtime.sessions import Feeds
from tests.graphs import build

_TYPES = {"float16": onnx.TensorProto.FLOAT16, "bfloat16": onnx.TensorProto.BFLOAT16}


@dataclass
class Fake(Engine):
    """It does what it is asked for, unless it is set otherwise.

    Attributes:
        computes_in: What it rounds every value to; None does what it is asked for.
        says: What it says that it computes in; None says nothing.
        lacks: An operator that its converter does not have.
        off: What it adds to every output.
        converted: The files that it was given to convert.
        threads: Those that it was given with each file.
    """

    name: ClassVar[str] = "fake"
    title: ClassVar[str] = "Fake"
    distribution: ClassVar[str] = "numpy"
    precisions: ClassVar[tuple[Precision, ...]] = ("float32", "bfloat16")

    computes_in: str | None = None
    says: str | None = None
    lacks: str = ""
    off: float = 0.0
    converted: list[Path] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)

    def options(self, precision: Precision, threads: int) -> Mapping[str, str]:
        return {"ROUNDING": precision, "THREADS": str(threads)}

    def demand(self) -> None:
        return

    def convert(self, model: Path, folder: Path) -> Path:
        self.converted.append(model)
        proto = onnx.load(model)
        if self.lacks in {node.op_type for node in proto.graph.node}:
            raise ModelError(f"Fake does not have the operator {self.lacks}.", "Take another one.")
        onnx.save(proto, folder / "model.fake")
        return folder / "model.fake"

    def load(self, model: Path, ports: Interface, *, threads: int, precision: Precision) -> Loaded:
        self.threads.append(threads)
        proto = onnx.load_model_from_string(model.read_bytes())
        rounded = rounding(proto, self.computes_in or precision)
        session = sessions.session(rounded, optimized="off", threads=threads)
        return FakeLoaded(session, self.says, self.off, [port.name for port in ports.outputs])


@dataclass
class FakeLoaded(Loaded):
    """A session; it gives int32 for int64, as runtimes for small devices do."""

    session: Any
    says: str | None
    off: float
    names: list[str]

    @property
    def precision(self) -> str | None:
        return self.says

    def run(self, feeds: Feeds) -> list[Array]:
        made = sessions.run(self.session, feeds, self.names)
        return [one.astype(np.int32) if one.dtype == np.int64 else one + np.float32(self.off) for one in made]


def rounding(model: onnx.ModelProto, precision: str) -> onnx.ModelProto:
    """The model with every result of an operator rounded to a type."""
    if precision == "float32":
        return model
    taken = list(model.graph.node)
    del model.graph.node[:]
    for node in taken:
        model.graph.node.append(node)
        if node.op_type in ("ArgMax", "Constant", "Shape"):
            continue
        name, node = node.output[0], model.graph.node[-1]
        node.output[0] = f"{name} exact"
        for source, target, to in (
            (f"{name} exact", f"{name} narrow", _TYPES[precision]),
            (f"{name} narrow", name, onnx.TensorProto.FLOAT),
        ):
            model.graph.node.append(onnx.helper.make_node("Cast", [source], [target], to=to))
    return model


def network(seed: int = 0, channels: int = 8, *, classes: bool = True) -> onnx.ModelProto:
    """Conv, BatchNormalization, Relu, twice, and unless `classes` is False a class for each row."""
    draw = np.random.default_rng(seed)

    def normal(*shape: int) -> Array:
        return draw.normal(size=shape).astype(np.float32)

    constants = {"w": normal(channels, 3, 3, 3), "v": normal(channels, channels, 3, 3) / 4}
    for n in "12":
        constants |= {f"g{n}": 1 + normal(channels) / 4, f"b{n}": normal(channels), f"m{n}": normal(channels)}
        constants |= {f"s{n}": draw.uniform(0.5, 2, channels).astype(np.float32)}
    model = build(
        """g (float[N,3,6,6] x) => (float[N,C] y, int64[N] c) {
            a = Conv<pads=[1,1,1,1]>(x, w)
            b = BatchNormalization(a, g1, b1, m1, s1)
            r = Relu(b)
            d = Conv(r, v)
            e = BatchNormalization(d, g2, b2, m2, s2)
            f = Relu(e)
            p = GlobalAveragePool(f)
            y = Flatten(p)
            c = ArgMax<axis=1, keepdims=0>(y)
        }""",
        constants,
    )
    if not classes:
        del model.graph.node[-1], model.graph.output[-1]
    return model
