"""Input shapes: parsed, matched with forward, read from a program, asked for and never invented."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.errors import InputError, MissingShapeError  # noqa: E402
from bnfold.torch import InputSpec, Loaded, example_inputs, parse_shapes  # noqa: E402
from bnfold.torch.export.signature import Signature  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit says that it is one


def loaded(module: nn.Module) -> Loaded:
    return Loaded(module, "module", was_training=False)


class Two(nn.Module):
    """Two inputs, and one that has a default."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Conv2d(3, 4, 3)

    def forward(self, image, mask, scale=None):
        return self.body(image) * mask if scale is None else self.body(image) * mask * scale


def test_parse():
    assert parse_shapes(["1x3x32x32"]) == (InputSpec(None, (1, 3, 32, 32)),)
    assert parse_shapes(["a=1x3", " b=7 "]) == (InputSpec("a", (1, 3)), InputSpec("b", (7,)))
    assert parse_shapes(["s=scalar"]) == (InputSpec("s", ()),)
    assert parse_shapes(["a=1", "b=2"], dtype="float16") == (
        InputSpec("a", (1,), "float16"),
        InputSpec("b", (2,), "float16"),
    )
    assert [s.dtype for s in parse_shapes(["a=1", "b=2"], dtype="b=int64")] == [None, "int64"]
    assert parse_shapes([]) == ()


@pytest.mark.parametrize(
    "text", ["", "1x", "x", "1x-3", "1,3", "1x3x<height>", "=1x3", "a b=1", "1 x 3", "1x0"]
)
def test_parse_refuses(text):
    with pytest.raises(InputError) as caught:
        parse_shapes([text])
    assert caught.value.fix


def test_parse_refuses_what_contradicts():
    for texts, dtype in [(["a=1", "a=2"], None), (["a=1"], "float"), (["a=1"], "b=int64")]:
        with pytest.raises(InputError):
            parse_shapes(texts, dtype=dtype)


def test_seeded_and_of_the_weights_type():
    module = loaded(nn.Linear(4, 2).half())
    first, again, other = (example_inputs(module, parse_shapes(["3x4"]), seed=seed)[0] for seed in (0, 0, 1))
    assert first.dtype == torch.float16
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    (ids,) = example_inputs(module, parse_shapes(["50"], dtype="int64"))
    assert ids.dtype == torch.int64
    assert set(ids.tolist()) == {0, 1}


def test_by_name_in_any_order_and_mixed():
    for texts in (["mask=1x1", "image=1x3x8x8"], ["1x3x8x8", "mask=1x1"], ["mask=1x1", "1x3x8x8"]):
        inputs = example_inputs(loaded(Two()), parse_shapes(texts))
        assert isinstance(inputs, dict)
        assert {name: tuple(x.shape) for name, x in inputs.items()} == {"image": (1, 3, 8, 8), "mask": (1, 1)}
    inputs = example_inputs(loaded(Two()), parse_shapes(["1x3x8x8", "1x1"]))
    assert isinstance(inputs, tuple)


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["1x3x8x8"], "2 to 3 inputs"),
        (["image=1x3x8x8"], "No shape was given for mask"),
        (["image=1", "mask=1", "picture=1"], "no input 'picture'"),
        (["1", "1", "1", "1"], "2 to 3 inputs"),
        (["image=1", "1", "1", "1"], "More shapes"),
    ],
)
def test_does_not_fit_forward(texts, expected):
    with pytest.raises(InputError, match=expected) as caught:
        example_inputs(loaded(Two()), parse_shapes(texts))
    assert "--input-shape image=<shape> --input-shape mask=<shape>" in caught.value.fix


