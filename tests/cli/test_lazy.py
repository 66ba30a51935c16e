"""A fold starts at once: what it does not need is not imported, and sympy only when it is used."""

from __future__ import annotations

import subprocess
import sys

import onnx
import pytest

# packages, or parts of packages, that a fold has no use for
HEAVY = (
    *("asyncio", "jinja2", "matplotlib", "mpmath", "onnxruntime", "onnxscript", "scipy", "sympy", "torch"),
    *("onnx.reference", "onnx_ir.passes.common", "bnfold.oracle", "bnfold.runtime", "bnfold.latency"),
    *("bnfold.torch", "bnfold.latency.benchmark", "multiprocessing", "PIL"),
)


def imported(*arguments: object) -> set[str]:
    """The modules that a command imports, by Python's own account."""
    command = [sys.executable, "-X", "importtime", "-m", "bnfold", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rsplit("|", 1)[-1].strip() for line in lines}


def of(packages: tuple[str, ...], modules: set[str]) -> set[str]:
    return {name for name in modules if any(f"{name}.".startswith(f"{package}.") for package in packages)}


def python(program: str) -> str:
    """Run a program in an interpreter of its own, after onnx_ir was loaded as a command loads it."""
    start = "from bnfold_cli._lazy import load_onnx_ir; load_onnx_ir(); import sys, onnx_ir as ir\n"
    done = subprocess.run([sys.executable, "-c", start + program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_a_fold_imports_nothing_heavy(model, tmp_path) -> None:
    modules = imported("fold", model, "-o", tmp_path / "out.onnx")
    assert {"onnx_ir._core", "bnfold.folding.search"} <= modules
    assert not of(HEAVY, modules)


def test_a_quiet_fold_draws_no_tables(model, tmp_path) -> None:
    assert not of((*HEAVY, "rich", "bnfold.report"), imported("fold", model, "-o", tmp_path / "o.onnx", "-q"))


@pytest.mark.parametrize("arguments", ["--help", "fold --help", "export --help"])
def test_the_help_does_without_onnx(arguments) -> None:
    assert not of((*HEAVY, "onnx", "numpy", "rich"), imported(*arguments.split()))


@pytest.mark.parametrize("arguments", ["--version", "explain BN301"])
def test_no_other_command_waits_for_sympy(arguments) -> None:
    assert not of(("sympy", "torch"), imported(*arguments.split()))


def test_sizes_are_computed_with_sympy_all_the_same() -> None:
    program = """
assert "sympy" not in sys.modules
size = ir.SymbolicDim("N") * 2 + 1
print(size.value, size.evaluate({"N": 3}), (ir.SymbolicDim("max(N, 4) // 2") + 0).evaluate({"N": 9}))
import sympy
from sympy.core.add import Add
assert sympy.Symbol("x") + 1 == Add(sympy.Symbol("x"), 1)
assert ir.SymbolicDim(sympy.Symbol("K")).value == "K"
"""
    assert python(program) == "2*N + 1 7 4"


@pytest.mark.parametrize("first", ["import sympy.core.add", "from sympy import Symbol", "import sympy"])
def test_others_meet_the_real_sympy(first) -> None:
    program = """
import sympy, sympy.core.add
assert sympy.core.add is sys.modules["sympy.core.add"] and sympy.Add is sympy.core.add.Add
assert (ir.SymbolicDim("N") + 1).value == "N + 1"
assert isinstance((ir.SymbolicDim("N") + 1)._expr, sympy.Add)
print(sympy.__file__ is not None, type(sympy).__name__)
"""
    assert python(first + program) == "True module"


def test_a_size_may_be_no_text() -> None:
    program = """
try:
    ir.SymbolicDim(1.5)
except TypeError as error:
    print(error)
"""
    assert "float" in python(program)


def test_what_is_loaded_already_is_left_alone() -> None:
    program = "import onnx_ir, sys, sympy; from bnfold_cli._lazy import load_onnx_ir; load_onnx_ir()"
    check = "assert sys.modules['sympy'] is sympy and onnx_ir._core.sympy is sympy"
    subprocess.run([sys.executable, "-c", f"{program}; {check}"], check=True)


def test_importing_bnfold_changes_nothing_for_others() -> None:
    program = "import sys, bnfold; print(bnfold.fold.__module__); assert sys.modules['sympy'].__file__"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "bnfold.api.fold"


def test_a_module_with_an_open_size_is_exported_with_the_real_sympy(tmp_path) -> None:
    torch = pytest.importorskip("torch")
    path, out = tmp_path / "net.pt", tmp_path / "net.onnx"
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 1), torch.nn.BatchNorm2d(4), torch.nn.Flatten()).eval()
    torch.save(net, path)
    modules = imported(
        *("export", path, "--input-shape", "2x3x8x8", "--dynamic", "batch", "--no-bench", "-o", out, "-q")
    )
    assert {"sympy.core.add", "torch._dynamo"} <= modules
    (size, *_) = onnx.load(out).graph.output[0].type.tensor_type.shape.dim
    assert size.dim_param
    assert "BatchNormalization" not in {node.op_type for node in onnx.load(out).graph.node}
