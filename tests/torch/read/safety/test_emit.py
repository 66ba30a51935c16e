"""What any protocol of pickle says is written in protocol 2, or refused."""

from __future__ import annotations

import io
import pickle
import pickletools
import zipfile

import pytest

torch = pytest.importorskip("torch")
import bnfold.torch as bt  # noqa: E402
from bnfold.errors import UnsafePickleError  # noqa: E402
from bnfold.torch.read.safety import sketch  # noqa: E402
from bnfold.torch.read.safety.emit import emit  # noqa: E402
from tests.torch.networks import NETWORKS, example, trained  # noqa: E402


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("name", ["resnet", "levit"])
def test_a_network_in_a_newer_protocol(tmp_path, name, version) -> None:
    network = trained(name)
    torch.save(network, tmp_path / "m.pt", pickle_protocol=version)
    classes = {type(part) for part in network.modules()}
    allow = [f"{cls.__module__}.{cls.__name__}" for cls in classes if not cls.__module__.startswith("torch.")]
    with torch.no_grad():
        assert torch.equal(
            bt.load(tmp_path / "m.pt", allow=allow).source(example(name)), network(example(name))
        )


def archived(path, data: bytes):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/data.pkl", data)
        archive.writestr("a/version", b"3")
    return path


ENDLESS: list[object] = [1]
ENDLESS.append((ENDLESS,))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "content",
    [
        {"a": "ü\ud800" * 300, "b": ["a", "b", "a", "b"], "c": (1, 2.5, None, True)},
        *(
            "x",
            ["x"],
            {"x": {}},
            (),
            (1, 2, 3, 4),
            b"\x00\xff",
            -(1 << 31),
            1 << 31,
            -(1 << 200),
            float("-inf"),
        ),
        *({1, 2}, frozenset({("a", "b")}), 1 + 2j, {(1, "a"): [[], {}]}),
    ],
)
def test_the_same_comes_out(content, protocol) -> None:
    plain = emit(sketch.read(io.BytesIO(pickle.dumps(content, protocol=protocol))).root)
    assert pickle.loads(plain) == content
    assert max(opcode.proto for opcode, _, _ in pickletools.genops(plain)) == 2


def test_what_is_one_object_stays_one_even_in_itself() -> None:
    shared = [1]
    again = pickle.loads(emit(sketch.read(io.BytesIO(pickle.dumps([shared, shared, ENDLESS]))).root))
    assert again[0] is again[1]
    assert again[2][1][0] is again[2]


@pytest.mark.parametrize("levels", [1, 2, 3])
def test_a_tuple_that_contains_itself_cannot_be_written(levels: int) -> None:
    node = root = sketch.Sequence("tuple")
    for _ in range(levels):
        root = sketch.Sequence("tuple", [root])
    node.members.append(root)
    with pytest.raises(pickle.UnpicklingError, match="contains itself"):
        emit(root)


TEXT = b"\x8c"


def push(text: str) -> bytes:
    return TEXT + bytes([len(text)]) + text.encode()


@pytest.mark.parametrize(
    "body",
    [
        push("os")
        + push("system")
        + b"0"
        + push("path")
        + b"\x93.",  # one of them taken from the stack again
        push("os") + b"0\x93.",
        push("os\nx") + push("system") + b"\x93.",
        b"\x93.",
        b"]\x94" + push("system") + b"\x93.",
        b"}}\x92.",  # NEWOBJ_EX
    ],
)
def test_a_name_that_is_put_together_is_refused(tmp_path, body) -> None:
    path = archived(tmp_path / "a.pt", b"\x80\x04" + body)
    with pytest.raises(UnsafePickleError):
        bt.load(path)


def test_the_networks_are_there() -> None:
    assert len(NETWORKS) == 7
