"""What stands in the way of networks to every target, before `bnfold export --target` and after it.

    python -m benchmarks.targets zoo/resnet18.onnx zoo/mobilenetv2_100.onnx:N det.onnx@x=1x3x320x320 vad.onnx
    python -m benchmarks.targets --pages

Nothing is run: each model is folded with what a target asks of its sizes and versions, and looked at again.
A file's name may be followed by `:N` to open its batch first, and by `@NAME=SHAPE` for a third column: the
same with `--set-shape`, where something about sizes is left. `--pages` writes the facts of the profiles into
the pages of docs/targets.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from bnfold.contract.contract import Contract
from bnfold.errors import BnfoldError
from bnfold.files.load import load_onnx
from bnfold.files.save import save_onnx
from bnfold.options import Reading
from bnfold.pipeline.fold_file import fold_file
from bnfold.pipeline.targeting import contract_for
from bnfold.report.targets import facts
from bnfold.targets.check import obstacles
from bnfold.targets.profile import Profile, load, names
from bnfold.targets.view import View

_MADE = re.compile(r"<!-- made by: .*?<!-- until here -->\n", re.DOTALL)
PAGES = Path(__file__).parents[1] / "docs" / "targets"


def main() -> None:
    """Print a table, or write the pages."""
    if sys.argv[1:] == ["--pages"]:
        for profile in map(load, names()):
            path = PAGES / f"{profile.name}.md"
            before, after = _MADE.split(path.read_text(encoding="utf-8"))
            path.write_text(f"{before}{facts(profile)}{after}", encoding="utf-8")
        return
    models = [_model(one) for one in sys.argv[1:]]
    print("| target |", " | ".join(f"{one.label}, before | after" for one in models), "|")
    print("|---|" + "---|---|" * len(models))
    with TemporaryDirectory() as folder:
        done: dict[str, ir.Model] = {}
        for profile in map(load, names()):
            cells = []
            for model in models:
                cells += [_in_the_way(profile, model.model), _after(profile, model, done, Path(folder))]
            print(f"| {profile.name} |", " | ".join(cells), "|", flush=True)


@dataclass(frozen=True)
class _Model:
    label: str
    model: ir.Model
    shapes: dict[str, tuple[int, ...]]


def _model(name: str) -> _Model:
    path, _, shape = name.partition("@")
    path, _, batch = path.partition(":")
    model = load_onnx(Path(path))
    for value in model.graph.inputs if batch else ():
        assert value.shape is not None
        value.shape = ir.Shape([batch, *value.shape[1:]])
    given, _, sizes = shape.partition("=")
    shapes = {given: tuple(map(int, sizes.split("x")))} if shape else {}
    return _Model(f"{Path(path).stem}{' with an open batch' if batch else ''}", model, shapes)


def _after(profile: Profile, model: _Model, done: dict[str, ir.Model], folder: Path) -> str:
    """What is left, and what is left with the sizes that a user gives, where those are asked for."""
    try:
        left = _in_the_way(profile, _folded(profile, model, Contract(), done, folder))
        if "sizes" not in left or not model.shapes:
            return left
        fixed = _in_the_way(profile, _folded(profile, model, Contract(shapes=model.shapes), done, folder))
        return f"{left}; with --set-shape {fixed}"
    except BnfoldError as error:
        return f"refused: {error.problem}"


def _folded(
    profile: Profile, model: _Model, asked: Contract, done: dict[str, ir.Model], folder: Path
) -> ir.Model:
    """The model folded for a target; once for those that ask for the same."""
    contract, no_batchnorm = contract_for(profile, model.model, asked, Reading())
    key = f"{model.label} {contract} {no_batchnorm}"
    if key not in done:
        path = folder / f"{len(done)}.onnx"
        save_onnx(model.model, path)
        out = path.with_suffix(".folded.onnx")
        fold_file(path, out, contract=contract, no_batchnorm=no_batchnorm)
        done[key] = load_onnx(out)
    return done[key]


def _in_the_way(profile: Profile, model: ir.Model) -> str:
    counts = Counter(broken.rule.kind for broken in obstacles(profile, View(model)))
    return ", ".join(f"{kind} ×{count}" if count > 1 else kind for kind, count in counts.items()) or "–"


if __name__ == "__main__":
    main()
