"""The one place that makes ONNX Runtime sessions, so that all numbers are measured under the same conditions.

These are the conditions, which the reports repeat:

- The optimizer is off (`ORT_DISABLE_ALL`: the graph runs as it is written), basic (`ORT_ENABLE_BASIC`: the
  simplifications that do not depend on the machine) or at its default (`ORT_ENABLE_ALL`: what users get who
  set nothing).
- The number of threads is fixed: `threads` within an operator, one between operators. Idle threads sleep
  instead of spinning, because spinning threads would slow down the other session in a comparison.
- CUDA runs without TF32, which rounds float32 factors to 10 bits, and with cuDNN's heuristic algorithm
  search, which picks the same algorithm every time; other settings have names in
  [`providers`][bnfold.runtime.providers].
- There is no fallback: a session that does not run on the requested provider is an error.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import onnx
import onnx_ir as ir

from bnfold.errors import InputError, ModelError, ProviderError, SaveError
from bnfold.files.external_data import tensors
from bnfold.files.load import from_proto
from bnfold.files.other_types import to_proto
from bnfold.files.save import save_onnx
from bnfold.runtime import bounded_run
from bnfold.runtime.providers import device, full_name, how_to_start, import_runtime, provider_list

if TYPE_CHECKING:
    import onnxruntime as ort

ModelLike: TypeAlias = str | os.PathLike[str] | onnx.ModelProto | ir.Model
Feeds: TypeAlias = Mapping[str, np.ndarray[Any, Any]]
Optimizer: TypeAlias = Literal["off", "basic", "default"]

LEVELS = {"off": "ORT_DISABLE_ALL", "basic": "ORT_ENABLE_BASIC", "default": "ORT_ENABLE_ALL"}

_WITHOUT_ARRAYS = re.compile(r"\bbfloat16\b|\bu?int[24]\b|\bfloat4e2m1\b")
_IN_MEMORY_LIMIT = 2**26  # bytes of weights


def session(
    model: ModelLike | bytes,
    *,
    provider: str = "cpu",
    optimized: Optimizer,
    threads: int | None = None,
    provider_options: str = "bnfold",
    configure: Callable[[ort.SessionOptions], None] | None = None,
    disabled: Sequence[str] = (),
) -> ort.InferenceSession:
    """Make a session that runs `model` on `provider`, and on nothing else.

    Args:
        model: A path (external data is read from its folder), a `ModelProto`, an `onnx_ir.Model`, or what
            [`loadable`][bnfold.runtime.sessions.loadable] made of one, so that it is written once for several
            sessions.
        provider: A short name, such as `"cpu"` or `"cuda"` ([`providers`][bnfold.runtime.providers]).
        optimized: ONNX Runtime's graph optimizer: `"off"`, `"basic"` or `"default"`.
        threads: Threads within an operator; None takes every CPU that this process may use.
        provider_options: The name of what the provider is set to.
        configure: Called with the options at the end, and may change them to find out what a session does,
            for example by a profile or a log, or what it holds in memory. Such a session is never timed.
        disabled: Names of single graph optimizers to leave out, also to find out what a session does.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        ProviderError: The provider is unknown or absent, or the session would run on another one.
        InputError: The provider has no such options.
        ModelError: ONNX Runtime cannot load the model.
    """
    ort = import_runtime()
    chosen = provider_list(ort, provider, provider_options, threads)
    options = session_options(ort, optimized, threads)
    if configure is not None:
        configure(options)
    without = {"disabled_optimizers": list(disabled)} if disabled else {}
    with loadable(model) as source:
        make = partial(ort.InferenceSession, source, options, providers=chosen, enable_fallback=0, **without)
        try:
            made = bounded_run.run(make, in_memory=provider == "cpu")
        except _failures() as error:
            raise _load_error(error, model, provider) from error
    made.disable_fallback()
    if full_name(ort, provider) not in made.get_providers():
        raise ProviderError(
            f"The {provider} provider could not be started: ONNX Runtime would silently run on "
            f"{', '.join(made.get_providers())} instead.",
            how_to_start(provider),
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


def demand_arrays(session: ort.InferenceSession) -> None:
    """Make sure that ONNX Runtime returns all outputs of a session, which it does not for every type.

    Raises:
        ModelError: An output holds numbers for which NumPy has no type.
    """
    for output in session.get_outputs():
        if found := _WITHOUT_ARRAYS.search(output.type):
            raise ModelError(
                f"ONNX Runtime computes the output {output.name!r}, but returns no {found[0]} to Python.",
                "Let the model end in a Cast to float32.",
            )


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
    in_memory = session.get_providers() == ["CPUExecutionProvider"]
    with _running():
        return list(bounded_run.run(partial(session.run, names, dict(feeds)), in_memory=in_memory))


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

    It returns when the device is done. Inputs and outputs stay where they are from run to run, which a
    captured graph needs. Outputs other than numbers stay in the host's memory.

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
        types = {output.name: output.type for output in session.get_outputs()}
        numbers = {
            name for name, kind in types.items() if kind.startswith("tensor(") and kind != "tensor(string)"
        }
        for name in types:
            binding.bind_output(name, device if name in numbers else "cpu")
        binding.synchronize_inputs()
        call()
        for name, value in zip(types, binding.get_outputs(), strict=True):
            if name in numbers:
                binding.bind_ortvalue_output(name, value)
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


def _failures() -> tuple[type[BaseException], ...]:
    """What ONNX Runtime raises: its own exceptions, which share no base, and those of its Python layer."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = (kind for kind in vars(state).values() if isinstance(kind, type) and issubclass(kind, Exception))
    return (*own, RuntimeError, ValueError, TypeError, bounded_run.TooLongError)


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


