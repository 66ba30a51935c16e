"""From a PyTorch file to a folded one."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")

from bnfold.errors import InputError, SaveError  # noqa: E402
from bnfold.options import Reading  # noqa: E402
from bnfold.pipeline.export_module import export_module  # noqa: E402
from bnfold.torch.read.load import load  # noqa: E402

MODELS = Path(__file__).parents[2] / "models"


def test_the_predictions_are_those_of_before(tmp_path):
    stages = []
    done = export_module(
        MODELS / "convnet.pt",
        tmp_path / "folded.pt",
        "module",
        Reading(input_shape=["1x1x32x32"]),
        keep=["bn4"],
        progress=lambda stage, *_: stages.append(stage),
    )
    assert stages == ["load", "fold", "save"]
    assert (done.kind, done.form, done.destination) == ("module", "module", tmp_path / "folded.pt")
    assert done.options == {"input_shape": ["1x1x32x32"]}
    assert [site.name for site in done.folded.kept] == ["bn4"]
    original, folded = (load(path).source.eval() for path in (done.path, done.destination))
    x = torch.randn(16, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(original(x).argmax(1), folded(x).argmax(1))


@pytest.mark.parametrize(
    ("name", "words"), [("repvgg.pt2", "no modules to write back to"), ("some.onnx", "contains no module")]
)
def test_what_holds_no_module_is_refused(tmp_path, name, words):
    source = tmp_path / name
    if source.suffix == ".onnx":
        from onnx import TensorProto, helper

        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
        graph = helper.make_graph([], "g", [x], [x])
        source.write_bytes(helper.make_model(graph).SerializeToString())
    else:
        shutil.copy(MODELS / name, source)
    with pytest.raises(InputError, match=words):
        export_module(source, tmp_path / "out", "module")
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_the_source_is_never_written_over():
    with pytest.raises(SaveError):
        export_module(MODELS / "convnet.pt", MODELS / "convnet.pt", "module")
