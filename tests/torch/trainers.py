"""Files of trained networks with the structure that public trainers give them, made without those packages.

Each maker writes a file into a folder, and returns its path and the network that an export of it has to
compute. Classes of a trainer's own exist only while the file is written: a reader cannot import them.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import copy
import datetime
import enum
import functools
import io
import json
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path, PosixPath
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import SWALR, AveragedModel

from tests.torch.trainer_nets import Block, Detector, Net, Quantised, WeightNormed, trained

Made = tuple[Path, nn.Module]
Maker = Callable[[Path], Made]


@contextlib.contextmanager
def foreign(**members: Any) -> Iterator[None]:
    """Modules that exist in the block only, so that what is of them cannot be imported later.

    Args:
        **members: Classes and functions by their home, dots written as `__`.
    """
    homes: dict[str, list[Any]] = {}
    for home, found in members.items():
        parts = home.split("__")
        homes |= {key: [] for key in (".".join(parts[:count]) for count in range(1, len(parts)))}
        homes[".".join(parts)] = found
    for home, found in homes.items():
        made = type(sys)(home)
        for one in found:
            one.__module__, one.__qualname__ = home, one.__qualname__.rpartition(".<locals>.")[2]
            setattr(made, one.__qualname__.partition(".")[0], one)
        sys.modules[home] = made
    try:
        yield
    finally:
        for home in homes:
            del sys.modules[home]


def optimizer_state(network: nn.Module) -> dict[str, Any]:
    """What a step of AdamW leaves behind."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3)
    network(torch.randn(2, 3, 16, 16)).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return optimizer.state_dict()


def saved(folder: Path, name: str, content: Any, network: nn.Module, **options: Any) -> Made:
    """Save `content`."""
    torch.save(content, folder / name, **options)
    return folder / name, network


def prefixed(prefix: str, weights: dict[str, Any]) -> dict[str, Any]:
    """The same weights under longer names."""
    return {prefix + name: value for name, value in weights.items()}


def other(network: nn.Module) -> dict[str, Any]:
    """Weights of the same network at another time."""
    return {name: value + 1 for name, value in network.state_dict().items()}


# checkpoints of weights


def timm(folder: Path) -> Made:
    network = trained()
    args = argparse.Namespace(model="resnet18", lr=0.1, decay_epochs=[30, 60], mean=(0.5, 0.5), resume="")
    content = {
        "epoch": 299,
        "arch": "resnet18",
        "state_dict": other(network),
        "version": 2,
        "args": args,
        "optimizer": optimizer_state(trained()),
        "amp_scaler": {"scale": 65536.0, "growth_factor": 2.0},
        "state_dict_ema": network.state_dict(),
        "metric": np.float64(76.1),
    }
    return saved(folder, "model_best.pth.tar", content, network)


def mmengine(folder: Path) -> Made:
    class HistoryBuffer:
        def __init__(self) -> None:
            self._max_length = 1000000
            self._log_history = np.arange(4.0)
            self._count_history = np.ones(4, dtype=np.int64)
            self.statistics_methods = {"mean": HistoryBuffer.mean, "min": HistoryBuffer.least}

        def mean(self) -> float:
            return float(self._log_history.mean())

        def least(self) -> float:
            return float(self._log_history.min())

    network = trained()
    with foreign(mmengine__logging__history_buffer=[HistoryBuffer]):
        for method in (HistoryBuffer.mean, HistoryBuffer.least):
            method.__module__ = HistoryBuffer.__module__
            method.__qualname__ = f"HistoryBuffer.{method.__name__}"
        scalars = collections.OrderedDict({"train/lr": HistoryBuffer(), "train/loss": HistoryBuffer()})
        content = {
            "meta": {
                "epoch": 12,
                "iter": 87960,
                "cfg": "model = dict(type='ImageClassifier')\n",
                "seed": 7,
                "mmengine_version": "0.10.4",
                "time": "20240501_123000",
                "experiment_name": "r18",
                "dataset_meta": {"classes": ("cat", "dog"), "palette": [(220, 20, 60), (119, 11, 32)]},
            },
            "state_dict": network.state_dict(),
            "message_hub": {
                "log_scalars": scalars,
                "resumed_keys": collections.OrderedDict({"train/lr": True}),
                "runtime_info": collections.OrderedDict(
                    {"iter": 87960, "loop_stage": "train", "n": np.int64(3)}
                ),
            },
            "optimizer": optimizer_state(trained()),
            "param_schedulers": [{"last_step": 12, "_last_value": [np.float64(1e-4)], "verbose": False}],
        }
        return saved(folder, "epoch_12.pth", content, network)


