"""Weights fit their network, every one, or what does not is listed."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.errors import InputError, ModelError  # noqa: E402
from bnfold.torch.read.weights import fill  # noqa: E402
from tests.torch.networks import NETWORKS, example, trained  # noqa: E402


def same(network: nn.Module, other: nn.Module, name: str) -> bool:
    with torch.no_grad():
        return torch.equal(network.eval()(example(name)), other(example(name)))


def refused(network: nn.Module, weights: dict[str, object], key: str = "") -> tuple[str, list[str]]:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with pytest.raises(ModelError) as caught:
        fill(network, weights, "m.pt", "nets:Net", key)
    after = network.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before), "a part was loaded"
    return caught.value.problem, caught.value.fix.split("\n")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_takes_its_own_weights(name) -> None:
    network = trained(name)
    fresh = NETWORKS[name][0]()
    assert fill(fresh, network.state_dict(), "m.pt", "nets:Net") == ()
    assert same(fresh, network, name)


@pytest.mark.parametrize(
    "prefixes", [("module.",), ("_orig_mod.",), ("_orig_mod.", "module."), ("module.", "_orig_mod.")]
)
def test_wrappers_are_taken_off(prefixes) -> None:
    network, fresh = trained("repvgg"), NETWORKS["repvgg"][0]()
    weights = {"".join(prefixes) + name: value for name, value in network.state_dict().items()}
    (note,) = fill(fresh, weights, "m.pt", "nets:Net")
    assert ", ".join(prefixes) in note
    assert same(fresh, network, "repvgg")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit, which torch.compile loads
def test_real_wrappers_are_taken_off() -> None:
    network = trained("repvgg")
    averaged = torch.optim.swa_utils.AveragedModel(nn.DataParallel(torch.compile(network)))
    network.stage1 = torch.compile(network.stage1)
    for wrapped in (averaged, network):
        fresh = NETWORKS["repvgg"][0]()
        assert fill(fresh, wrapped.state_dict(), "m.pt", "nets:Net")
        assert torch.equal(fresh.linear.weight, network.linear.weight)
        assert torch.equal(
            fresh.stage1[0].rbr_dense.bn.running_var, trained("repvgg").stage1[0].rbr_dense.bn.running_var
        )


def test_a_network_that_is_called_module_keeps_its_name() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2)

    weights = Holder().state_dict()
    assert fill(Holder(), weights, "m.pt", "nets:Holder") == ()


def test_what_does_not_fit_is_listed_and_nothing_loaded() -> None:
    weights = dict(trained("resnet").state_dict())
    weights["fc.weight"] = torch.zeros(1000, 24)
    weights["extra.bias"] = weights.pop("bn1.bias")
    problem, fix = refused(NETWORKS["resnet"][0](), weights)
    assert problem == "m.pt does not fit nets:Net: 1 missing, 1 unexpected, 1 of another shape."
    assert fix[:3] == [
        "missing: bn1.bias",
        "unexpected: extra.bias",
        "of another shape: fc.weight (1000x24 in the file, 10x24 in the network)",
    ]
    assert "--arch" in fix[3]


def test_long_lists_are_cut() -> None:
    problem, fix = refused(NETWORKS["resnet"][0](), trained("timm").state_dict())
    own, given = (trained(name).state_dict().keys() for name in ("resnet", "timm"))
    assert f"{sum('num_batches' not in name for name in own - given)} missing" in problem
    assert f"{len(given - own)} unexpected" in problem
    assert fix[0].endswith("more")
    assert fix[0].count(",") == 9


@pytest.mark.parametrize("prefix", ["backbone.", "net.module."])
def test_the_one_part_that_fits_is_taken(prefix) -> None:
    network, fresh = trained("repvgg"), NETWORKS["repvgg"][0]()
    weights = {prefix + name: value for name, value in network.state_dict().items()}
    weights["head.bias"] = torch.zeros(1)
    (note,) = fill(fresh, weights, "m.pt", "nets:Net")
    assert prefix[:-1] in note
    assert same(fresh, network, "repvgg")


def test_of_two_parts_that_fit_both_are_pointed_at() -> None:
    own = trained("repvgg").state_dict()
    weights = {part + name: value for part in ("student.", "teacher.") for name, value in own.items()}
    for key, before in (("", "--key "), ("state_dict", "--key state_dict.")):
        hints = refused(NETWORKS["repvgg"][0](), weights, key)[1]
        for part in ("student", "teacher"):
            assert any(hint.endswith(before + part) for hint in hints)


def test_a_part_of_which_something_is_missing_is_not_taken() -> None:
    weights = {f"model.{name}": value for name, value in trained("repvgg").state_dict().items()}
    del weights["model.linear.bias"]
    assert "missing" in refused(NETWORKS["repvgg"][0](), weights)[0]


def test_old_weights_lack_the_count_of_batches() -> None:
    network, fresh = trained("repvgg"), NETWORKS["repvgg"][0]()
    weights = {name: value for name, value in network.state_dict().items() if "num_batches" not in name}
    fill(fresh, weights, "m.pt", "nets:Net")
    assert same(fresh, network, "repvgg")


class Tied(nn.Module):
    """Two layers with one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
        self.second.weight = self.first.weight


@pytest.mark.parametrize("left_out", ["first.weight", "second.weight"])
def test_a_tied_weight_may_be_there_once(left_out) -> None:
    network, fresh = Tied(), Tied()
    weights = network.state_dict()
    del weights[left_out]
    fill(fresh, weights, "m.pt", "nets:Tied")
    assert torch.equal(fresh.second.weight, network.first.weight)
    del weights["first.bias"]
    assert "1 missing" in refused(Tied(), weights)[0]


def test_another_type_is_noted() -> None:
    network, fresh = trained("repvgg"), NETWORKS["repvgg"][0]()
    notes = fill(fresh, network.half().state_dict(), "m.pt", "nets:Net")
    assert notes == ("Weights of type float16 were converted to the network's float32.",)


def test_lazy_layers_take_their_shape_from_the_weights() -> None:
    network, fresh = (
        nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)),
        nn.Sequential(nn.LazyLinear(2), nn.LazyBatchNorm1d()),
    )
    fill(fresh, network.state_dict(), "m.pt", "nets:Lazy")
    assert torch.equal(fresh[0].weight, network[0].weight)


class Stateful(nn.Linear):
    """A layer with extra state, which it refuses."""

    def get_extra_state(self) -> dict[str, int]:
        return {"x": 1}

    def set_extra_state(self, state: object) -> None:
        raise ValueError(f"not this: {state}")


def test_what_the_network_itself_raises() -> None:
    with pytest.raises(InputError, match="not this"):
        fill(Stateful(1, 1), Stateful(1, 1).state_dict(), "m.pt", "nets:Stateful")
