"""Folded models in runtimes other than ONNX Runtime, judged by the float64 oracle.

    python -m benchmarks.runtimes models/*.pt* zoo/*.onnx --rows out/runtimes.jsonl --page docs/runtimes.md

Every model is folded. Original and folded model then run in every runtime, in float32, on the same random
input, and `bnfold.validate` judges the folded one. Next to that, a fault is planted into each folded model:
one weight of its first convolution has the wrong sign. And while float32 is asked for, OpenVINO is made to
compute in bfloat16, and LiteRT is given weights rounded to float16, as in a file that stores them so; neither
says so, and the precision has to be named.
"""

from __future__ import annotations

import dataclasses
import json
import math
import re
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx_ir as ir

from benchmarks.page import markdown_table, replaced, today
from bnfold.engines import known, litert, openvino
from bnfold.engines.base import Engine, Loaded, Precision
from bnfold.errors import BnfoldError
from bnfold.files.save import save_onnx
from bnfold.folding.fold import fold
from bnfold.graph.nodes import count_nodes
from bnfold.options import Reading
from bnfold.pipeline.read import read_model
from bnfold.runtime.interface import Interface, as_ir
from bnfold.system.environment import environment
from bnfold.validation.results import Validation
from bnfold.validation.validate import validate

SHAPES = {"convnet.pt": "1x1x32x32", "cnn_with_batchnorm.pt": "1x3x32x32"}
HEADER = (
    *("model", "nodes", "runtime", "verdict", "original's error", "folded error", "allowed", "planted fault"),
    "another precision",
)


class Sly(openvino.OpenVino):
    """OpenVINO, which computes in bfloat16 and does not say so."""

    name = "sly-openvino"
    title = "Secret OpenVINO"

    def load(self, model: Path, ports: Interface, *, threads: int, precision: Precision) -> Loaded:
        """Load a model in bfloat16."""
        del precision
        made = super().load(model, ports, threads=threads, precision="bfloat16")
        if made.precision != "bfloat16":
            raise RuntimeError("this processor has no bfloat16")
        made.__class__ = type("Silent", (type(made),), {"precision": None})
        return made


class SlyLiteRt(litert.LiteRt):
    """LiteRT, whose weights were rounded to float16, and which does not say so."""

    name = "sly-litert"
    title = "Secret LiteRT"

    def convert(self, model: Path, folder: Path) -> Path:
        """Convert a model with rounded weights."""
        rounded = as_ir(model)
        for value in rounded.graph.initializers.values():
            if value.dtype == ir.DataType.FLOAT and value.const_value is not None:
                array = value.const_value.numpy().astype(np.float16).astype(np.float32)
                value.const_value = ir.tensor(array, name=value.name)
        save_onnx(rounded, folder / "rounded.onnx")
        return super().convert(folder / "rounded.onnx", folder)


SLY: Mapping[str, Engine] = {"openvino": Sly(), "litert": SlyLiteRt()}
"""By the runtime that each pretends to be."""


@dataclasses.dataclass(frozen=True)
class Row:
    """One model in one runtime.

    Attributes:
        model: Its name.
        nodes: Nodes of the original and of the folded model.
        runtime: What people type for it.
        verdict: What came of comparing the folded model.
        figures: The original's error, the folded model's, and what is allowed; empty without them.
        planted: What became of the planted fault; empty where there was none to plant.
        named: The precision that was named where another was computed in secret; empty elsewhere.
    """

    model: str
    nodes: tuple[int, int]
    runtime: str
    verdict: str
    figures: tuple[float, ...] = ()
    planted: str = ""
    named: str = ""

    @property
    def cells(self) -> tuple[str, ...]:
        """A line of the table."""
        figures = [f"{one:.1e}" if one < math.inf else "decides nothing" for one in self.figures] or ["–"] * 3
        title = known.choice(self.runtime).title
        nodes = f"{self.nodes[0]} → {self.nodes[1]}"
        return (self.model, nodes, title, self.verdict, *figures, self.planted or "–", self.named or "–")

    @property
    def failed(self) -> bool:
        """Whether a right fold disagrees, a fault was missed, or another precision was not named."""
        return self.verdict.startswith("**") or self.planted.startswith("**") or self.named.startswith("**")


def rows(path: Path, runtimes: Sequence[str]) -> list[Row]:
    """Judge one model in every runtime."""
    original = read_model(path, Reading(input_shape=SHAPES.get(path.name))).model
    folded = fold(original).model
    faulty = with_fault(folded)
    nodes = count_nodes(original), count_nodes(folded)
    able, refused = list(runtimes), []
    while True:
        secret = [SLY[one].name for one in able if one in SLY]
        try:
            right = judge(original, folded, [*able, *secret])
            break
        except BnfoldError as error:
            unable = [one for one in able if error.problem.startswith(known.choice(one).title)]
            if not unable:
                raise
            able.remove(unable[0])
            refused.append(Row(path.stem, nodes, unable[0], error.problem.split("neither model. ")[-1]))
    wrong = judge(original, faulty, able) if faulty is not None and able else None
    return [*(_row(path.stem, nodes, one, right, wrong) for one in able), *refused]


