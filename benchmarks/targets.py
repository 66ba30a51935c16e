"""What stands in the way of networks to every target, before `bnfold export --target` and after it.

    python -m benchmarks.targets zoo/resnet18.onnx zoo/mobilenetv2_100.onnx
    python -m benchmarks.targets --pages

Nothing is run: each model is folded with what a target asks of its sizes and versions, and looked at again.
A file's name may be followed by `:N` to open its batch first. `--pages` writes the facts of the profiles into
the pages of docs/targets.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx_ir as ir

from bnfold.contract.contract import Contract
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
    print("| target |", " | ".join(f"{label}, before | after" for label, _ in models), "|")
    print("|---|" + "---|---|" * len(models))
    with TemporaryDirectory() as folder:
        done: dict[str, ir.Model] = {}
        for profile in map(load, names()):
            cells = []
            for label, model in models:
                cells += [
                    _in_the_way(profile, model),
                    _in_the_way(profile, _folded(profile, label, model, done, folder)),
                ]
            print(f"| {profile.name} |", " | ".join(cells), "|", flush=True)


def _model(name: str) -> tuple[str, ir.Model]:
    path, _, batch = name.partition(":")
    model = load_onnx(Path(path))
    for value in model.graph.inputs if batch else ():
        assert value.shape is not None
        value.shape = ir.Shape([batch, *value.shape[1:]])
    return f"{Path(path).stem}{' with an open batch' if batch else ''}", model


def _folded(
    profile: Profile, label: str, model: ir.Model, done: dict[str, ir.Model], folder: str
) -> ir.Model:
    """The model folded for a target; once for those that ask for the same."""
    contract, no_batchnorm = contract_for(profile, model, Contract(), Reading())
    key = f"{label} {contract} {no_batchnorm}"
    if key not in done:
        path = Path(folder) / f"{len(done)}.onnx"
        save_onnx(model, path)
        out = path.with_suffix(".folded.onnx")
        fold_file(path, out, contract=contract, no_batchnorm=no_batchnorm)
        done[key] = load_onnx(out)
    return done[key]


def _in_the_way(profile: Profile, model: ir.Model) -> str:
    counts = Counter(broken.rule.kind for broken in obstacles(profile, View(model)))
    return ", ".join(f"{kind} ×{count}" if count > 1 else kind for kind, count in counts.items()) or "–"


if __name__ == "__main__":
    main()
