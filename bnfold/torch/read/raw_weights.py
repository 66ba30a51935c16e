"""The weights in a PyTorch file, without the network that they belong to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from onnx_ir.tensor_adapters import TorchTensor
from torch import nn

from bnfold.errors import ModelError
from bnfold.files.file_kind import FileKind, kind_of
from bnfold.files.load import guarded
from bnfold.options import PLAIN, Reading
from bnfold.torch.read import archived, checkpoint, load
from bnfold.torch.read.safety import archive

_READ = {
    FileKind.ZIP: archived.read,
    FileKind.OLD_TORCH: archived.read_old,
    FileKind.PICKLE: archived.read_plain,
}


@guarded
def raw_weights(path: Path) -> list[ir.TensorProtocol]:
    """Every tensor of a file by its name; of a checkpoint with several models, those of all of them.

    Raises:
        UnsafePickleError: A model in it needs classes that are not torch's own.
        ModelError: It cannot be read, or holds no model.
        MissingExtraError: A package for it is not installed.
    """
    return [
        TorchTensor(tensor.detach(), name=name)
        for name, tensor in _named(path)
        if isinstance(tensor, torch.Tensor) and not tensor.is_sparse and not tensor.is_quantized
    ]


def _named(path: Path) -> Iterator[tuple[str, Any]]:
    kind = kind_of(path)
    if kind is FileKind.ZIP:
        with path.open("rb") as stream:
            is_pickle = "data.pkl" in (names := archive.entries(stream, str(path)))
            is_pickle &= not archive.is_torchscript(names)
    if kind in (FileKind.OLD_TORCH, FileKind.PICKLE) or (kind is FileKind.ZIP and is_pickle):
        yield from _of_models(path, kind)
    elif kind is FileKind.SAFETENSORS:
        yield from load.safetensors(str(path)).items()
    elif kind is FileKind.ZIP:
        source = load.load_as(path, PLAIN).source
        yield from (source.state_dict() if isinstance(source, nn.Module) else source.state_dict).items()
    else:
        raise ModelError(f"{path} is {kind}, not a PyTorch model.")


def _of_models(path: Path, kind: FileKind) -> Iterator[tuple[str, Any]]:
    read = _READ[kind]
    with path.open("rb") as stream:
        try:
            found = [read(stream, str(path), PLAIN)[0]]
        except checkpoint.SeveralModelsError as error:
            keys = [one.key for one in error.candidates]
            found = [read(stream, str(path), replace(Reading(), key=key))[0] for key in keys]
    for one in found:
        content = one.content
        named = content.state_dict() if isinstance(content, nn.Module) else content
        start = f"{one.key}." if one.key and len(found) > 1 else ""
        if isinstance(named, Mapping):
            yield from ((f"{start}{name}", tensor) for name, tensor in named.items())
