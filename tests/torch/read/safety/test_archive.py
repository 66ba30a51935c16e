"""Zip archives that PyTorch did not write, or not so."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from bnfold.errors import ModelError, UnsafePickleError  # noqa: E402
from bnfold.torch.read.safety import archive  # noqa: E402


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    torch.save({"a": torch.ones(5)}, tmp_path / "a.pt")
    return tmp_path / "a.pt"


def listed(path: Path) -> set[str]:
    with path.open("rb") as stream:
        return archive.entries(stream, str(path))


def add(path: Path, name: str, content: bytes, how: int = zipfile.ZIP_STORED, mode: int = 0o600) -> None:
    with zipfile.ZipFile(path, "a") as target:
        entry = zipfile.ZipInfo(name)
        entry.compress_type, entry.external_attr = how, mode << 16
        target.writestr(entry, content)


def test_what_torch_writes_is_listed(saved: Path) -> None:
    assert {"data.pkl", "data/0", "version"} <= listed(saved)


def test_a_symbolic_link(saved: Path) -> None:
    add(saved, "a/data/1", b"/etc/passwd", mode=stat.S_IFLNK | 0o777)
    with pytest.raises(ModelError, match="symbolic link, 'a/data/1'"):
        listed(saved)


@pytest.mark.parametrize("name", ["", "\0", "\0a/data/9"])  # zipfile cuts a name at a NUL
def test_an_entry_without_a_name(saved: Path, name: str) -> None:
    data = saved.read_bytes()
    assert data.count(b"a/data/0") == 2
    blank = name.encode().ljust(8, b"\0")
    saved.write_bytes(data.replace(b"a/data/0", blank))
    with pytest.raises(ModelError):
        listed(saved)


def test_an_archive_within(saved: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "inner.zip", "w") as inner:
        inner.writestr("inner/data.pkl", b"cos\nsystem\n.")
    add(saved, "a/data/1", (tmp_path / "inner.zip").read_bytes())
    with pytest.raises(UnsafePickleError, match="another archive, 'a/data/1'"):
        listed(saved)


def test_weights_that_only_begin_like_an_archive(saved: Path) -> None:
    add(saved, "a/data/1", b"PK\x03\x04" + bytes(60))
    assert "data/1" in listed(saved)


def script(path: Path, code: bytes, declared: int | None = None) -> Path:
    """An archive as `torch.jit.save` compresses it; `declared` is written for the code's size."""
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("a/constants.pkl", b"\x80\x02).")
        target.writestr("a/code/x.py", code, zipfile.ZIP_DEFLATED)
    if declared is not None:
        data = path.read_bytes()
        path.write_bytes(data.replace(len(code).to_bytes(4, "little"), declared.to_bytes(4, "little")))
    return path


def test_code_may_be_compressed(tmp_path: Path) -> None:
    assert "code/x.py" in listed(script(tmp_path / "s.pt", b"# spaces\n" * 10_000))


def test_code_that_declares_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "_MOST_CODE", 10**6)
    path = script(tmp_path / "s.pt", bytes(10**6 + 1))
    assert path.stat().st_size < 5000
    with pytest.raises(ModelError, match="zip bomb"):
        listed(path)


@pytest.mark.parametrize("declared", [1000, 100_000])
def test_code_that_is_longer_or_shorter_than_it_declares(tmp_path: Path, declared: int) -> None:
    code = bytes(54_321)
    assert zlib.crc32(code) != zlib.crc32(code[:declared]) or declared > len(code)
    with pytest.raises(ModelError, match="damaged"):
        listed(script(tmp_path / "s.pt", code, declared))


@pytest.mark.parametrize("place", [0, 1, 5])
def test_code_that_cannot_be_unpacked(tmp_path: Path, place: int) -> None:
    path = script(tmp_path / "s.pt", b"def f(x):\n  return x\n" * 20)
    data = bytearray(path.read_bytes())
    begin = data.index(b"a/code/x.py") + len(b"a/code/x.py")
    data[begin + place] ^= 0x07
    path.write_bytes(bytes(data))
    with pytest.raises(ModelError, match="damaged"):
        listed(path)
