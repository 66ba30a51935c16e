"""`bnfold fold` leaves the garbage collector alone, and leaves it as it was."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from bnfold.pipeline import fold_file as module


@pytest.mark.parametrize("fails", [False, True])
def test_the_collector_rests_only_while_it_folds(run, model, tmp_path, monkeypatch, fails: bool) -> None:
    seen: list[bool] = []
    fold_file = module.fold_file

    def noted(*args: Any, **options: Any) -> Any:
        seen.append(gc.isenabled())
        if fails:
            raise RuntimeError
        return fold_file(*args, **options)

    monkeypatch.setattr(module, "fold_file", noted)
    assert gc.isenabled()
    assert run("fold", model, "-o", tmp_path / "out.onnx").exit_code == (2 if fails else 0)
    assert seen == [False]
    assert gc.isenabled()


def test_one_that_rests_already_is_not_woken(run, model, tmp_path) -> None:
    gc.disable()
    try:
        assert run("fold", model, "-o", tmp_path / "out.onnx").exit_code == 0
        assert not gc.isenabled()
    finally:
        gc.enable()
