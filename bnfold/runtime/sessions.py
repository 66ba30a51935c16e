"""The one place that makes ONNX Runtime sessions, so that all numbers are measured under the same conditions.

These are the conditions, which the reports repeat:

- The optimizer is off (`ORT_DISABLE_ALL`: the graph runs as it is written), basic (`ORT_ENABLE_BASIC`: the
  simplifications that do not depend on the machine) or at its default (`ORT_ENABLE_ALL`: what users get who
  set nothing).
- The number of threads is fixed: `threads` within an operator, one between operators. Idle threads sleep
  instead of spinning, because spinning threads would slow down the other session in a comparison.
- CUDA runs without TF32, which rounds float32 factors to 10 bits, and with cuDNN's heuristic algorithm
  search, which picks the same algorithm every time; the exhaustive search picks by measured time.
- There is no fallback: a session that does not run on the requested provider is an error.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from bnfold.errors import InputError, MissingExtraError, ModelError, ProviderError
from bnfold.files.external_data import self_contained, tensors
from bnfold.files.load import from_proto

if TYPE_CHECKING:
    import onnxruntime as ort

ModelLike: TypeAlias = str | os.PathLike[str] | onnx.ModelProto | ir.Model
Feeds: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
Optimizer: TypeAlias = Literal["off", "basic", "default"]

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
LEVELS = {"off": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "default": "ORT_ENABLE_ALL"}
CUDA_OPTIONS = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}

# Protobuf ends at 2 GiB; names, nodes and shapes need some room in addition to the weights.
_IN_MEMORY_LIMIT = 3 * 2**29

_GPU_FIX = (
    'Type: pip uninstall onnxruntime, then: pip install "bnfold[gpu]". Both packages install the same '
    "module, so only one of them may be installed."
)
_CUDA_LIBRARIES_FIX = (
    "A GPU with its driver and the CUDA and cuDNN libraries that onnxruntime-gpu was built for are needed. "
    'Type: pip install "onnxruntime-gpu[cuda,cudnn]"'
)


def session(
    model: ModelLike | bytes,
    *,
    provider: str = "cpu",
    optimized: Optimizer,
    threads: int | None = None,
    tf32: bool = False,
    configure: Callable[[ort.SessionOptions], None] | None = None,
    disabled: Sequence[str] = (),
) -> ort.InferenceSession:
    """Make a session that runs `model` on `provider`, and on nothing else.

    Args:
        model: A path (external data is read from its folder), a `ModelProto`, an `onnx_ir.Model`, or what
            [`loadable`][bnfold.runtime.sessions.loadable] made of one, so that it is written once for several
            sessions.
        provider: `"cpu"` or `"cuda"`.
        optimized: ONNX Runtime's graph optimizer: `"off"`, `"basic"` or `"default"`.
        threads: Threads within an operator; None takes every CPU that this process may use.
        tf32: Whether CUDA may round float32 factors to TF32.
        configure: Called with the options at the end, and may change them to find out what a session does,
            for example by a profile or a log. Such a session is never compared or timed.
        disabled: Names of single graph optimizers to leave out, also to find out what a session does.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ProviderError: The provider is unknown or absent, or the session would run on another one.
        ModelError: ONNX Runtime cannot load the model.
    """
    ort = import_runtime()
    chosen = provider_list(ort, provider, tf32)
    options = session_options(ort, optimized, threads)
    if configure is not None:
        configure(options)
    without = {"disabled_optimizers": list(disabled)} if disabled else {}
    with loadable(model) as source:
        try:
            made = ort.InferenceSession(source, options, providers=chosen, enable_fallback=0, **without)
        except _failures() as error:
            raise _load_error(error, model, provider) from error
    made.disable_fallback()
    if PROVIDERS[provider] not in made.get_providers():
        raise ProviderError(
            f"The {provider} provider could not be started: ONNX Runtime would silently run on "
            f"{', '.join(made.get_providers())} instead.",
            _CUDA_LIBRARIES_FIX,
        )
    return made


def loads(model: ModelLike) -> bool:
    """Whether ONNX Runtime can load a model for the CPU.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        session(model, optimized="off")
    except ModelError:
        return False
    return True


def run(session: ort.InferenceSession, feeds: Feeds, names: Sequence[str] | None = None) -> list[Any]:
    """Run a session and return its outputs in order.

    Args:
        session: From [`session`][bnfold.runtime.sessions.session].
        feeds: Inputs by name.
        names: The outputs to compute; None computes all.

    Returns:
        Arrays for tensors, lists for sequences and dicts for maps; None for an empty optional.

    Raises:
        ModelError: The model rejects these inputs, or cannot be run at all.
    """
    with _running():
        return list(session.run(names, dict(feeds)))


def on_host(session: ort.InferenceSession, feeds: Feeds) -> Callable[[], object]:
    """A function that runs a session from NumPy arrays to NumPy arrays, on a GPU with the copies.

    Raises:
        ModelError: The model rejects these inputs, or cannot be run at all. The function itself raises ONNX
            Runtime's own errors.
    """
    run(session, feeds)
    return partial(session.run, None, dict(feeds))


