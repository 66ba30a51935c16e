"""The one place that makes ONNX Runtime sessions, so that every number is taken under the same conditions.

Those conditions, which the reports repeat:

- The optimizer is off (`ORT_DISABLE_ALL`: the graph runs as it is written), basic (`ORT_ENABLE_BASIC`: what
  is folded and removed without regard to the machine) or at its default (`ORT_ENABLE_ALL`: what a user gets
  who sets nothing).
- Threads are counted out: `threads` within an operator, one between operators. Idle threads sleep instead of
  spinning, because the spinning threads of one session would slow the other one that is being compared.
- CUDA runs without TF32, which rounds float32 factors to 10 bits, and with cuDNN's heuristic algorithm
  search, which picks the same algorithm every time; the exhaustive search picks by a race.
- No fallback: a session that does not run on the provider that was asked for is an error.
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

# Protobuf ends at 2 GiB; names, nodes and shapes need some room beside the weights.
_IN_MEMORY_LIMIT = 3 * 2**29

_GPU_FIX = (
    'Type: pip uninstall onnxruntime, then: pip install "bnfold[gpu]". Both packages install the same '
    "module, so only one of them may be there."
)
_CUDA_LIBRARIES_FIX = (
    "A GPU with its driver and the CUDA and cuDNN libraries that onnxruntime-gpu was built for are needed. "
    'Type: pip install "onnxruntime-gpu[cuda,cudnn]"'
)


def session(
    model: ModelLike,
    *,
    provider: str = "cpu",
    optimized: bool | Optimizer,
    threads: int | None = None,
    tf32: bool = False,
    configure: Callable[[ort.SessionOptions], None] | None = None,
    disabled: Sequence[str] = (),
) -> ort.InferenceSession:
    """Make a session that runs `model` on `provider`, and on nothing else.

    Args:
        model: A path (external data is then read from beside it), a `ModelProto` or an `onnx_ir.Model`.
        provider: `"cpu"` or `"cuda"`.
        optimized: ONNX Runtime's graph optimizer: `"off"`, `"basic"` or `"default"`; False is off, and True
            is its default.
        threads: Threads within an operator; None takes every CPU that this process may use.
        tf32: Whether CUDA may round float32 factors to TF32.
        configure: Gets the options last and may change them, to find out what a session does: a profile, a
            log. No number that is compared or timed comes from such a session.
        disabled: Names of single graph optimizers that stay out, for the same end.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ProviderError: The provider is unknown or absent, or the session would run elsewhere.
        ModelError: ONNX Runtime cannot load the model.
    """
    ort = _runtime()
    chosen = _provider(ort, provider, tf32)
    options = _options(ort, optimized, threads)
    if configure is not None:
        configure(options)
    without = {"disabled_optimizers": list(disabled)} if disabled else {}
    with _loadable(model) as source:
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


def run(session: ort.InferenceSession, feeds: Feeds, names: Sequence[str] | None = None) -> list[Any]:
    """Run a session and give its outputs in order.

    Args:
        session: From [`session`][bnfold.runtime.sessions.session].
        feeds: Inputs by name.
        names: The outputs that are wanted; None gives all.

    Returns:
        Arrays for tensors, lists for sequences and dicts for maps; None for an empty optional.

    Raises:
        ModelError: The model rejects these inputs, or cannot be run at all.
    """
    with _running():
        return list(session.run(names, dict(feeds)))


def on_host(session: ort.InferenceSession, feeds: Feeds) -> Callable[[], object]:
    """A call that runs a session from NumPy arrays to NumPy arrays: on a GPU, with the copies there and back.

    Raises:
        ModelError: The model rejects these inputs, or cannot be run at all; the call itself is not guarded.
    """
    run(session, feeds)
    return partial(session.run, None, dict(feeds))


def on_device(session: ort.InferenceSession, feeds: Feeds, device: str = "cuda") -> Callable[[], object]:
    """A call that runs a session on inputs that lie on its device and leaves the outputs there.

    The call returns when the device is done. Outputs that are no numbers stay in the host's memory.

    Args:
        session: On a provider of that device.
        feeds: Inputs by name, which are copied to the device once; numbers, since nothing else can be.
        device: `"cuda"` or `"cpu"`.

    Raises:
        ModelError: The model rejects these inputs, or cannot be run at all; the call itself is not guarded.
    """
    ort = _runtime()
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
    """Tell what goes wrong while a model runs."""
    try:
        yield
    except _failures() as error:
        raise ModelError(f"ONNX Runtime could not run the model: {_one_line(error)}") from error


def _runtime() -> Any:
    try:
        return importlib.import_module("onnxruntime")
    except ImportError as error:
        raise MissingExtraError("onnxruntime", "cpu", "run models") from error


def _failures() -> tuple[type[BaseException], ...]:
    """What ONNX Runtime raises: a flat family of its own, and what its Python layer raises itself."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError, TypeError)