def mmcv(folder: Path) -> Made:
    network = trained()
    meta = {"mmcv_version": "1.7.0", "epoch": 100, "hook_msgs": {"best_score": np.float32(76.5)}}
    meta |= {"env_info": "sys.platform: linux\n", "CLASSES": ["cat", "dog"], "iter": np.int64(8)}
    content = {"meta": meta, "state_dict": prefixed("backbone.", network.state_dict())}
    return saved(folder, "latest.pth", content, network)


def lightning(folder: Path) -> Made:
    class AttributeDict(dict[str, Any]):
        pass

    class TrainerFn(enum.StrEnum):
        FITTING = "fit"

        def __reduce_ex__(self, protocol: Any) -> Any:
            return getattr, (self.__class__, self._name_)  # as Python 3.11 does

    network = trained()
    scheduler = SWALR(torch.optim.SGD(trained().parameters(), 0.1), 0.05)
    with foreign(lightning__fabric__utilities__data=[AttributeDict], lightning__states=[TrainerFn]):
        best = {"monitor": "val_loss", "best_model_score": torch.tensor(0.1), "best_model_path": "a.ckpt"}
        hyper = {"lr": 1e-3, "act": functools.partial(nn.LeakyReLU, 0.1), "stage": TrainerFn.FITTING}
        loss = nn.CrossEntropyLoss(weight=torch.ones(5))
        content = {
            "epoch": 9,
            "global_step": 1230,
            "pytorch-lightning_version": "2.2.4",
            "state_dict": prefixed("model.", network.state_dict())
            | prefixed("criterion.", loss.state_dict()),
            "loops": {"fit_loop": {"state_dict": {}, "epoch_progress": {"total": {"ready": 10}}}},
            "callbacks": {"ModelCheckpoint{'monitor': 'val_loss'}": best, "EarlyStopping": {"wait": 0}},
            "optimizer_states": [optimizer_state(trained())],
            "lr_schedulers": [scheduler.state_dict()],
            "MixedPrecision": {"scale": 65536.0},
            "hparams_name": "kwargs",
            "hyper_parameters": AttributeDict(hyper),
        }
        return saved(folder, "epoch=9-step=1230.ckpt", content, network)


def fairseq(folder: Path) -> Made:
    network = trained()
    content = {
        "args": argparse.Namespace(arch="wav2vec", data=PosixPath("/data"), seed=1),
        "cfg": None,
        "model": network.state_dict(),
        "criterion": {},
        "task_state": {},
        "optimizer_history": [
            {"criterion_name": "CE", "lr_scheduler_state": {"best": 1.5}, "num_updates": 9}
        ],
        "extra_state": {
            "metrics": {"default": [(10, "loss", "AverageMeter", {"val": 2.0, "sum": torch.tensor(2.0)})]},
            "train_iterator": {"epoch": 2, "shuffle": True},
            "best": np.float64(1.5),
            "previous_training_time": datetime.timedelta(hours=3),
        },
        "last_optimizer_state": optimizer_state(trained()),
    }
    return saved(folder, "checkpoint_best.pt", content, network)