class Wrapped(nn.Module):
    """A layer that is neither first nor at the top."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.drop, self.stem = nn.Dropout(), nn.Sequential(nn.ReLU(), layer)

    def forward(self, x):
        return self.stem(self.drop(x))


@pytest.mark.parametrize(
    ("layer", "known", "line"),
    [
        (nn.Conv2d(5, 4, 3), "Conv2d at stem.1, with 5 input channels and 2 spatial", "1x5x224x224"),
        (nn.Conv1d(5, 4, 3), "Conv1d at stem.1, with 5 input channels and 1 spatial", "1x5x224"),
        (nn.Conv3d(5, 4, 3), "3 spatial dimensions", "1x5x32x32x32"),
        (nn.ConvTranspose2d(6, 4, 3), "6 input channels", "1x6x1x1"),
        (nn.BatchNorm1d(7), "BatchNorm1d at stem.1, with 7 channels", "1x7x224"),
        (nn.GRU(3, 4, batch_first=True), "GRU at stem.1, with 3 input features", "1x16x3"),
        (nn.Embedding(10, 4), "Embedding", "1x16 --dtype int64"),
        (nn.LSTMCell(3, 4), "LSTMCell at stem.1, with 3 input features", "1x3x<...>"),
        (nn.LayerNorm(8), "LayerNorm at stem.1", "1x<...>"),
    ],
)
def test_what_is_known_is_said(layer, known, line):
    with pytest.raises(MissingShapeError) as caught:
        example_inputs(loaded(Wrapped(layer)), ())
    assert known in caught.value.problem
    added, *caution = caught.value.fix.splitlines()
    assert added == f"Add: --input-shape {line}"
    assert caught.value.has_blanks == ("<" in line)
    assert len(caution) == ("<" not in line), "a whole size is a guess, and called one"


def test_a_shape_that_can_be_derived_is_noted():
    notes = []
    (x,) = example_inputs(loaded(Wrapped(nn.Linear(9, 2))), (), note=notes.append)
    assert tuple(x.shape) == (1, 9)
    assert notes == ["The input's shape is 1x9: the model begins with a Linear and maps each row by itself."]


def test_names_of_a_script():
    source = loaded(torch.jit.script(Two()))
    inputs = example_inputs(source, parse_shapes(["mask=1x1", "1x3x8x8"]))
    assert list(Signature.of(source.source).bind(inputs)) == list(inputs) == ["image", "mask"]
    assert list(Signature.of(source.source).bind(tuple(inputs.values()))) == ["image", "mask"]
    with pytest.raises(InputError, match="2 to 3 inputs"):
        example_inputs(source, parse_shapes(["1x3x8x8"]))


def test_nothing_is_known():
    with pytest.raises(InputError, match="does not contain the shape"):
        example_inputs(loaded(nn.ReLU()), ())


def program(module: nn.Module, *inputs: torch.Tensor, dynamic: object = None) -> Loaded:
    exported = torch.export.export(module.eval(), inputs, dynamic_shapes=dynamic)
    return Loaded(exported, "exported program", was_training=False)


def test_a_program_tells_its_own():
    batch = torch.export.Dim("batch", min=2, max=64)
    source = program(
        Two(), torch.zeros(5, 3, 8, 8), torch.zeros(1, dtype=torch.int64), dynamic=({0: batch}, None)
    )
    image, mask = example_inputs(source, ())
    assert (tuple(image.shape), image.dtype) == ((5, 3, 8, 8), torch.float32)
    assert (tuple(mask.shape), mask.dtype) == ((1,), torch.int64)
    notes: list[str] = []
    assert len(example_inputs(source, parse_shapes(["image=9x3x8x8"]), note=notes.append)) == 2
    assert notes == [
        "--input-shape changes nothing here: an exported program has the sizes of its inputs; its open sizes"
        " stay open (--set-shape fixes them)."
    ]
    for text in ("9x4x8x8", "9x3x8"):
        with pytest.raises(InputError, match=r"image of shape \?x3x8x8\."):
            example_inputs(source, parse_shapes([text]))
    with pytest.raises(InputError, match="no input 'picture'"):
        example_inputs(source, parse_shapes(["picture=1"]))
