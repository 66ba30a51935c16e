"""Who may talk, and where; and modes that are put back."""

from __future__ import annotations

import logging
import sys
import warnings

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.torch.run_quietly import eval_mode, from_torch, quiet, silent  # noqa: E402


def test_a_module_prints_to_standard_error_and_warns(capsys) -> None:
    def run() -> None:
        with quiet():
            print("hello")
            warnings.warn("mind the gap", UserWarning, stacklevel=1)
            warnings.warn_explicit("torch's own", UserWarning, torch.__file__, 1)

    with pytest.warns(UserWarning, match="mind the gap"):
        run()
    assert capsys.readouterr() == ("", "hello\n")


def test_an_exporter_says_nothing(capsys, caplog) -> None:
    logger = logging.getLogger("torch.onnx")
    before = logger.level

    def export() -> None:
        with silent():
            print("hello")
            print("hello", file=sys.stderr)
            warnings.warn("mind the gap", UserWarning, stacklevel=1)
            logger.error("lost")
            raise ValueError("at last")

    with pytest.raises(ValueError, match="at last"):
        export()
    assert capsys.readouterr() == ("", "")
    assert not caplog.records
    assert logger.level == before


def test_whose_file() -> None:
    assert from_torch(nn.__file__)
    assert not from_torch(__file__)


def test_modes_are_put_back() -> None:
    module = nn.Sequential(nn.Dropout(), nn.BatchNorm1d(2)).train()
    module[1].eval()

    def run() -> None:
        with eval_mode(module):
            assert not any(part.training for part in module.modules())
            raise KeyError

    with pytest.raises(KeyError):
        run()
    assert [part.training for part in module.modules()] == [True, True, False]
