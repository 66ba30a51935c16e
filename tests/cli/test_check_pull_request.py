"""A repository with six models and a pull request that changes two, checked until it passes."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper

from bnfold._version import __version__
from bnfold.gate import fix
from bnfold.gate import run as gate
from bnfold.report.findings import FORMATS
from tests.gate.models import BATCHNORM, answering, here, layers, save
from tests.graphs import operators

pytest.importorskip("junitparser")
pytest.importorskip("sarif_pydantic")

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "pull_request"
STEPS = {step["name"]: step for step in yaml.safe_load((ROOT / "action.yml").read_text())["runs"]["steps"]}
HOOKS = {hook["id"]: hook for hook in yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())}
GIT = ("git", "-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
SETTINGS = """
extend-exclude = ["training"]

[limits]
bytes = "2 GB"

[sources]
"models/drifted.onnx" = "training/drifted.onnx"

[validation]
samples = 2
"""
LARGE = (2_200, 1_000_000)  # integers of a byte: 2.2 GB
CHANGED = ("models/good.onnx", "models/unfolded.onnx")


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The branch of the pull request is checked out; the data of the large model is not in git."""
    root = tmp_path / "repository"
    models = root / "models"
    save(layers(), models / "unfolded.onnx")
    training = layers(f"y = {BATCHNORM}")
    training.graph.node[1].attribute.append(helper.make_attribute("training_mode", 1))
    save(training, models / "training.onnx")
    save(layers("y = Relu(a)", seed=1), models / "drifted.onnx")
    save(layers("y = Relu(a)", seed=2), root / "training" / "drifted.onnx")
    large(models / "large.onnx")
    (models / "broken.onnx").write_bytes(save(layers(), root / "whole.onnx").read_bytes()[:-60])
    (root / "whole.onnx").unlink()
    save(layers("y = Relu(a)"), models / "good.onnx")
    (root / "bnfold.toml").write_text(SETTINGS)
    (root / ".gitignore").write_text("*.bin\n")
    git(root, "init", "--quiet", "--initial-branch=main")
    git(root, "add", ".")
    git(root, "commit", "--quiet", "-m", "Models")
    git(root, "switch", "--quiet", "--create", "retrained")
    save(layers("y = Relu(a)", seed=5), models / "good.onnx")  # another function
    save(layers(x="N,3,8,8"), models / "unfolded.onnx")  # another interface
    git(root, "commit", "--quiet", "--all", "-m", "Train it again, and open the batch")
    monkeypatch.chdir(root)
    return root


