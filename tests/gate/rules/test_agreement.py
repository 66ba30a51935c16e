"""What is said of a model that differs from another one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from bnfold.gate.settings import Settings, Source, ValidationSettings
from bnfold.gate.work import Job, answer
from tests.gate.models import asked, job, layers, save
from tests.graphs import weight


def test_a_slower_model_is_one_finding_without_figures_as_sites(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A baseline could not accept it otherwise: the figures are others every time."""
    model, earlier = save(layers(), tmp_path / "net.onnx"), save(layers(), tmp_path / "earlier.onnx")
    timed: list[tuple[Path, Path]] = []

    def stopwatch(before: Path, after: Path) -> SimpleNamespace:
        timed.append((before, after))
        return SimpleNamespace(slower=("Slower: 1.2 ms on cpu.", "Slower: 3 ms on cpu, batch 8."))

    monkeypatch.setattr("bnfold.latency.benchmark.benchmark", stopwatch)
    (finding,) = answer(job(model, "M405", earlier=earlier))
    assert finding.found.headline == "Slower: 1.2 ms on cpu; Slower: 3 ms on cpu, batch 8"
    assert finding.sites == ("",)
    assert timed == [(earlier, model)]


def test_a_model_that_is_no_slower_is_not_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save(layers(), tmp_path / "net.onnx")
    monkeypatch.setattr("bnfold.latency.benchmark.benchmark", lambda *_: SimpleNamespace(slower=()))
    assert asked(model, "M405", earlier=model) == []


def test_other_names_are_a_change_for_callers_and_keep_the_models_from_being_compared(tmp_path: Path) -> None:
    model = layers()
    model.graph.input[0].name = model.graph.node[0].input[0] = "image"
    renamed = save(model, tmp_path / "net.onnx")
    before = save(layers(), tmp_path / "earlier.onnx")
    compared, changed = answer(job(renamed, "M402", "M403", earlier=before))
    assert "could not be compared with what it was before" in compared.found.headline
    assert changed.found.sites == ("The inputs are named 'image' instead of 'x'",)
    assert "--match" not in compared.found.headline  # an option that this command does not have


def test_every_change_for_callers_is_a_site(tmp_path: Path) -> None:
    model = save(layers(opset=17), tmp_path / "net.onnx")
    before = layers(x="N,3,8,8")
    before.metadata_props.add(key="classes", value="cat,dog")
    (finding,) = answer(job(model, "M403", earlier=save(before, tmp_path / "earlier.onnx")))
    assert finding.found.headline == f"callers meet {len(finding.sites)} things else than before"
    assert "The opset is 17 instead of 18" in finding.sites
    assert "Metadata of the original is missing: classes" in finding.sites
    assert any("shape" in site for site in finding.sites)


def test_a_source_that_cannot_be_read_is_a_finding_and_not_an_end(tmp_path: Path) -> None:
    model = save(layers(), tmp_path / "net.onnx")
    (finding,) = answer(job(model, "M401", source=Source(tmp_path / "absent.pt")))
    assert "could not be found out" in finding.found.headline
    assert "absent.pt is not there" in finding.found.headline


def test_models_are_compared_on_the_inputs_of_the_settings(tmp_path: Path) -> None:
    """A difference that only these inputs show."""
    high = np.array(1e4, np.float32)
    path = save(layers("y = Relu(a)"), tmp_path / "net.onnx")
    source = save(layers("b = Relu(a)  y = Min(b, high)", high=high), tmp_path / "source.onnx")
    np.savez(tmp_path / "in.npz", x=1e6 * weight(1, 3, 8, 8))
    settings = Settings(validation=ValidationSettings(inputs=tmp_path / "in.npz"))
    (finding,) = answer(Job(path, "net.onnx", ("M401",), settings, Source(source)))
    assert "does not compute what its source computes" in finding.found.headline
    assert asked(path, "M401", source=Source(source)) == []