class Written:
    """A model in a form that ONNX Runtime can load, written once for all of its sessions.

    Attributes:
        model: The model.
    """

    def __init__(self, model: ModelLike) -> None:
        self.model = model
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    @cached_property
    def source(self) -> str | bytes:
        """A path; or bytes, if all weights are in them.

        Weights of some size are in a file of their own, which ONNX Runtime maps into memory: from bytes, it
        needs two to three times their size. A session has mapped them once it exists, so the file is deleted
        with this object.

        Raises:
            ModelError: The model cannot be written.
        """
        if isinstance(self.model, (str, os.PathLike)):
            return os.fspath(self.model)
        graph = self.model if isinstance(self.model, ir.Model) else from_proto(self.model)
        constants = list(tensors(graph))
        external = any(isinstance(tensor, ir.ExternalTensor) for tensor in constants)
        if not external and sum(tensor.nbytes for tensor in constants) <= _IN_MEMORY_LIMIT:
            proto = to_proto(self.model) if isinstance(self.model, ir.Model) else self.model
            return bytes(proto.SerializeToString())
        # Where a system cannot delete mapped files, it cleans up its temporary files later.
        self._folder = tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / "model.onnx"
        try:
            save_onnx(graph, path, external_data=True)
        except (OSError, SaveError) as error:
            raise ModelError(
                f"The model could not be written to a temporary file for ONNX Runtime: {error}",
                "Give a model with external data by its path, and check that the temporary folder has room.",
            ) from error
        return str(path)

    def close(self) -> None:
        """Delete what was written."""
        if self._folder is not None:
            self._folder.cleanup()


@contextlib.contextmanager
def loadable(model: ModelLike | bytes) -> Iterator[str | bytes]:
    """A path or bytes that ONNX Runtime can load, for as long as the context lasts."""
    if isinstance(model, bytes):
        yield model
        return
    written = Written(model)
    try:
        yield written.source
    finally:
        written.close()


@contextlib.contextmanager
def on_disk(model: ModelLike | bytes) -> Iterator[Path]:
    """A file with the model, so that every session begins by reading the same kind of file.

    Raises:
        ModelError: It could not be written.
    """
    with loadable(model) as source:
        if isinstance(source, str):
            yield Path(source)
            return
        with tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True) as folder:
            path = Path(folder) / "model.onnx"
            try:
                path.write_bytes(source)
            except OSError as error:
                raise ModelError(
                    f"The model could not be written to a temporary file: {error}",
                    "Check that the temporary folder has room.",
                ) from error
            yield path


def _load_error(error: BaseException, model: ModelLike | bytes, provider: str) -> ModelError | ProviderError:
    line = _one_line(error)
    if "CUDA Graph" in line:
        return ProviderError(f"CUDA cannot capture the model as a graph: {line}", "Choose other options.")
    if device(provider) == "cuda" and re.search(r"CUDA|cuDNN|cuBLAS", line, re.IGNORECASE):
        return ProviderError(f"The {provider} provider could not be started: {line}", how_to_start(provider))
    name = os.fspath(model) if isinstance(model, (str, os.PathLike)) else "the model"
    return ModelError(
        f"ONNX Runtime cannot load {name}: {line}",
        "Check that the file is a valid ONNX model and that this ONNX Runtime has its operators.",
    )


def _one_line(error: BaseException) -> str:
    """The error's first line, without ONNX Runtime's error number and the places in its sources."""
    line = str(error).strip().split("\n", 1)[0]
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", line)
    # a provider's own message comes after a page of places in C++ with their signatures
    line = re.sub(r"/onnxruntime/\S+:\d+ .*\[[\w-]+-EP\] ", "", line)
    line = re.sub(r"/\S+\.(?:h|cc|cpp|cu):\d+ ", "", line)
    return line if len(line) <= 400 else f"{line[:400]} …"
