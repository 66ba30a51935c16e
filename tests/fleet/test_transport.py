"""What is tried again, what appears whole, and what nobody gets to see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bnfold.errors import InputError
from bnfold.fleet import transport
from bnfold.fleet.transport import TransportError

SIGNED = "https://host/net.onnx?X-Amz-Signature=0123456789abcdef"


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("s3://bucket/net.onnx", "s3://bucket/net.onnx"),
        ("/models/me@home?/net.onnx", "/models/me@home?/net.onnx"),
        ("https://me:word@host/net.onnx", "https://host/net.onnx"),
        ("zip://net.onnx::https://me:word@host/zoo.zip", "zip://net.onnx::https://host/zoo.zip"),
        (SIGNED, "https://host/net.onnx?sha256:"),
    ],
)
def test_what_is_shown_of_an_address(url: str, seen: str) -> None:
    assert transport.shown(url).startswith(seen)
    assert "word" not in transport.shown(url)
    assert "0123456789abcdef" not in transport.shown(url)


@pytest.mark.parametrize("name", ["/zoo/a::b.onnx", "a::b.onnx", "./zip::b.onnx", "file:///zoo/a::b.onnx"])
def test_colons_in_a_local_name_are_no_chain(name: str) -> None:
    path = transport.local(name)
    assert path is not None
    assert path.name.endswith("::b.onnx")
    assert transport.links(name) == [name]
    fs, place = transport.filesystem(name)
    assert fs.protocol[0] == "file"
    assert place == path.absolute().as_posix()
    assert transport.joined("/out::1", "models/net.onnx") == "/out::1/models/net.onnx"


@pytest.mark.parametrize("url", ["zip://a.onnx::zoo.zip", "simplecache::/zoo/net.onnx", "zip::s3://a/b.zip"])
def test_a_chain_stays_one(url: str) -> None:
    assert transport.local(url) is None
    assert transport.links(url) == url.split("::")


def test_messages_hold_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "battery-staple")
    monkeypatch.setenv("HF_TOKEN", "hf_horse")
    text = transport.cleaned(f"battery-staple and hf_horse do not open {SIGNED} or s3://a:b@c/d", SIGNED)
    assert text.startswith("*** and *** do not open https://host/net.onnx?sha256:")
    assert text.endswith(" or s3://c/d")


def test_a_network_that_fails_is_tried_again() -> None:
    answers = [TimeoutError(), ConnectionResetError(), b"content"]

    def action() -> bytes:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert transport.retried(action, "fetched", "s3://zoo/net.onnx") == b"content"


@pytest.mark.parametrize(
    ("error", "count", "why"),
    [
        (TimeoutError("slow"), transport.ATTEMPTS, "slow"),
        (FileNotFoundError("zoo/net.onnx"), 1, "it is not there"),
        (PermissionError("Forbidden"), 1, "Forbidden"),
    ],
)
def test_what_stays_is_not_tried_for_ever(error: Exception, count: int, why: str) -> None:
    tried: list[int] = []

    def action() -> None:
        tried.append(1)
        raise error

    with pytest.raises(TransportError, match=rf"^s3://zoo/net.onnx could not be fetched: {why}\.$"):
        transport.retried(action, "fetched", "s3://me:word@zoo/net.onnx")
    assert len(tried) == count


def test_a_file_there_and_back(tmp_path: Path, memory: Any) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"content")
    for url in ("memory://a/b/net.onnx", str(tmp_path / "c" / "d" / "net.onnx")):
        transport.store(source, url)
        transport.fetch(url, target)
        assert target.read_bytes() == b"content"
        transport.put(url, b"other")
        transport.fetch(url, target)
        assert target.read_bytes() == b"other"
    assert memory.cat_file("/a/b/net.onnx") == b"other"
    assert [path.name for path in (tmp_path / "c" / "d").iterdir()] == ["net.onnx"], "no draft is left"


def test_what_is_not_installed_is_said() -> None:
    pytest.importorskip("fsspec")
    from importlib.util import find_spec

    if find_spec("adlfs") is not None:
        pytest.skip("adlfs is installed")
    with pytest.raises(InputError, match="az:// needs a package") as error:
        transport.filesystem("az://container/net.onnx")
    assert error.value.fix == "Type: pip install adlfs"