def _provider(ort: Any, provider: str, tf32: bool = False) -> list[str | tuple[str, dict[str, str]]]:
    """The provider list for a session, after checking that this build of ONNX Runtime has the provider."""
    if provider not in PROVIDERS:
        raise ProviderError(
            f"{provider!r} is no provider that bnfold knows.", f"Choose from: {', '.join(PROVIDERS)}."
        )
    if PROVIDERS[provider] not in ort.get_available_providers():
        raise ProviderError(
            f"The {provider} provider was asked for, and the installed ONNX Runtime does not have it "
            f"(it has {', '.join(ort.get_available_providers())}).",
            _GPU_FIX,
        )
    if provider == "cpu":
        return [PROVIDERS["cpu"]]
    if hasattr(ort, "preload_dlls"):
        # CUDA's libraries often come as wheels (torch brings them), which the loader does not search by
        # itself. preload_dlls prints what it misses; standard output belongs to the reports.
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    return [(PROVIDERS["cuda"], CUDA_OPTIONS | {"use_tf32": str(int(tf32))}), PROVIDERS["cpu"]]


def _options(ort: Any, optimized: bool | Optimizer, threads: int | None) -> Any:
    if threads is not None and threads < 1:
        raise InputError(f"{threads} threads cannot run a model.", "Give 1 or more.")
    options = ort.SessionOptions()
    optimizer = optimized if isinstance(optimized, str) else "default" if optimized else "off"
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, LEVELS[optimizer])
    options.intra_op_num_threads = threads or usable_cpus()
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    options.log_severity_level = 4  # errors arrive as exceptions; the rest is chatter on standard error
    return options


@contextlib.contextmanager
def _loadable(model: ModelLike) -> Iterator[str | bytes]:
    """A path or bytes that ONNX Runtime can load; bytes only where they hold everything."""
    if isinstance(model, (str, os.PathLike)):
        yield os.fspath(model)
        return
    graph = model if isinstance(model, ir.Model) else from_proto(model)
    constants = list(tensors(graph))
    external = any(isinstance(tensor, ir.ExternalTensor) for tensor in constants)
    if not external and sum(tensor.nbytes for tensor in constants) <= _IN_MEMORY_LIMIT:
        proto = ir.to_proto(model) if isinstance(model, ir.Model) else model
        yield proto.SerializeToString()
        return
    # ONNX Runtime has read or mapped the weights when the session is there, so the folder can go then; a
    # system that does not delete mapped files leaves it to its own cleaning of temporary files.
    with tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True) as folder:
        path = Path(folder) / "model.onnx"
        try:
            # Only initializers move into the data file; what attributes keep elsewhere is taken in first.
            ir.save(self_contained(graph), path, external_data="model.onnx.data")
        except OSError as error:
            raise ModelError(
                f"The model's external data could not be gathered: {error}",
                "Give the model by its path, and see that the temporary folder has room.",
            ) from error
        yield str(path)


def _load_error(error: BaseException, model: ModelLike, provider: str) -> ModelError | ProviderError:
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
