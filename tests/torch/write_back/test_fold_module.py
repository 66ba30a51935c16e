"""A folded copy: right in float64, nothing of the original touched, what has no place kept with a reason."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import partial

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from benchmarks.torch_fold import AWKWARD, batchnorms_run  # noqa: E402
from bnfold.errors import InputError, ModelError  # noqa: E402
from bnfold.torch import fold  # noqa: E402
from bnfold.torch.write_back.trace_run import tensors  # noqa: E402
from bnfold.torch.write_back.verify_eager import relative_error  # noqa: E402
from models.batchnorms import seeded_statistics  # noqa: E402
from tests.torch.modules import (  # noqa: E402
    Branches,
    FrozenBatchNorm,
    Leaky,
    SideBySide,
    WithPReLU,
    conv,
    hook,
    image,
    made,
    norm,
)
from tests.torch.networks import NETWORKS, example, trained  # noqa: E402


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def error_of(module, copied, *inputs):
    with torch.no_grad():
        pairs = zip(tensors(module(*inputs)), tensors(copied(*inputs)), strict=True)
        return max(relative_error(one, other) for one, other in pairs)


def folded(module, x):
    """Fold, and hold what is demanded of every fold: the original untouched, the copy right."""
    before, hooks = state(module), [len(part._forward_hooks) for part in module.modules()]
    result = fold(module, x)
    after = module.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert hooks == [len(part._forward_hooks) for part in module.modules()]
    assert error_of(module, result.module, x) < 2e-6
    assert batchnorms_run(result.module, x) == len(result.kept)
    assert set(result.parameters) == set(result.module.state_dict())
    assert all(site.reason is not None for site in result.kept)
    return result


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_lose_every_batchnorm_and_stay_right_in_float64(name):
    module, x = trained(name).double(), example(name, dtype=torch.float64)
    before = state(module)
    result = fold(module, x)
    assert not result.kept
    assert batchnorms_run(module, x) > batchnorms_run(result.module, x) == 0
    for seed in (1, 2):
        assert error_of(module, result.module, example(name, seed=seed, dtype=torch.float64)) < 1e-12
    assert result.error < 1e-12
    assert all(torch.equal(before[key], tensor) for key, tensor in module.state_dict().items())


@pytest.mark.parametrize(
    ("name", "kept"),
    [*zip(AWKWARD, ({"bn": "BN501"}, {"1": "BN204"}, {}, {"1": "BN215"}, {}), strict=True)],
)
def test_where_others_are_wrong(name, kept):
    torch.manual_seed(0)
    module, x = AWKWARD[name]()
    result = folded(seeded_statistics(module).eval(), x)
    assert {site.name: site.reason.code for site in result.kept} == kept


@pytest.fixture(scope="module")
def goes():
    """Modules that have a place for every fold, side by side in one."""
    torch.manual_seed(0)
    parts = {
        "called twice together": made(
            lambda m, x: m.bn(m.conv(x)) + m.bn(m.conv(x.flip(0))).relu(), conv=conv(), bn=norm()
        ),
        "one BatchNorm after two": made(
            lambda m, x: m.bn(m.a(x)).relu() + m.bn(m.b(x)).relu(), a=conv(), b=conv(bias=False), bn=norm()
        ),
        "two into one BatchNorm": made(
            lambda m, x: m.bn(torch.cat([m.a(x), m.b(x)], 1)), a=conv(), b=conv(), bn=nn.BatchNorm2d(8)
        ),
        "arithmetic with buffers": made(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=FrozenBatchNorm(4)),
        "a sum with a parameter": made(
            lambda m, x: m.bn(m.conv(x) + m.pos), conv=conv(), bn=norm(), pos=nn.Parameter(image(1, 4, 6, 6))
        ),
        "a literal before, a layer after": made(
            lambda m, x: m.out(m.bn(m.conv(x) + torch.arange(6.0).to(x))),
            conv=conv(),
            bn=norm(),
            out=nn.Conv2d(4, 2, 1),
        ),
        "a functional convolution": made(
            lambda m, x: m.bn(functional.conv2d(x, m.w, m.b)),
            w=nn.Parameter(image(4, 3, 3, 3)),
            b=nn.Parameter(image(4)),
            bn=norm(),
        ),
        "a functional BatchNorm after a layer": made(
            lambda m, x: functional.batch_norm(m.conv(x), m.mean, m.var),
            conv=conv(),
            mean=nn.Buffer(image(4)),
            var=nn.Buffer(image(4) ** 2),
        ),
        "a shared block of branches": made(
            lambda m, x: m.r(m.r(m.stem(x)).sigmoid()), stem=nn.Conv2d(3, 4, 1), r=Branches()
        ),
        "tied, one BatchNorm": tied(same_norm=True),
        "no own parameters": made(
            lambda m, x: m.bn(m.conv(x)), conv=conv(bias=False), bn=nn.BatchNorm2d(4, affine=False)
        ),
    }
    return folded(SideBySide(parts).eval(), image())


@pytest.fixture(scope="module")
def stays():
    """Modules without a place for some fold."""
    torch.manual_seed(0)
    parts = {
        "tied": tied(same_norm=False),
        "functional BatchNorm": made(
            lambda m, x: functional.batch_norm(m.conv(x), m.mean, m.var).sin(),
            conv=conv(),
            mean=nn.Buffer(image(4)),
            var=nn.Buffer(image(4) ** 2),
        ),
        "functional convolution": made(
            lambda m, x: m.bn(functional.conv2d(x, m.w)), w=nn.Parameter(image(4, 3, 3, 3)), bn=norm()
        ),
        "computed weight": made(
            lambda m, x: m.bn(m.conv(x)), conv=nn.utils.parametrizations.weight_norm(conv()), bn=norm()
        ),
        "its own activation": made(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=Leaky(4)),
    }
    return folded(SideBySide(parts).eval(), image())


def tied(same_norm):
    other = norm()
    module = made(
        lambda m, x: m.bn(m.a(x)).relu() + (m.bn(m.b(x)) if same_norm else m.other(m.b(x)).relu()),
        a=conv(),
        b=conv(),
        bn=norm(),
        other=other,
    )
    module.b.weight, module.b.bias = module.a.weight, module.a.bias
    return module


def test_what_has_a_place_goes(goes):
    assert goes.kept == ()
    assert goes.error < 1e-12


def test_what_has_no_place_stays_and_says_why(stays):
    assert not stays.folded
    assert {site.reason.code for site in stays.kept} == {"BN501"}
    found = [(site.reason.facts["node"].split(".")[1], site.reason.facts["why"]) for site in stays.kept]
    assert {name: why.partition(" ")[2] for name, why in found} == {
        "tied": "is used in several places that would need different numbers",
        "functional BatchNorm": "forward of parts.functional BatchNorm does more than this,"
        " or takes or returns more than one tensor",
        "functional convolution": "constants are not a parameter or buffer by themselves",
        "computed weight": "constants are not a parameter or buffer by themselves",
        "its own activation": "forward of parts.its own activation.bn does more than this,"
        " or takes or returns more than one tensor",
    }


def test_a_groupnorm_takes_no_batchnorm_in_a_module():
    """Its scale and shift are a Mul and an Add of computed constants, which the module has no place for."""
    module = nn.Sequential(conv(), nn.GroupNorm(2, 4), norm(), nn.Sigmoid()).eval()
    result = fold(module, (image(),))
    assert [site.reason.code for site in result.kept] == ["BN107", "BN501"]
    assert result.error == 0.0


def test_ties_stay_ties_where_both_ends_take_the_same(goes):
    module = goes.module.parts["tied, one BatchNorm"]
    assert module.a.weight is module.b.weight
    names = [f"parts.tied, one BatchNorm.{end}.weight" for end in "ab"]
    assert goes.parameters[names[0]] == goes.parameters[names[1]]


def test_a_linear_over_tokens_gets_a_bias():
    module = made(
        lambda m, x: m.bn(m.linear(x).transpose(1, 2)),
        linear=nn.Linear(5, 5, bias=False),
        bn=nn.BatchNorm1d(5),
    )
    result = folded(module, image(2, 7, 5))
    assert not result.kept
    assert result.module.linear.bias.shape == (5,)
    assert module.linear.bias is None


def test_an_activation_stays_under_its_name():
    module = made(lambda m, x: m.out(m.bn(m.conv(x))), conv=conv(), bn=WithPReLU(4), out=nn.Conv2d(4, 2, 3))
    result = folded(module, image())
    assert torch.equal(result.module.state_dict()["bn.act.weight"], module.bn.act.weight)
    assert result.parameters["bn.act.weight"] == ("bn.act.weight",)


def test_hooks_see_what_they_saw():
    seen = []
    module = made(
        lambda m, x: m.last(m.b(m.bn(m.a(x)).relu())), a=conv(), bn=norm(), b=nn.Conv2d(4, 4, 3), last=norm()
    )
    # .numpy() is what no exporter can follow
    module.a.register_forward_hook(hook(lambda y: seen.append(y.detach().numpy().copy())))
    result = folded(module, image())
    assert [(site.name, site.reason.code) for site in result.kept] == [("bn", "BN502")]
    assert "a hook of a sees" in result.kept[0].reason.sentence
    seen.clear()
    module(image()), result.module(image())
    assert (seen[0] == seen[1]).all()


def test_hooks_that_change_something():
    def part(register):
        module = made(lambda m, x: m.bn(m.conv(x)), conv=conv(), bn=norm())
        register(module)
        return module

    module = SideBySide(
        {
            "after": part(lambda m: m.bn.register_forward_hook(hook(lambda y: y.clamp(max=0.5)))),
            "before": part(lambda m: m.bn.register_forward_pre_hook(hook(lambda inputs: (inputs[0] * 2,)))),
            "backward": part(lambda m: m.conv.register_full_backward_hook(hook(print))),
        }
    )
    assert [site.reason.code for site in folded(module.eval(), image()).kept] == ["BN502"] * 3


def test_hooks_around_a_layer_and_its_batchnorm_do_not_matter():
    module = nn.Sequential(nn.Sequential(conv(), norm()), nn.ReLU(inplace=True), nn.Conv2d(4, 2, 1))
    module[0].register_forward_hook(hook(lambda y: y + 1))
    module.register_forward_hook(hook(lambda y: y * 3))
    assert not folded(seeded_statistics(module).eval(), image()).kept


def test_modes_types_and_gradients_are_kept():
    module = seeded_statistics(nn.Sequential(conv(bias=False), norm(), nn.ReLU(), nn.Dropout()).half())
    module[1].eval()
    module[0].weight.requires_grad = False
    result = fold(module, image())
    assert [part.training for part in result.module] == [True, False, True, True]
    assert result.module[0].bias.dtype == torch.float16
    assert not result.module[0].bias.requires_grad
    assert "train mode" in result.notes[0]
    assert error_of(copy.deepcopy(module).eval(), result.module.eval(), image().half()) < 5e-3


def test_numbers_that_do_not_fit_their_type_stay():
    module = seeded_statistics(nn.Sequential(conv(), norm())).eval()
    module[1].running_var.fill_(1e-9)
    module[1].weight.data.fill_(3e4)
    result = fold(module.half(), image())
    assert "do not fit torch.float16" in result.kept[0].reason.sentence


def test_branches_become_one_where_the_module_is_only_that():
    module = made(lambda m, x: m.r(m.stem(x)).sigmoid(), stem=nn.Conv2d(3, 4, 1), r=Branches())
    result = folded(module, image())
    assert [type(part) for part in result.module.r] == [nn.Conv2d]
    assert result.merges
    assert set(result.parameters["r.conv.weight"]) == {name for name in module.state_dict() if "r." in name}
    assert not result.notes


def test_branches_that_stay_are_folded_and_named():
    module = made(lambda m, x: m.out(x + m.bn(m.conv(x))), conv=nn.Conv2d(3, 3, 3, padding=1),
                  bn=nn.BatchNorm2d(3), out=nn.Conv2d(3, 2, 1))  # fmt: skip
    result = folded(module, image())
    assert not result.kept
    assert not result.merges
    assert "left apart: identity, bn" in result.notes[0]


def test_merge_and_keep_are_obeyed():
    module = made(lambda m, x: m.r(m.stem(x)).sigmoid(), stem=nn.Conv2d(3, 4, 1), r=Branches())
    result = fold(module, image(), keep=["r.bn1"], merge=False)
    assert not result.merges
    assert [(site.name, site.reason.code) for site in result.kept] == [("r.bn1", "BN108")]
    assert result.folded
    assert isinstance(result.module.r.bn1, nn.BatchNorm2d)


def test_inputs_by_name_and_outputs_in_containers():
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.bn, self.table = conv(), norm(), nn.Embedding(5, 4)

        def forward(self, x, index):
            return {"y": self.bn(self.conv(x)), "pair": (self.table(index), index + 1)}

    module = seeded_statistics(Two()).eval()
    result = fold(module, {"index": torch.tensor([4, 0]), "x": image()})
    assert not result.kept
    assert error_of(module, result.module, image(seed=3), torch.tensor([1, 2])) < 1e-6


class CopiesNothing(nn.Conv2d):
    """A layer that copies of its module would share."""

    def __deepcopy__(self, memo):
        return self


class NoBias(nn.Conv2d):
    """A convolution that does not look at its bias."""

    def forward(self, x):
        return functional.conv2d(x, self.weight)


def shifted(forward, **options):
    return made(forward, conv=conv(**options), bn=norm())


@pytest.mark.parametrize(
    "module",
    [
        lambda: shifted(lambda m, x: (m.bn(m.conv(x)), m.bn.weight.abs().sum())),
        lambda: shifted(lambda m, x: (m.bn(m.conv(x)), m.conv.weight.abs().sum())),
        lambda: shifted(lambda m, x: (m.bn(m.conv(x)) * (2 - (m.conv.bias is None))).sin(), bias=False),
        lambda: made(lambda m, x: m.bn(m.conv(x)), conv=NoBias(3, 4, 3, bias=False), bn=norm()),
        lambda: shifted(lambda m, x: m.bn(m.conv(x)) if x.shape[0] == 2 else m.conv(x)),
        lambda: shifted(lambda m, x: m.bn(m.conv(x)) if x.shape[-1] == 8 else m.conv(x)),
        lambda: made(
            lambda m, x: m.bn(m.by_size(m.conv(x))),
            conv=conv(),
            bn=norm(),
            by_size=made(lambda _, x: x * len(x)),
        ),
    ],
    ids=[
        "norm of a scale",
        "norm of a weight",
        "bias is None",
        "no bias read",
        "batch",
        "width",
        "times a size",
    ],
)
def test_what_the_forward_depends_on_stays(module):
    module = nn.Sequential(module(), made(lambda _, x: x)).eval()
    module.append(made(lambda m, x: (m.bn(m.conv(module_input(x))), x), conv=nn.Conv2d(4, 4, 1), bn=norm()))
    result = folded(module, image())
    assert [site.name for site in result.kept] == ["0.bn"]
    assert result.kept[0].reason.code in ("BN503", "BN207")  # itself, or the arithmetic after it stays
    assert [site.name for site in result.folded] == ["2.bn"]
    for x in (image(3, 3, 8, 8), image(2, 3, 9, 9)):
        assert error_of(module, result.module, x) < 2e-6


def module_input(x):
    return x[0] if isinstance(x, tuple) else x


def test_branches_that_the_forward_does_not_always_add_up_stay_apart():
    class Sometimes(Branches):
        def forward(self, x):
            return x if len(x) == 3 else super().forward(x)

    module = made(lambda m, x: m.r(m.stem(x)).sigmoid(), stem=nn.Conv2d(3, 4, 1), r=Sometimes())
    result = folded(module, image())
    assert not result.merges
    assert "left apart: " in result.notes[0]
    assert error_of(module, result.module, image(3, 3, 8, 8)) < 2e-6


def test_outputs_in_a_registered_dataclass_are_compared():
    @dataclass
    class Out:
        y: torch.Tensor

    torch.export.register_dataclass(Out)
    module = shifted(lambda m, x: Out(m.bn(m.conv(x)) * (2 - (m.conv.bias is None))), bias=False)
    assert [site.reason.code for site in fold(module, image()).kept] == ["BN503"]


def test_the_inputs_and_the_random_state_are_as_they_were():
    module = shifted(lambda m, x: m.bn(m.conv(x.add_(1))) + torch.rand(1, dtype=x.dtype)).double()
    x, drawn = image().double(), torch.get_rng_state()
    assert not fold(module, x).kept
    assert torch.equal(x, image().double())
    assert torch.equal(torch.get_rng_state(), drawn)


def test_a_counter_and_numbers_that_are_none():
    module = shifted(lambda m, x: m.bn(m.conv(x)) + m.count.add_(1) * 0)
    module.count, module.none = nn.Buffer(torch.zeros(())), nn.Buffer(torch.tensor(float("nan")))
    result = fold(module, image())
    assert not result.kept
    assert result.module.count == module.count == 0


def test_a_train_that_returns_nothing():
    class Careless(nn.Sequential):
        def train(self, mode=True):
            super().train(mode)

    module = seeded_statistics(Careless(conv(), norm()))
    assert not fold(module, image()).kept
    assert module.training


@pytest.mark.parametrize(
    ("module", "inputs", "error", "words"),
    [
        (partial(nn.Sequential, nn.LazyConv2d(3, 3)), image(), InputError, "without a shape"),
        (partial(nn.Linear, 3, 2), ["no tensor"], InputError, "not all tensors"),
        (partial(nn.Linear, 3, 2), image(2, 4), InputError, "does not run"),
        (
            lambda: nn.BatchNorm2d(3, track_running_stats=False),
            image(),
            ModelError,
            "statistics of the batch",
        ),
        (partial(nn.Linear, 3, 2), None, InputError, "not all tensors"),
        (partial(nn.Linear, 3, 2), image(0, 3), InputError, "no elements"),
        (lambda: nn.Sequential(torch.jit.script(nn.ReLU()), norm()), image(), InputError, "TorchScript at 0"),
        (lambda: torch.compile(nn.ReLU()), image(), InputError, "its _orig_mod"),
        (
            lambda: nn.Sequential(CopiesNothing(3, 4, 3), norm()),
            image(),
            ModelError,
            "returns 3 of its parts",
        ),
    ],
    ids=[
        *("lazy", "no tensor", "a wrong size", "batch statistics", "none", "empty"),
        *("TorchScript", "compiled", "no copy"),
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.jit says that it is one
def test_what_cannot_be_done_is_refused(module, inputs, error, words):
    with pytest.raises(error, match=words):
        fold(module().eval(), inputs)
