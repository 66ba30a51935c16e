"""ONNX Runtime's execution providers: how they are called, what they are set to, and how to get them.

A provider's short name is ONNX Runtime's own in lower case without its ending: `CUDAExecutionProvider` is
`cuda`, `DmlExecutionProvider` is `dml`. So every provider of an installation has one, known here or not.

What a provider is set to has a name too. Under [`OPTIONS`][bnfold.runtime.providers.OPTIONS], `"bnfold"` is
what everything is compared and timed with if nothing else is asked for: as precise as the model's types and
the same every time. `"defaults"` leaves everything to the provider; for CUDA that is TF32, which rounds
float32 factors to 10 bits, and the exhaustive search for convolutions, which picks the fastest by measured
time (https://onnxruntime.ai/docs/execution-providers/CUDA-ExecutionProvider.html#configuration-options).
"""

from __future__ import annotations

import contextlib
import difflib
import importlib
import sys
from collections.abc import Iterable, Mapping
from typing import Any

from bnfold.errors import InputError, MissingExtraError, ProviderError, listed

_ENDING = "executionprovider"
_OTHER_NAMES = {"directml": "dml"}

_MEANT = {
    "amd": "migraphx",
    "apple": "coreml",
    "directx": "dml",
    "gpu": "cuda",
    "intel": "openvino",
    "nvidia": "cuda",
    "trt": "tensorrt",
    "windows": "dml",
}
"""Which provider is meant by what people call it, or by who made the device."""

_EXACT = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}

OPTIONS: Mapping[str, Mapping[str, Mapping[str, str]]] = {
    # openvino: the model's own types on every device, where a GPU's default is float16
    "bnfold": {"cuda": _EXACT, "openvino": {"precision": "ACCURACY"}},
    "defaults": {},
    "tf32": {"cuda": _EXACT | {"use_tf32": "1"}},
    "exhaustive": {"cuda": _EXACT | {"cudnn_conv_algo_search": "EXHAUSTIVE"}},
    "graph": {"cuda": _EXACT | {"enable_cuda_graph": "1"}},
}
"""What each provider is set to, by the name of the set. The first two exist for every provider."""

FIXED_ADDRESSES = "graph"
"""The set of options that replays what was captured on fixed addresses: only with inputs on the device."""

_THREADS = {"openvino": "num_of_threads", "xnnpack": "intra_op_num_threads"}
"""The options of providers with threads of their own, which do not use the session's."""

_DEVICES = {"cuda": "cuda", "tensorrt": "cuda", "nvtensorrtrtx": "cuda"}
_BEHIND = {"tensorrt": "cuda", "nvtensorrtrtx": "cuda"}

_PACKAGES = {
    "cann": "onnxruntime-cann",
    "cuda": '"bnfold[gpu]"',
    "dml": "onnxruntime-directml",
    "migraphx": "onnxruntime-migraphx",
    "openvino": "onnxruntime-openvino",
    "rocm": "onnxruntime-rocm",
    "tensorrt": '"bnfold[gpu]"',
}
"""The packages that bring a provider; each contains the module onnxruntime."""

_PAGE = "https://onnxruntime.ai/docs/execution-providers/"