def averaged_weights(folder: Path) -> Made:
    averaged = AveragedModel(trained(), multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.99))
    content = {"model": other(trained()), "model_ema": averaged.state_dict(), "epoch": 3}
    return saved(folder, "checkpoint.pth", content, averaged.module)


def ema_wrapper(folder: Path) -> Made:
    network = trained()
    content = prefixed("online_model.", other(network)) | prefixed("ema_model.", network.state_dict())
    content |= {"initted": torch.tensor(True), "step": torch.tensor(1000)}
    return saved(folder, "ema.pt", content, network)


def swa(folder: Path) -> Made:
    averaged = AveragedModel(trained())
    averaged.update_parameters(trained())
    return saved(folder, "swa.pt", averaged.state_dict(), averaged.module)


def deepspeed_consolidated(folder: Path) -> Made:
    network = trained()
    weights = collections.OrderedDict(prefixed("module.", network.state_dict()))
    return saved(folder, "pytorch_model.bin", weights, network)


def deepspeed_states(folder: Path) -> Made:
    network = trained()
    shapes = collections.OrderedDict((name, one.shape) for name, one in network.named_parameters())
    content = {
        "module": network.state_dict(),
        "buffer_names": ["stem.bn.running_mean"],
        "optimizer": None,
        "param_shapes": [shapes],
        "frozen_param_shapes": None,
        "shared_params": {},
        "lr_scheduler": None,
        "ds_config": {"train_batch_size": 8, "zero_optimization": {"stage": 2}},
        "ds_version": "0.14.2",
        "global_steps": 100,
        "dp_world_size": 8,
        "csr_tensor_module_names": set(),
    }
    return saved(folder, "mp_rank_00_model_states.pt", content, network)


def compiled(folder: Path) -> Made:
    network = trained()
    return saved(folder, "compiled.pt", prefixed("_orig_mod.", network.state_dict()), network)


def distributed(folder: Path) -> Made:
    network = trained()
    content = {"net": prefixed("module.", network.state_dict()), "acc": 93.5, "epoch": 199}
    return saved(folder, "ckpt.pth", content, network)


def script_config(folder: Path) -> Made:
    class Config:
        def __init__(self) -> None:
            self.lr, self.activation = 0.1, torch.nn.functional.gelu

    network = trained()
    with foreign(trainer_main=[Config]):
        Config.__module__ = "__main__"
        sys.modules["__main__"].__dict__["Config"] = Config
        try:
            content = {"weights": network.state_dict(), "config": Config(), "rng": np.random.get_state()}
            return saved(folder, "last.pt", content, network)
        finally:
            del sys.modules["__main__"].__dict__["Config"]


def half_weights(folder: Path) -> Made:
    weights = {
        name: value.half() if value.is_floating_point() else value
        for name, value in trained().state_dict().items()
    }
    network = Net()
    network.load_state_dict(weights)
    return saved(folder, "fp16.pt", weights, network.eval())


def with_observers(folder: Path) -> Made:
    from torch.ao import quantization

    network = trained(Quantised())
    prepared = Quantised().train()
    prepared.load_state_dict(network.state_dict())
    prepared.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    quantization.prepare_qat(prepared, inplace=True)
    prepared.eval()(torch.randn(2, 3, 16, 16))
    return saved(folder, "qat.pt", prepared.state_dict(), network)


def counted(folder: Path) -> Made:
    network = trained()
    for part in network.modules():
        part.register_buffer("total_ops", torch.zeros(1, dtype=torch.float64))
        part.register_buffer("total_params", torch.zeros(1, dtype=torch.float64))
    return saved(folder, "thop.pt", {"state_dict": network.state_dict(), "epoch": 1}, network)


def normed_weights(folder: Path) -> Made:
    network = trained(WeightNormed())
    return saved(folder, "normed.pt", network.state_dict(), network)


