"""What exporters lose: mended, refused by name, or said; and everything else exported as it is."""

from __future__ import annotations

import copy

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxscript")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402, N812
from torch.nn.utils import parametrizations  # noqa: E402

import bnfold  # noqa: E402
from bnfold.errors import ModelError  # noqa: E402
from bnfold.runtime import sessions  # noqa: E402
from bnfold.torch import Loaded, to_onnx  # noqa: E402
from bnfold.torch.export import refuse_lossy  # noqa: E402
from tests.torch.networks import seeded_statistics  # noqa: E402

pytest.importorskip("onnxruntime")
X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def loaded(module: nn.Module) -> Loaded:
    return Loaded(module, "module", was_training=module.training)


class Functional(nn.Module):
    """A BatchNorm whose mode is written into the forward."""

    def __init__(self, training: bool) -> None:
        super().__init__()
        self.norm, self.mode = nn.BatchNorm2d(3), training

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.norm
        return F.batch_norm(x, n.running_mean, n.running_var, n.weight, n.bias, training=self.mode)


class Native(Functional):
    """The same below torch.nn.functional."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n = self.norm
        numbers = (n.weight, n.bias, n.running_mean, n.running_var)
        return torch.ops.aten.native_batch_norm(x, *numbers, self.mode, 0.1, 1e-5)[0]


class Switching(nn.Module):
    """A module that puts a part of itself in train mode when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.norm.train()
        try:
            return self.norm(x)
        finally:
            self.norm.eval()