def import_runtime() -> Any:
    """The module `onnxruntime`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu", "run models") from error


def short_name(name: str) -> str:
    """The short name of a provider, from whichever of its names: `cuda` of `CUDAExecutionProvider`."""
    short = name.lower().removesuffix(_ENDING)
    return _OTHER_NAMES.get(short, short)


def full_name(ort: Any, provider: str) -> str:
    """ONNX Runtime's name of a provider of this installation.

    Args:
        ort: The module.
        provider: The provider's short name.

    Raises:
        ProviderError: There is no such provider, or this installation does not have it; says what to type.
    """
    here = {short_name(full): str(full) for full in ort.get_available_providers()}
    if provider in here:
        return here[provider]
    known = {short_name(full) for full in ort.get_all_providers()} | _PACKAGES.keys() | here.keys()
    has = listed(sorted(here), len(here))
    if provider in known:
        raise ProviderError(
            f"The installed ONNX Runtime does not have the requested {provider} provider (it has {has}).",
            _how_to_get(provider, getattr(ort, "package_name", "onnxruntime")),
        )
    named = short_name(_MEANT.get(provider.lower(), provider))
    meant = [named] if named in known else []
    meant += difflib.get_close_matches(provider, sorted(known), n=1)
    hint = f"Did you mean {meant[0]}? " if meant else ""
    raise ProviderError(
        f"{provider!r} is not a provider of ONNX Runtime.", f"{hint}The installed one has: {has}."
    )


def how_to_start(provider: str) -> str:
    """What a provider that is installed may be missing."""
    if device(provider) != "cuda":
        return f"What the {provider} provider needs is on {_PAGE}"
    more = "" if provider == "cuda" else f" {provider} needs more: {_PAGE}"
    return (
        "A GPU with its driver and the CUDA and cuDNN libraries that onnxruntime-gpu was built for are "
        f'needed. Type: pip install "onnxruntime-gpu[cuda,cudnn]"{more}'
    )


def _how_to_get(provider: str, installed: str) -> str:
    if provider not in _PACKAGES:
        return f"Which builds of ONNX Runtime have it is on {_PAGE}"
    return (
        f"Type: pip uninstall {installed}, then: pip install {_PACKAGES[provider]}. Both packages install "
        "the same module, so only one of them may be installed."
    )


def device(provider: str) -> str | None:
    """Where a provider keeps inputs and outputs; None where that is the host's memory, or not known."""
    return _DEVICES.get(provider)


def options(provider: str, chosen: str = "bnfold", threads: int | None = None) -> dict[str, str]:
    """What a provider is set to.

    Args:
        provider: Its short name.
        chosen: The name of the set of options.
        threads: For providers with threads of their own; None leaves their number to the provider.

    Raises:
        InputError: There is no such set for this provider.
    """
    if chosen not in OPTIONS or (chosen not in ("bnfold", "defaults") and provider not in OPTIONS[chosen]):
        sets = (name for name in OPTIONS if name in ("bnfold", "defaults") or provider in OPTIONS[name])
        raise InputError(
            f"The {provider} provider has no set of options {chosen!r}.", f"Choose from: {', '.join(sets)}."
        )
    own = {_THREADS[provider]: str(threads)} if threads is not None and provider in _THREADS else {}
    return {**OPTIONS[chosen].get(provider, {}), **own}


def different(provider: str, sets: Iterable[str]) -> tuple[str, ...]:
    """Those of some sets of options that a provider has, without any that sets the same as one before it."""
    found: dict[tuple[tuple[str, str], ...], str] = {}
    for name in sets:
        with contextlib.suppress(InputError):
            found.setdefault(tuple(sorted(options(provider, name).items())), name)
    return tuple(found.values())


def provider_list(
    ort: Any, provider: str, chosen: str = "bnfold", threads: int | None = None
) -> list[tuple[str, dict[str, str]]]:
    """The providers of a session: the requested one, and those that take what it has no kernel for.

    Raises:
        ProviderError: This build of ONNX Runtime does not have the requested one.
        InputError: There is no such set of options for it.
    """
    first = full_name(ort, provider)
    if device(provider) == "cuda" and hasattr(ort, "preload_dlls"):
        # CUDA's libraries often come as wheels (torch brings them), which the loader does not search by
        # itself. preload_dlls prints what it does not find; standard output is for the reports.
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    made = [(first, options(provider, chosen, threads))]
    if provider in _BEHIND:
        behind = _BEHIND[provider]
        made.append((full_name(ort, behind), options(behind)))
    return made if provider == "cpu" else [*made, ("CPUExecutionProvider", {})]
