"""The notebook of the documentation runs from top to bottom, and prints what it shows."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path

import pytest

pytest.importorskip("torch")

NOTEBOOK = Path(__file__).parents[2] / "docs" / "tutorials" / "notebook.ipynb"


@pytest.mark.filterwarnings("ignore")  # of torch.onnx, about itself
def test_it_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To renew what it shows: `jupyter execute --inplace docs/tutorials/notebook.ipynb`."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    shown, printed = [], []
    for number, cell in enumerate(json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
            printed.append(out.getvalue())
            assert {output["output_type"] for output in cell["outputs"]} <= {"stream"}, "print what is shown"
            shown.append("".join("".join(output["text"]) for output in cell["outputs"]))
    assert "".join(printed).count("\n") >= 8
    assert printed == shown