def old_weights(folder: Path) -> Made:
    network = trained()
    content = {"state_dict": prefixed("module.", network.state_dict()), "best_prec1": torch.tensor(76.0)}
    content |= {"arch": "resnet18", "args": argparse.Namespace(lr=0.1), "epoch": np.int64(90)}
    return saved(folder, "old.pth.tar", content, network, _use_new_zipfile_serialization=False)


# safetensors


def safetensors(folder: Path) -> Made:
    from safetensors.torch import save_file

    network = trained()
    save_file(network.state_dict(), folder / "model.safetensors", metadata={"format": "pt"})
    return folder / "model.safetensors", network


def _shards(folder: Path, suffix: str) -> tuple[Path, nn.Module]:
    from safetensors.torch import save_file

    network, weights = trained(), trained().state_dict()
    names, where = list(weights), {}
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    for number, part in enumerate((names[:5], names[5:9], names[9:]), 1):
        name = f"{stem}-{number:05}-of-00003.{suffix}"
        held = {one: weights[one] for one in part}
        if suffix == "safetensors":
            save_file(held, folder / name, metadata={"format": "pt"})
        else:
            torch.save(held, folder / name)
        where |= dict.fromkeys(part, name)
    index = {"metadata": {"total_size": 4000}, "weight_map": where}
    path = folder / f"{stem}.{suffix}.index.json"
    path.write_text(json.dumps(index, indent=2, sort_keys=True) + "\n")
    config = {"architectures": ["ResNetForImageClassification"], "model_type": "resnet", "num_channels": 3}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    return path, network


def index(folder: Path) -> Made:
    return _shards(folder, "safetensors")


def shard_folder(folder: Path) -> Made:
    (folder / "resnet").mkdir()
    return folder / "resnet", _shards(folder / "resnet", "safetensors")[1]


def pickled_shards(folder: Path) -> Made:
    return _shards(folder, "bin")


# whole modules


def yolov5(folder: Path) -> Made:
    network = trained(Detector())
    half = copy.deepcopy(network).half()
    content = {
        "epoch": -1,
        "best_fitness": np.array([0.37]),
        "model": half,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "opt": {"weights": "yolov5s.pt", "imgsz": 640, "save_dir": "runs/exp"},
        "git": {"remote": "x", "commit": None},
        "date": "2024-05-01T12:30:00.000000",
    }
    return saved(folder, "best.pt", content, network)


def yolov5_unstripped(folder: Path) -> Made:
    network = trained(Detector())
    content = {
        "epoch": 17,
        "best_fitness": np.float64(0.37),
        "model": Detector().half(),
        "updates": 1234,
        "ema": copy.deepcopy(network).half(),
        "optimizer": optimizer_state(Detector()),
        "opt": {"weights": PosixPath("yolov5s.pt")},
        "date": "2024-05-01T12:30:00.000000",
    }
    return saved(folder, "last.pt", content, network)


def yolov8(folder: Path) -> Made:
    network = trained(Detector())
    half = copy.deepcopy(network)
    half.args = argparse.Namespace(task="detect", imgsz=640)
    content = {
        "epoch": -1,
        "best_fitness": None,
        "model": half.half(),
        "ema": None,
        "updates": None,
        "optimizer": None,
        "train_args": {"task": "detect", "imgsz": 640, "amp": True, "classes": None},
        "train_metrics": {"metrics/mAP50(B)": 0.5, "fitness": np.float64(0.3)},
        "version": "8.2.0",
        "train_results": {"epoch": [1, 2]},
        "date": "2024-05-01T12:30:00.000000",
        "license": "AGPL-3.0",
    }
    return saved(folder, "best.pt", content, network)


