"""Entering the package: what is missing is said, and `import bnfold` does not enter it."""

from __future__ import annotations

import subprocess
import sys

import pytest

HIDE = "import sys; sys.modules['torch'] = None\n"
ENTER = """
from bnfold.errors import MissingExtraError
try:
    import bnfold.torch
except MissingExtraError as error:
    print(error.fix)
"""


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_without_torch_it_says_what_to_type():
    assert python(HIDE + ENTER) == 'Type: pip install "bnfold[torch]"\n'


def test_bnfold_alone_does_not_load_torch():
    assert python("import sys, bnfold\nprint('torch' in sys.modules, 'bnfold.torch' in sys.modules)") == (
        "False False\n"
    )


def test_public_names():
    torch_package = pytest.importorskip("bnfold.torch", exc_type=ImportError)
    assert set(torch_package.__all__) <= set(dir(torch_package))