class Dropping(nn.Module):
    """A dropout that nobody switches off."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.dropout(x)


@pytest.mark.parametrize(
    ("module", "where"),
    [
        (nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=False)), "BatchNorm at 1 "),
        (nn.Sequential(nn.Sequential(Functional(True))), r"BatchNorm at 0\.0 "),
        (Functional(True), "BatchNorm in the model's own forward "),
        (nn.Sequential(Native(True)), "BatchNorm at 0 "),
        (nn.Sequential(Switching()), r"BatchNorm at 0\.norm "),
        (nn.Sequential(Dropping()), "dropout at 0 "),
    ],
    ids=["no-statistics", "functional", "own-forward", "native", "switching", "dropout"],
)
def test_refused_by_name_before_the_export(module: nn.Module, where: str) -> None:
    before = copy.deepcopy(module.state_dict())
    with pytest.raises(ModelError, match=where) as caught:
        to_onnx(loaded(module), (X,))
    assert caught.value.exit_code == 2
    assert caught.value.fix
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_a_program_on_batch_statistics_is_refused_by_name() -> None:
    program = torch.export.export(nn.Sequential(Functional(True)).eval(), (X,))
    with pytest.raises(ModelError, match="BatchNorm at 0 "):
        to_onnx(Loaded(program, "exported program", was_training=False), (X,))


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature")
def test_lazy_modules_that_never_ran_are_refused() -> None:
    module = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d())
    with pytest.raises(ModelError, match="never ran: 0, 1"):
        to_onnx(loaded(module), (X,))


class Frozen(nn.Module):
    """torchvision's FrozenBatchNorm2d: four buffers and arithmetic."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        for name in ("weight", "bias", "running_mean", "running_var"):
            self.register_buffer(name, torch.rand(channels) + 0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight, bias, mean, variance = (
            value.reshape(1, -1, 1, 1)
            for value in (self.weight, self.bias, self.running_mean, self.running_var)
        )
        scale = weight * (variance + 1e-5).rsqrt()
        return x * scale + (bias - mean * scale)


class Activating(nn.BatchNorm2d):
    """A BatchNorm that is an activation, too."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.leaky_relu(super().forward(x), 0.1)


def doubled(module: nn.Module, inputs: object, output: torch.Tensor) -> torch.Tensor:
    del module, inputs
    return 2 * output


def halved(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
    del module
    return tuple(x / 2 for x in inputs)


class Museum(nn.Module):
    """One of everything that an exporter could get wrong, in a row; 13 BatchNorms run, by any name."""

    def __init__(self) -> None:
        super().__init__()
        self.sync = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.SyncBatchNorm(4))
        self.frozen = nn.Sequential(nn.Conv2d(4, 4, 1), Frozen(4))
        self.activating = nn.Sequential(nn.Conv2d(4, 4, 1, bias=False), Activating(4))
        self.instance = nn.Sequential(
            nn.Conv2d(4, 4, 1), nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
        )
        self.plain_instance = nn.Sequential(
            nn.Conv2d(4, 4, 1), nn.InstanceNorm2d(4, track_running_stats=True)
        )
        self.weight_norm = nn.Sequential(parametrizations.weight_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4))
        self.spectral = nn.Sequential(parametrizations.spectral_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4))
        self.old_spectral = nn.Sequential(nn.utils.spectral_norm(nn.Conv2d(4, 4, 1)), nn.BatchNorm2d(4))
        self.hooked = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.hooked[0].register_forward_pre_hook(halved)
        self.hooked[1].register_forward_hook(doubled)
        self.twice = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.tied = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4))
        self.tied[0].weight = self.twice[0].weight
        self.shared, self.one_path = nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for part in (self.sync, self.frozen, self.activating, self.instance, self.plain_instance):
            x = part(x)
        for part in (self.weight_norm, self.spectral, self.old_spectral, self.hooked, self.twice):
            x = part(x)
        x = self.tied(self.twice(x))
        return self.one_path(self.shared(x)) - self.shared(F.relu(x))


@pytest.fixture(scope="module")
def museum() -> nn.Module:
    torch.manual_seed(0)
    module = seeded_statistics(Museum(), 0).eval()
    for part in (module.instance[1], module.plain_instance[1]):
        part.running_mean.normal_()
        part.running_var.uniform_(0.5, 2)
    return module


def test_one_of_everything(museum: nn.Module) -> None:
    with torch.no_grad():
        expected = museum(X)
    notes: list[str] = []
    model = to_onnx(loaded(museum), (X,), note=notes.append)
    assert notes == []
    with torch.no_grad():
        assert torch.equal(museum(X), expected)  # nothing was left in the module
    result = bnfold.fold(model)
    assert [site.name for site in result.sites if site.status == "kept"] == []
    assert len(result.sites) == 13
    named = {site.name for site in result.sites}
    assert {"sync.1", "instance.1", "plain_instance.1", "twice.1", "tied.1", "one_path"} <= named
    session = sessions.session(result.model, optimized="off")
    (actual,) = sessions.run(session, {session.get_inputs()[0].name: X.numpy()})
    torch.testing.assert_close(torch.from_numpy(actual), expected, rtol=1e-3, atol=1e-4)


def test_instance_norms_are_batch_norms_within_the_block_alone(museum: nn.Module) -> None:
    before = museum.instance(X[:, :1].expand(-1, 4, -1, -1))
    with refuse_lossy.instance_norms_as_batch_norms(museum):
        assert torch.allclose(museum.instance(X[:, :1].expand(-1, 4, -1, -1)), before, atol=1e-5)
        assert "_apply_instance_norm" in vars(museum.instance[1])
        assert "_apply_instance_norm" not in vars(nn.InstanceNorm2d(4))
    assert "_apply_instance_norm" not in vars(museum.instance[1])


def test_an_instance_norm_takes_its_input_without_a_batch_as_before() -> None:
    module = seeded_statistics(nn.InstanceNorm1d(3, track_running_stats=True), 0).eval()
    module.running_var.uniform_(0.5, 2)
    x = torch.randn(3, 5)
    expected = module(x)
    with refuse_lossy.instance_norms_as_batch_norms(module):
        torch.testing.assert_close(module(x), expected)


def test_an_instance_norm_in_a_program_folds() -> None:
    norm = nn.InstanceNorm2d(4, affine=True, track_running_stats=True)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    program = torch.export.export(nn.Sequential(nn.Conv2d(3, 4, 1), norm).eval(), (X,))
    targets = [node.target for node in program.graph.nodes]
    result = bnfold.fold(to_onnx(Loaded(program, "exported program", was_training=False), (X,)))
    assert [node.op_type for node in result.model.graph] == ["Conv"]
    assert [node.target for node in program.graph.nodes] == targets


def test_an_instance_norm_on_the_data_stays() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.InstanceNorm2d(4)).eval()
    (site,) = bnfold.fold(to_onnx(loaded(module), (X,))).sites
    assert site.status == "kept"


def test_buffers_are_put_back() -> None:
    module = nn.BatchNorm2d(3)
    with refuse_lossy.untouched(module):
        module(X)
        assert module.num_batches_tracked == 1
    assert module.num_batches_tracked == 0
    assert not module.running_mean.any()


def test_statistics_that_nothing_updated_are_said() -> None:
    module = nn.Sequential(*(nn.BatchNorm2d(3) for _ in range(5)))
    module[4].running_mean.fill_(0.1)
    note = refuse_lossy.untrained(module.state_dict())
    assert note is not None
    assert ": 0, 1, 2 and 1 more." in note
    assert refuse_lossy.untrained(nn.Sequential(module[4]).state_dict()) is None
    own = refuse_lossy.untrained(nn.BatchNorm2d(3).state_dict())
    assert own is not None
    assert "the model itself" in own


class Standardised(nn.Conv2d):
    """Normalises its weights by a BatchNorm, as timm's StdConv2d does."""

    def __init__(self, how: str) -> None:
        super().__init__(3, 4, 3)
        self.how = how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        flat = self.weight.reshape(1, self.out_channels, -1)
        if self.how == "depends on the data":
            flat = flat * x.mean()
        elif self.how == "changed in place by the data":
            flat = flat.clone()
            flat.add_(x.mean())
        elif self.how == "set by the data":
            flat = flat.clone()
            flat[:, 0] = x.mean()
        elif self.how == "set through a view":
            flat = flat.clone()
            flat[:, 1:2].copy_(x.mean().expand(1, 1, flat.shape[-1]))
        elif self.how == "scaled":
            flat = 2 * flat.double()
        if self.how == "native":
            normed = torch.ops.aten.native_batch_norm(flat, None, None, None, None, True, 0.0, 1e-6)[0]
        else:
            normed = F.batch_norm(flat, None, None, training=True, momentum=0.0, eps=1e-6)
        return F.conv2d(x, normed.to(x.dtype).reshape(self.weight.shape), self.bias)


@pytest.mark.parametrize("how", ["plain", "native", "scaled"])
@pytest.mark.parametrize("form", ["module", "program"])
def test_a_batch_norm_of_weights_is_a_constant(how, form) -> None:
    torch.manual_seed(5)
    module = nn.Sequential(Standardised(how), nn.BatchNorm2d(4)).eval()
    seeded_statistics(module, 0)
    if form == "program":
        source = Loaded(torch.export.export(module, (X,)), "exported program", was_training=False)
    else:
        source = loaded(module)
    model = to_onnx(source, (X,))
    folded = bnfold.fold(model)
    assert [site.status for site in folded.sites] == ["folded"]
    with torch.no_grad():
        wanted = module(X).numpy()
    session = sessions.session(folded.model, optimized="off")
    (found,) = sessions.run(session, {session.get_inputs()[0].name: X.numpy()})
    assert abs(found - wanted).max() < 1e-5


@pytest.mark.parametrize(
    "how", ["depends on the data", "changed in place by the data", "set by the data", "set through a view"]
)
@pytest.mark.parametrize("form", ["module", "program"])
def test_a_batch_norm_of_weights_that_the_data_changes_is_refused(how, form) -> None:
    module = nn.Sequential(Standardised(how), nn.ReLU()).eval()
    if form == "program":
        source = Loaded(torch.export.export(module, (X,)), "exported program", was_training=False)
    else:
        source = loaded(module)
    with pytest.raises(ModelError, match="statistics of the batch"):
        to_onnx(source, (X,))
