"""All that needs a GPU, without one: on the CPU, and with the CPU in CUDA's place."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from benchmarks import gpu
from benchmarks.gpu import Network, Record, main, measure, prove, run_tests
from benchmarks.gpu_state import Sample
from bnfold.runtime import placement, providers
from tests.graphs import build, statistics, weight

ROOT = Path(__file__).parent.parent.parent
HAS_CUDA = "CUDAExecutionProvider" in ort.get_available_providers()
TEXT = """g (float[1,2,8,8] x) => (float[1,4,6,6] y) {
    c = Conv (x, w) b = BatchNormalization (c, scale, bias, mean, var) y = Relu (b)
}"""


def convolution() -> onnx.ModelProto:
    return build(TEXT, {"w": weight(4, 2, 3, 3), **statistics(4)})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "small.onnx"
    path.write_bytes(convolution().SerializeToString())
    return path


def written_tests(folder: Path, body: str) -> str:
    """A file with one test that is marked gpu, and another."""
    path = folder / "test_on_it.py"
    path.write_text(
        f"import pytest\n@pytest.mark.gpu\ndef test_one():\n    {body}\ndef test_other():\n    assert 0\n"
    )
    return str(path)


class Pretended(ort.InferenceSession):
    """A session on the CPU that says that it is on CUDA."""

    asked: Sequence[Any]

    def __init__(self, source: Any, options: Any, providers: Sequence[Any], **rest: Any) -> None:
        super().__init__(source, options, providers=["CPUExecutionProvider"], **rest)
        self.asked = providers
        made.append(self)

    def get_providers(self) -> list[str]:
        return [name for name, _ in self.asked]


made: list[Pretended] = []


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> list[Pretended]:
    """ONNX Runtime has CUDA, which is the CPU; gives the sessions."""
    made.clear()
    real = placement.parse
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    monkeypatch.setattr(ort, "InferenceSession", Pretended)
    monkeypatch.setattr(providers, "_DEVICES", {"cuda": "cpu"})
    monkeypatch.setattr(placement, "parse", lambda events: {"cuda": real(events)["cpu"]})
    return made


def test_the_whole_program_on_the_cpu(file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = tmp_path / "page.md"
    words = ["--provider", "cpu", "--minutes", "0.1", "--page", str(page)]
    assert main([str(file), *words, "--tests", written_tests(tmp_path, "assert True")]) == 0
    written = page.read_text(encoding="utf-8")
    assert written in capsys.readouterr().out
    assert written.startswith("# A trial on the provider cpu: no figure here is a GPU's\n")
    assert "| graph | not on this provider |" in written
    assert "| exhaustive | not on this provider |" in written
    assert "| tf32 | not on this provider |" in written
    assert "test_one` | passed |" in written
    assert "test_other" not in written
    assert re.search(r"\| small \| y \| off \| .*e-0\d \| .* \| agrees \|", written)
    assert len(re.findall(r"\| small \| bnfold \| end to end \| (?:default|off) \|", written)) == 2
    assert "## Problems" not in written


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime has CUDA")
def test_the_whole_program_with_the_cpu_for_cuda(
    file: Path, tmp_path: Path, cuda: list[Pretended], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu.gpu_state, "_read", lambda _lines: [Sample((1980.0, 2619.0, 41.0, 312.4), 4)])
    monkeypatch.setattr(gpu.gpu_state, "_command", lambda: ["true"])
    page = tmp_path / "page.md"
    words = ["--minutes", "0.1", "--page", str(page), "--tests", written_tests(tmp_path, "assert True")]
    assert main([str(file), *words]) == 0
    written = page.read_text(encoding="utf-8")
    assert written.startswith("# Measured on a GPU\n")
    assert "`use_tf32=0`, `cudnn_conv_algo_search=HEURISTIC`, `enable_cuda_graph=1` |" in written
    assert "| defaults | nothing |" in written
    assert "| small | y | default, TF32 |" in written
    kinds = re.findall(r"\| small \| (\w+) \| (end to end|on the device) \| default \|", written)
    assert kinds == [
        ("graph", "on the device"),
        *[
            (name, kind)
            for name in ("bnfold", "defaults", "exhaustive")
            for kind in ("end to end", "on the device")
        ],
    ]
    assert "| SM clock, MHz | 1,980 | 1,980 | 1,980 |" in written
    assert "- small: Of the folded model, 2 nodes ran on cuda, and nothing elsewhere." in written
    asked = [dict(session.asked).get("CUDAExecutionProvider") for session in cuda]
    assert {"use_tf32": "0", "cudnn_conv_algo_search": "EXHAUSTIVE"} in asked
    assert {} in asked


@pytest.fixture
def small() -> Network:
    source = gpu.ir.from_proto(convolution())
    return Network("small", source, gpu.bnfold.fold(source).model)


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime has CUDA")
@pytest.mark.usefixtures("cuda")
def test_a_network_that_cannot_be_captured_is_timed_without(
    small: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Uncapturable(Pretended):
        def __init__(self, source: Any, options: Any, providers: Sequence[Any], **rest: Any) -> None:
            if "enable_cuda_graph" in providers[0][1]:
                raise RuntimeError("This session cannot use the CUDA Graph feature as requested by the user")
            super().__init__(source, options, providers, **rest)

    monkeypatch.setattr(ort, "InferenceSession", Uncapturable)
    record = Record("cuda", 8.0)
    measure(record, [small])
    (note,) = record.notes
    assert note.startswith("small, options graph: CUDA cannot capture the model")
    assert {row.provider_options for row in record.timings["small"].rows} == {
        "bnfold",
        "defaults",
        "exhaustive",
    }
    assert record.problems == ["The GPU's clocks were not recorded: nvidia-smi said nothing."]


def test_figures_of_the_cpu_stay_out_of_the_docs(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(file), "--provider", "cpu", "--page", str(ROOT / "docs" / "gpu.md")])
    assert "docs/ is for figures of a GPU" in capsys.readouterr().err


def test_a_page_in_the_docs_is_of_a_gpu() -> None:
    page = ROOT / "docs" / "gpu.md"
    assert not page.exists() or page.read_text(encoding="utf-8").startswith("# Measured on a GPU\n")


@pytest.mark.skipif(HAS_CUDA, reason="this ONNX Runtime has CUDA")
def test_without_cuda_it_says_what_to_install(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([])
    assert 'pip install "bnfold[gpu]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("provider", "body", "outcome", "problem"),
    [
        ("cuda", "assert True", "passed", None),
        ("cpu", "pytest.skip('no GPU')", "skipped", None),
        ("cuda", "pytest.skip('no GPU')", "skipped", "skipped: no GPU"),
        ("cpu", "raise ValueError('off by one')", "failed", "failed: ValueError: off by one"),
    ],
)
def test_what_becomes_of_a_test(
    tmp_path: Path, provider: str, body: str, outcome: str, problem: str | None
) -> None:
    record = Record(provider, 300.0)
    run_tests(record, [written_tests(tmp_path, body)])
    ((name, became, _),) = record.tests
    assert (name.rsplit(".", 1)[1], became) == ("test_one", outcome)
    assert [text.partition("test_one ")[2] for text in record.problems] == ([problem] if problem else [])


def test_tests_that_do_not_end_or_are_not_there(tmp_path: Path) -> None:
    record = Record("cpu", 9.0)
    run_tests(record, [written_tests(tmp_path, "import time; time.sleep(60)")])
    assert record.problems == ["The tests were stopped after 5 seconds."]
    empty = Record("cpu", 300.0)
    (tmp_path / "test_on_it.py").write_text("")
    run_tests(empty, [str(tmp_path / "test_on_it.py")])
    assert empty.problems == ["There are no tests that need a GPU."]


def test_a_wrong_fold_is_a_problem(small: Network) -> None:
    weights = next(one for one in small.folded.graph.initializers.values() if len(one.shape or ()) == 4)
    weights.const_value = gpu.ir.tensor(weights.const_value.numpy() * np.float32(1.1))
    record = Record("cpu", 300.0)
    prove(record, [small])
    assert any(problem.startswith("small: ") for problem in record.problems)
    assert "disagrees" in "\n".join(gpu.page(record, "command").splitlines())


def test_when_the_time_is_over_that_is_said(small: Network) -> None:
    record = Record("cpu", -1.0)
    measure(record, [small])
    assert record.problems == ["small was not timed: the time was over."]
    assert "## Problems\n\n- small was not timed" in gpu.page(record, "command")


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "broken.onnx").write_bytes(b"this is not a model")
    record = Record("cpu", 300.0)
    assert gpu.networks(record, [tmp_path]) == []
    assert record.problems[0].startswith("broken.onnx: ")
