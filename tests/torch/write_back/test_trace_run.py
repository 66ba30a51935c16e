"""The run before the export: how modules are called, which hooks stay, and what they see as outputs."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from bnfold.errors import InputError  # noqa: E402
from bnfold.torch.write_back.trace_run import expose, hooks_of, tensors, trace_run  # noqa: E402
from tests.torch.modules import hook, image, made  # noqa: E402


@pytest.fixture
def module():
    pool = nn.MaxPool2d(2, return_indices=True)
    return made(lambda m, x: m.act(m.again(m.pool(x)[0])), pool=pool, act=nn.ReLU(), again=nn.Identity())


def test_it_tells_modules_of_one_tensor(module):
    module.unused = nn.ReLU()
    module.alias = module.act
    found = trace_run(module, (image(),), {})
    plain = {path for path, _ in module.named_modules(remove_duplicate=False) if found.is_plain(path)}
    assert plain == {"", "act", "alias", "again"}, "pool gives two, and unused was not called"


def test_only_hooks_that_change_something_stay(module):
    seen = []
    module.act.register_forward_hook(hook(seen.append))
    module.again.register_forward_hook(changing := hook(lambda y: y + 1))
    module.act.register_forward_pre_hook(writing := hook(lambda inputs: inputs[0].mul_(2) and None))
    found = trace_run(module, (image(2, 3, 2, 2)[:1, :1],), {})
    assert found.hooked == {"act", "again"}
    assert len(seen) == 1
    assert list(module.act._forward_hooks.values()) == []
    assert list(module.again._forward_hooks.values()) == [changing]
    assert list(module.act._forward_pre_hooks.values()) == [writing]
    assert not any(module.pool._forward_hooks)
    assert not any(hooks_of(module.pool))


def test_what_hooks_see_comes_behind_the_output(module):
    owners = expose(module, frozenset({"act"}))
    for seed in (0, 1):  # each run starts again
        output, before, inward, outward = module(x := image(seed=seed))
        pooled = module.pool(x)[0]
        assert owners == ["act"] * 3
        assert torch.equal(output, pooled.relu())
        assert torch.equal(outward, output)
        assert torch.equal(before, pooled)
        assert torch.equal(inward, pooled)


def test_without_hooks_the_output_is_as_it_was(module):
    assert expose(module, frozenset()) == []
    assert isinstance(module(image()), torch.Tensor)


def test_a_module_that_does_not_run_is_refused():
    with pytest.raises(InputError, match="does not run in float64"):
        trace_run(nn.Linear(3, 2), (image(2, 4),), {})


def test_tensors_are_found_in_containers():
    one, two = image(1), image(2)
    assert list(tensors({"a": [one, (two, 3)], "b": None})) == [one, two]