def _row(
    model: str, nodes: tuple[int, int], runtime: str, right: Validation, wrong: Validation | None
) -> Row:
    title = known.choice(runtime).title
    own = [check for check in right.checks if check.provider == title]
    failing = [check.problem for check in own if check.fails]
    failing += [problem for problem in right.problems if problem.startswith(f"{title} ")]
    verdict = f"**disagrees**: {failing[0]}" if failing else "agrees"
    measured = [check for check in own if check.error is not None and check.bound]
    worst = max(measured, key=lambda check: (check.error or 0.0) / (check.bound or 1.0), default=None)
    figures = worst and (worst.original_error or 0.0, worst.error or 0.0, worst.bound or 0.0)
    planted = named = ""
    if wrong is not None:
        found = any(check.fails for check in wrong.checks if check.provider == title)
        planted = "found" if found else "**missed**" if wrong.passed else "found in float64"
    if runtime in SLY:
        title = SLY[runtime].title
        secret = next(
            problem for problem in (*right.problems, "") if problem.startswith(title) or not problem
        )
        precision = re.search(r"computes as coarsely as (\w+) here", secret)
        named = f"{precision[1]} named" if precision else "**not named**"
    return Row(model, nodes, runtime, verdict, figures or (), planted, named)


def judge(original: ir.Model, folded: ir.Model, runtimes: Sequence[str]) -> Validation:
    """Compare two models in some runtimes, and nowhere else."""
    start = time.perf_counter()
    result = validate(original, folded, providers=(), runtimes=tuple(runtimes), samples=1)
    print(f"  {', '.join(runtimes)}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return result


def with_fault(folded: ir.Model) -> ir.Model | None:
    """A copy in which one weight of the first convolution has the wrong sign: its channel's largest."""
    copy = folded.clone()
    weights = [
        value
        for node in copy.graph
        if node.op_type == "Conv" and (value := node.inputs[1]) is not None and value.const_value is not None
    ]
    if not weights:
        return None
    value = weights[0]
    assert value.const_value is not None
    array = value.const_value.numpy().copy()
    channel = array[len(array) // 2]
    channel[np.unravel_index(np.abs(channel).argmax(), channel.shape)] *= -1
    value.const_value = ir.tensor(array, name=value.name)
    return copy


def conditions(runtimes: Sequence[str]) -> str:
    """Where and with what the figures were measured, as a sentence."""
    here = environment()
    engines = [known.ENGINES[runtime] for runtime in runtimes]
    versions: Mapping[str, str] = {one.title: one.version for one in engines} | {
        "ONNX Runtime": here.versions.get("onnxruntime", "–")
    }
    listed = ", ".join(f"{name} {version}" for name, version in versions.items())
    return (
        f"Measured on {today()} on {here.cpu} ({here.architecture}, {here.usable_cpus} CPUs) with {listed}."
    )


def _read(path: Path | None) -> list[Row]:
    if path is None or not path.exists():
        return []
    kept: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
    return [Row(**{name: tuple(v) if isinstance(v, list) else v for name, v in one.items()}) for one in kept]


@click.command()
@click.argument("models", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option("--runtime", "runtimes", multiple=True, default=tuple(known.ENGINES), show_default=True)
@click.option(
    "--rows", "kept", type=click.Path(path_type=Path), help="Where rows are kept; a model in it is done."
)
@click.option("--page", type=click.Path(path_type=Path), help="The page to put the table into.")
def main(models: tuple[Path, ...], runtimes: tuple[str, ...], kept: Path | None, page: Path | None) -> None:
    """Judge MODELS in every runtime, and write a table."""
    known.ENGINES.update({one.name: one for one in SLY.values()})
    found = _read(kept)
    for model in models:
        if model.stem in {row.model for row in found}:
            continue
        print(model.stem, file=sys.stderr, flush=True)
        made = rows(model, runtimes)
        found += made
        if kept is not None:
            with kept.open("a") as file:
                file.writelines(f"{json.dumps(dataclasses.asdict(row))}\n" for row in made)
    text = f"{conditions(runtimes)}\n\n" + "\n".join(markdown_table(HEADER, [row.cells for row in found]))
    if page is None:
        print(text)
    else:
        page.write_text(replaced(page.read_text(encoding="utf-8"), text), encoding="utf-8")
    if any(row.failed for row in found):
        sys.exit(1)


if __name__ == "__main__":
    main()