def on_device(session: ort.InferenceSession, feeds: Feeds, device: str = "cuda") -> Callable[[], object]:
    """A function that runs a session on inputs on its device and leaves the outputs there.

    It returns when the device is done. Outputs other than numbers stay in the host's memory.

    Args:
        session: A session on a provider of that device.
        feeds: Inputs by name, which are copied to the device once; they must be numbers.
        device: `"cuda"` or `"cpu"`.

    Raises:
        ModelError: The model rejects these inputs, or cannot be run at all. The function itself raises ONNX
            Runtime's own errors.
    """
    ort = import_runtime()
    binding = session.io_binding()

    def call() -> None:
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()

    with _running():
        for name, array in feeds.items():
            binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, device, 0))
        for output in session.get_outputs():
            numbers = output.type.startswith("tensor(") and output.type != "tensor(string)"
            binding.bind_output(output.name, device if numbers else "cpu")
        binding.synchronize_inputs()
        call()
    return call


def usable_cpus() -> int:
    """The number of CPUs that this process may use, which can be fewer than the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def _running() -> Iterator[None]:
    """Raise what goes wrong while a model runs as a `ModelError`."""
    try:
        yield
    except _failures() as error:
        raise ModelError(f"ONNX Runtime could not run the model: {_one_line(error)}") from error


def import_runtime() -> Any:
    """The module `onnxruntime`.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu", "run models") from error


def _failures() -> tuple[type[BaseException], ...]:
    """What ONNX Runtime raises: its own exceptions, which share no base, and those of its Python layer."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError, TypeError)


def provider_list(ort: Any, provider: str, tf32: bool = False) -> list[str | tuple[str, dict[str, str]]]:
    """The providers of a session, after checking that this build of ONNX Runtime has the requested one."""
    if provider not in PROVIDERS:
        raise ProviderError(
            f"{provider!r} is not a provider that bnfold knows.", f"Choose from: {', '.join(PROVIDERS)}."
        )
    if PROVIDERS[provider] not in ort.get_available_providers():
        raise ProviderError(
            f"The installed ONNX Runtime does not have the requested {provider} provider "
            f"(it has {', '.join(ort.get_available_providers())}).",
            _GPU_FIX,
        )
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    if hasattr(ort, "preload_dlls"):
        # CUDA's libraries often come as wheels (torch brings them), which the loader does not search by
        # itself. preload_dlls prints what it does not find; standard output is for the reports.
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    return [(PROVIDERS["cuda"], CUDA_OPTIONS | {"use_tf32": str(int(tf32))}), PROVIDERS["cpu"]]


def session_options(ort: Any, optimized: Optimizer, threads: int | None) -> Any:
    """The options of every session.

    Raises:
        InputError: The number of threads is not positive.
    """
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads cannot run a model.", "Give 1 or more.")
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[optimized])
    options.intra_op_num_threads = threads or usable_cpus()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors are raised as exceptions; the rest would only fill standard error
    return options


@contextlib.contextmanager
def loadable(model: ModelLike | bytes) -> Iterator[str | bytes]:
    """A path or bytes that ONNX Runtime can load; bytes only if they hold all weights."""
    if isinstance(model, (str, bytes, os.PathLike)):
        yield os.fspath(model)
        return
    graph = model if isinstance(model, ir.Model) else from_proto(model)
    constants = list(tensors(graph))
    external = any(isinstance(tensor, ir.ExternalTensor) for tensor in constants)
    if not external and sum(tensor.nbytes for tensor in constants) <= _IN_MEMORY_LIMIT:
        proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
        yield proto.SerializeToString()
        return
    # ONNX Runtime has read or mapped the weights once the session exists, so the folder can then be deleted.
    # Where a system cannot delete mapped files, it cleans up its temporary files later.
    with tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.onnx"
        try:
            # Only initializers move into the data file; external data of attributes is read first.
            ir.save(self_contained(graph), path, external_data="model.onnx.data")
        except OSError as error:
            raise ModelError(
                f"The model's external data could not be read: {error}",
                "Give the model by its path, and check that the temporary folder has room.",
            ) from error
        yield str(path)


def _load_error(error: BaseException, model: ModelLike | bytes, provider: str) -> ModelError | ProviderError:
    line = _one_line(error)
    if provider == "cuda" and re.search(r"CUDA|cuDNN|cuBLAS", line, re.IGNORECASE):
        return ProviderError(f"The cuda provider could not be started: {line}", _CUDA_LIBRARIES_FIX)
    name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else "the model"
    return ModelError(
        f"ONNX Runtime cannot load {name}: {line}",
        "Check that the file is a valid ONNX model and that this ONNX Runtime has its operators.",
    )


def _one_line(error: BaseException) -> str:
    """The error's first line, without ONNX Runtime's error number and the place in its sources."""
    line = str(error).strip().split("\n", 1)[0]
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    line = re.sub(r"/\S+\.(?:h|cc|cpp|cu):\d+ ", "", line)
    return line if len(line) <= 400 else f"{line[:400]} …"