class Segmenter(nn.Module):
    """An encoder and a decoder as segmentation_models_pytorch puts them together."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"layer0": Block(3, 8), "layer1": Block(8, 8)})
        self.decoder = Block(16, 8)
        self.segmentation_head = nn.Sequential(nn.Conv2d(8, 2, 3, padding=1), nn.Identity(), nn.Identity())
        self.name, self.classification_head = "u-resnet18", None
        self.norm_layer = functools.partial(nn.BatchNorm2d, eps=1e-3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.encoder["layer0"](x)
        second = self.encoder["layer1"](nn.functional.max_pool2d(first, 2))
        second = nn.functional.interpolate(second, scale_factor=2.0, mode="nearest")
        return self.segmentation_head(self.decoder(torch.cat([first, second], 1)))


def segmentation_models(folder: Path) -> Made:
    network = trained(Segmenter())
    return saved(folder, "best_model.pth", network, network)


def averaged_module(folder: Path) -> Made:
    averaged = AveragedModel(trained())
    return saved(folder, "averaged.pt", averaged, averaged.module)


def parallel_module(folder: Path) -> Made:
    network = trained()
    return saved(folder, "parallel.pt", {"net": nn.DataParallel(network), "acc": 93.5}, network)


def old_module(folder: Path) -> Made:
    network = trained()
    return saved(folder, "old.pt", network, network, _use_new_zipfile_serialization=False)


def _elsewhere(folder: Path, device: str) -> Made:
    """A file as a network on another device writes it: the name of the device stands with each storage."""
    path, network = saved(folder, f"{device[:4]}.pt", {"model": trained(), "epoch": 3}, trained())
    written = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(written)) as old, zipfile.ZipFile(path, "w") as new:
        for name in old.namelist():
            data = old.read(name)
            if name.endswith("data.pkl"):
                assert b"X\x03\x00\x00\x00cpu" in data
                there = b"X" + len(device).to_bytes(4, "little") + device.encode()
                data = data.replace(b"X\x03\x00\x00\x00cpu", there)
            new.writestr(name, data)
    return path, network


def on_cuda(folder: Path) -> Made:
    return _elsewhere(folder, "cuda:0")


def on_mps(folder: Path) -> Made:
    return _elsewhere(folder, "mps")


# TorchScript and programs


def _scripted(folder: Path, name: str, change: Callable[[nn.Module], Any]) -> Made:
    network = trained(nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)))
    torch.jit.save(change(network), folder / name)
    return folder / name, network


def traced(folder: Path) -> Made:
    return _scripted(folder, "traced.pt", lambda one: torch.jit.trace(one, torch.randn(1, 3, 16, 16)))


def scripted(folder: Path) -> Made:
    return _scripted(folder, "scripted.pt", torch.jit.script)


def frozen(folder: Path) -> Made:
    return _scripted(folder, "frozen.pt", lambda one: torch.jit.freeze(torch.jit.script(one)))


def optimised(folder: Path) -> Made:
    """Where MKL-DNN is off: with it, torch saves the file without its weights."""
    with torch.backends.mkldnn.flags(enabled=False):
        return _scripted(folder, "optimised.pt", _optimised)


def _optimised(network: nn.Module) -> Any:
    script = torch.jit.freeze(torch.jit.script(network), optimize_numerics=False)
    torch.jit.run_frozen_optimizations(script)
    return script


def program(folder: Path) -> Made:
    network = trained()
    torch.export.save(torch.export.export(network, (torch.randn(1, 3, 16, 16),)), folder / "model.pt2")
    return folder / "model.pt2", network


MAKERS: tuple[Maker, ...] = (
    *(timm, mmengine, mmcv, lightning, fairseq, averaged_weights, ema_wrapper, swa, script_config),
    *(deepspeed_consolidated, deepspeed_states, compiled, distributed, half_weights, with_observers),
    *(counted, normed_weights, old_weights, safetensors, index, shard_folder, pickled_shards),
    *(yolov5, yolov5_unstripped, yolov8, segmentation_models, averaged_module, parallel_module, old_module),
    *(on_cuda, on_mps, traced, scripted, frozen, optimised, program),
)
"""All of them."""
