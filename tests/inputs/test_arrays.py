"""NumPy's files are read without running what is in them; every kind of damage is an input error."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest

from bnfold.errors import InputError
from bnfold.inputs import arrays


def test_files_that_are_no_npz(tmp_path: Path):
    (tmp_path / "text.npz").write_text("hello")
    (tmp_path / "empty.npz").touch()
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "pickled.npz", x=np.array([{}], dtype=object))
    (tmp_path / "cut.npz").write_bytes((tmp_path / "pickled.npz").read_bytes()[:60])
    with zipfile.ZipFile(tmp_path / "zip.npz", "w") as archive:
        archive.writestr("x", "no array")
    for name in ("absent.npz", "text.npz", "empty.npz", "one.npy", "pickled.npz", "cut.npz", "zip.npz"):
        with pytest.raises(InputError, match=name) as caught:
            arrays.load_npz(tmp_path / name)
        assert "numpy.savez" in caught.value.fix


def test_an_absent_npz_is_said_in_words(tmp_path: Path):
    with pytest.raises(InputError) as caught:
        arrays.load_npz(tmp_path / "absent.npz")
    assert caught.value.problem == (
        f"{tmp_path / 'absent.npz'} cannot be read as an .npz file: No such file or directory."
    )


def test_a_damaged_npz_is_an_input_error(tmp_path: Path):
    """Every byte in turn is damaged: zipfile and zlib have many words for it."""
    np.savez_compressed(tmp_path / "in.npz", x=np.arange(20.0))
    causes = causes_of_damage(tmp_path / "in.npz", arrays.load_npz)
    assert {zlib.error, NotImplementedError, RuntimeError} <= causes


def causes_of_damage(path: Path, load) -> set[type]:
    """Damage every byte of a file in turn, and give what was the cause of each InputError."""
    whole = path.read_bytes()
    causes = set()
    for place in range(len(whole)):
        for flip in (0x01, 0x0E, 0xFF):
            damaged = bytearray(whole)
            damaged[place] ^= flip
            path.write_bytes(damaged)
            try:
                load(path)
            except InputError as error:
                causes.add(type(error.__cause__))
    return causes


def test_a_damaged_npy_is_an_input_error(tmp_path: Path):
    np.save(tmp_path / "in.npy", np.arange(4.0))
    assert {ValueError, tokenize.TokenError} <= causes_of_damage(tmp_path / "in.npy", arrays.load_npy)
    np.save(tmp_path / "pickled.npy", np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"cannot be read as an \.npy file"):
        arrays.load_npy(tmp_path / "pickled.npy")


def test_an_npy_that_claims_more_than_there_is_memory(tmp_path: Path):
    np.save(tmp_path / "vast.npy", np.zeros(9))
    raw = (tmp_path / "vast.npy").read_bytes()
    (tmp_path / "vast.npy").write_bytes(raw.replace(b"(9,), }" + 15 * b" ", b"(9000000000000000,), }"))
    with pytest.raises(InputError, match=r"vast\.npy cannot be read"):
        arrays.load_npy(tmp_path / "vast.npy")
