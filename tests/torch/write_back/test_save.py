"""Files of a folded module: whole or not at all, and what they hold."""

from __future__ import annotations

from typing import get_args

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.errors import DisagreementError, InputError, ModelError, SaveError  # noqa: E402
from bnfold.torch.read.load import load  # noqa: E402
from bnfold.torch.write_back import save as saving  # noqa: E402
from bnfold.torch.write_back.save import Form, save  # noqa: E402
from tests.torch.modules import conv, image, made  # noqa: E402


@pytest.fixture
def module():
    torch.manual_seed(0)
    return nn.Sequential(conv(), nn.ReLU(), nn.Dropout()).train()


def test_a_program_is_in_eval_mode_and_its_batch_can_stay_open(module, tmp_path):
    save(module, path := tmp_path / "m.pt2", "pt2", (image(1, 3, 8, 8),), ["batch"])
    assert all(part.training for part in module.modules())
    x = image(3, 3, 8, 8)
    assert torch.equal(load(path).source.module()(x), module.eval()(x))


def test_a_module_is_as_it_is(module, tmp_path):
    save(module, path := tmp_path / "m.pt", "module", (image(),))
    again = load(path).source
    assert [part.training for part in again] == [True] * 3
    assert torch.equal(again[0].weight, module[0].weight)


def test_weights_alone(module, tmp_path):
    save(module, path := tmp_path / "m.pt", "state_dict", (image(),))
    weights = torch.load(path, weights_only=True)
    assert list(weights) == ["0.weight", "0.bias"]


@pytest.mark.parametrize("form", get_args(Form))
def test_nothing_is_left_where_it_cannot_be_written(module, tmp_path, form):
    with pytest.raises(SaveError, match="does not exist"):
        save(module, tmp_path / "nowhere" / "m", form, (image(),))


def test_what_cannot_be_pickled_is_told_and_the_old_file_stays(tmp_path):
    (path := tmp_path / "m.pt").write_text("old")
    with pytest.raises(ModelError, match="cannot be pickled"):
        save(made(lambda _, x: x), path, "module", (image(),))
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["m.pt"]


def test_what_cannot_be_exported_is_told(tmp_path):
    with pytest.raises(ModelError, match="could not be exported"):
        save(made(lambda _, x: x if x.sum() > 0 else -x), tmp_path / "m", "pt2", (image(),))
    assert not list(tmp_path.iterdir())


def test_a_program_that_is_wrong_is_not_written(module, tmp_path, monkeypatch):
    monkeypatch.setattr(saving, "relative_error", lambda *_: 1.0)
    with pytest.raises(DisagreementError):
        save(module, tmp_path / "m", "pt2", (image(),))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("form", "words"), [("module", "no sizes to leave open"), ("pt2", "leaves no size open")]
)
def test_sizes_that_cannot_stay_open(tmp_path, form, words):
    with pytest.raises(InputError, match=words):
        save(made(lambda _, *x: x), tmp_path / "m", form, (image(),), ["batch"])


def test_a_program_of_a_forward_that_writes_into_its_input_and_draws(tmp_path):
    module, x = made(lambda m, x: m.conv(x.add_(1)) + torch.rand(1), conv=conv()), image()
    save(module, path := tmp_path / "m.pt2", "pt2", (x,))
    assert path.is_file()
    assert torch.equal(x, image())


def test_a_state_dict_that_cannot_be_pickled_is_refused(module, tmp_path):
    module.register_state_dict_post_hook(lambda _, state, *__: state.update(it=lambda: None))
    with pytest.raises(ModelError, match="state_dict cannot be pickled"):
        save(module, tmp_path / "m.pt", "state_dict", ())
    assert not list(tmp_path.iterdir())