def large(path: Path) -> None:
    """A model whose data takes no place on the disk: all of it is zero."""
    weight = TensorProto(name="w", data_type=TensorProto.INT8, dims=LARGE, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": "large.bin", "offset": 0, "length": LARGE[0] * LARGE[1]}.items():
        weight.external_data.add(key=key, value=str(value))
    scale = onnx.numpy_helper.from_array(np.array(0.5, np.float32), "scale")
    nodes = [
        helper.make_node("DequantizeLinear", ["w", "scale"], ["v"]),
        helper.make_node("MatMul", ["x", "v"], ["y"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in zip("xy", LARGE, strict=True)
    ]
    graph = helper.make_graph(nodes, "large", ends[:1], ends[1:], [weight, scale])
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    with path.with_suffix(".bin").open("wb") as data:
        data.truncate(LARGE[0] * LARGE[1])


def git(root: Path, *arguments: str) -> None:
    subprocess.run([*GIT, *arguments], cwd=root, check=True, capture_output=True)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The models that rules are asked about, in this process."""
    names: list[str] = []
    monkeypatch.setattr(gate, "_answers", answering(names))
    monkeypatch.setattr(fix, "outcomes", here)
    monkeypatch.delenv("BNFOLD_CACHE_DIR", raising=False)
    return names


def golden(kind: str) -> str:
    return (GOLDEN / f"findings.{kind}").read_text(encoding="utf-8")


def lasting(text: str) -> str:
    """What a format says, without what changes with versions, and with processors: the smallest errors."""
    text = text.replace(f'"version": "{__version__}"', '"version": "0.0.0"')
    return re.sub(r"\d(\.\d+)?e-\d\d", "…", text)


def written(run, *arguments: str) -> dict[str, str]:
    """What a check writes in all formats; it ends with 1."""
    given = [word for kind in FORMATS for word in ("--output-format", f"{kind}=../{kind}")]
    result = run("check", "--against", "git:main", "--quiet", *given, *arguments)
    assert (result.exit_code, result.stdout, result.stderr) == (1, "", "")
    return {kind: lasting(Path("..", kind).read_text(encoding="utf-8")) for kind in FORMATS}


@pytest.mark.usefixtures("repository")
def test_every_format_says_what_is_wrong_and_nothing_else_and_says_it_again(run, asked: list[str]) -> None:
    """After a change that is meant: GOLDEN=1 python -m pytest tests/cli/test_check_pull_request.py."""
    first = written(run, "--no-cache")
    if "GOLDEN" in os.environ:
        GOLDEN.mkdir(exist_ok=True)
        for kind, text in first.items():
            (GOLDEN / f"findings.{kind}").write_text(text, encoding="utf-8")
    assert first == {kind: golden(kind) for kind in FORMATS}
    assert {path.name for path in GOLDEN.iterdir()} == {f"findings.{kind}" for kind in FORMATS}
    assert len(asked) == 6
    assert written(run, "--no-cache", "--jobs", "1") == first


def test_the_steps_of_the_action_say_the_same(repository: Path) -> None:
    step, summary = STEPS["Check the models"], repository.parent / "step-summary.md"
    summary.write_text("Before.\n", encoding="utf-8")
    given = {"PATHS": ".", "AGAINST": "git:main", "ARGUMENTS": "--no-cache --jobs 2", "SARIF": "bnfold.sarif"}
    assert given.keys() == step["env"].keys()
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", step["run"]],
        env={**os.environ, "PATH": own, "GITHUB_STEP_SUMMARY": str(summary), **given},
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (1, b"")
    assert lasting(done.stdout.decode()) == golden("github")
    assert lasting((repository / "bnfold.sarif").read_text(encoding="utf-8")) == golden("sarif")
    assert lasting(summary.read_text(encoding="utf-8")) == f"Before.\n{golden('markdown')}"


@pytest.mark.usefixtures("repository")
@pytest.mark.parametrize("hook", ["bnfold-check", "bnfold-fold"])
def test_a_hook_is_given_what_changed_and_looks_at_nothing_else(run, asked: list[str], hook: str) -> None:
    """pre-commit gives the names, and fails where a file was changed; a source is excluded."""
    program, *words = shlex.split(HOOKS[hook]["entry"])
    assert program == "bnfold"
    before = Path("models/unfolded.onnx").read_bytes()
    result = run(*words, *CHANGED, "training/drifted.onnx")
    assert set(asked) == set(CHANGED)
    if "--fix" in words:
        assert (result.exit_code, result.stderr) == (0, "Folded and proved: models/unfolded.onnx.\n")
        assert Path("models/unfolded.onnx").read_bytes() != before
    else:
        assert (result.exit_code, result.stderr) == (1, "")
        assert result.stdout.splitlines()[0] == "models/unfolded.onnx: M101 1 BatchNorm can be folded: y [*]"
        assert Path("models/unfolded.onnx").read_bytes() == before


@pytest.mark.usefixtures("asked")
def test_folded_and_with_what_is_left_accepted_it_passes(run, repository: Path) -> None:
    against = ("check", "--against", "git:main", "--no-cache")
    result = run(*against, "--fix")
    assert result.exit_code == 1
    assert result.stderr == "Folded and proved: models/unfolded.onnx.\n"
    assert "M101" not in result.stdout
    assert operators(onnx.load(repository / "models" / "unfolded.onnx")) == ["Conv"]
    result = run(*against, "--write-baseline", "bnfold-baseline.json")
    assert (result.exit_code, result.stdout) == (0, "")
    result = run(*against, "--baseline", "bnfold-baseline.json")
    assert result.exit_code == 0
    assert result.stdout.startswith("No findings in 6 models, ")
    first = (repository / "bnfold-baseline.json").read_bytes()
    run(*against, "--write-baseline", "bnfold-baseline.json")
    assert (repository / "bnfold-baseline.json").read_bytes() == first
