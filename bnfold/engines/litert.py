"""LiteRT (TensorFlow Lite) on the CPU: onnx2tf writes a .tflite file, and LiteRT's interpreter runs it.

onnx2tf pins the versions of everything that it needs, so it is a program in an environment of its own, found
on the path. A file that it writes has fixed sizes here, so there is one for each set of sizes that is run.

It keeps channels last inside, and in an output where that saves a transposition, without saying where. It
also changes names. So inputs and outputs get names here that it leaves alone, inputs have to keep their
shapes, and an output of more than two dimensions ends in a Reshape to one: its elements then are in ONNX's
order, and their sizes are those that ONNX Runtime finds. LiteRT says nowhere which precision it computes in.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import os
import re
import shutil
import subprocess
import tempfile
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold.engines.base import Array, Engine, Loaded, Precision
from bnfold.engines.silence import captured
from bnfold.errors import MissingExtraError, ModelError, ProviderError
from bnfold.files.save import save_onnx
from bnfold.graph.scopes import nodes
from bnfold.runtime import sessions
from bnfold.runtime.interface import Interface, as_ir, interface
from bnfold.runtime.sessions import Feeds

Sizes = tuple[tuple[int, ...], ...]

_CONVERTER = "onnx2tf"
_INSTALL = f"Type: uv tool install --python 3.12 {_CONVERTER}"
_GIVEN = "given.onnx"
_WEIGHTS = "float32"  # onnx2tf also writes a file with float16 weights, which is not run
_SECONDS = 600.0
_FAILING = (RuntimeError, ValueError, TypeError)
_FIX = "Check what this version of onnx2tf supports, or judge the model in ONNX Runtime: leave --runtime out."
_UNRESOLVED = re.compile(r"unresolved custom op: (\S+?)\.?(?:\s|$)")
_REFUSED = re.compile(r"validation failed: op=(\S+) .*?message=(.+)")


class LiteRt(Engine):
    """Google's runtime for phones and small devices, which was TensorFlow Lite."""

    name = "litert"
    title = "LiteRT"
    distribution = "ai-edge-litert"

    def options(self, precision: Precision, threads: int) -> Mapping[str, str]:
        """What LiteRT and onnx2tf are set to, by their own names."""
        del precision
        version = _version(_converter())
        return {
            "num_threads": str(threads),
            "delegate": "XNNPACK",
            _CONVERTER: version,
            "weights": _WEIGHTS,
        }

    def demand(self) -> None:
        """Make sure that both are installed.

        Raises:
            MissingExtraError: LiteRT is not.
            ProviderError: onnx2tf is not on the path.
        """
        _module()
        _converter()

    def convert(self, model: Path, folder: Path) -> Path:
        """Copy the file, and convert it if its sizes are fixed; otherwise that waits for the inputs."""
        given = as_ir(model)
        save_onnx(given, folder / _GIVEN, exclusive=True)
        shapes = [port.shape for port in interface(given).inputs]
        sizes = tuple(_fixed(shape) for shape in shapes)
        if None not in sizes:
            _converted(folder, tuple(size for size in sizes if size is not None))
        return folder / _GIVEN

    def load(self, model: Path, ports: Interface, *, threads: int, precision: Precision) -> Loaded:
        """Take over what `convert` made; the interpreters are made when they are run."""
        del precision
        return _Interpreters(model.parent, ports, threads)


class _Interpreters(Loaded):
    """A model's interpreters, one for each set of sizes."""

    precision = None

    def __init__(self, made: Path, ports: Interface, threads: int) -> None:
        folder = tempfile.TemporaryDirectory(prefix="bnfold-", ignore_cleanup_errors=True)
        weakref.finalize(self, folder.cleanup)
        self._shared, self._folder = made, Path(folder.name)
        shutil.copytree(made, self._folder, dirs_exist_ok=True)
        self._ports, self._threads = ports, threads
        self._interpreters: dict[Sizes, _Interpreter] = {}

    def run(self, feeds: Feeds) -> list[Array]:
        one = self._of(feeds)
        with captured() as said:
            try:
                made = one.computed(feeds)
            except _FAILING as error:
                raise _not_run(error, said(), self._folder) from error
        return self._shaped(made, feeds)

    def caller(self, feeds: Feeds) -> Callable[[], object]:
        self.run(feeds)
        return partial(self._of(feeds).computed, feeds)

    def _of(self, feeds: Feeds) -> _Interpreter:
        """The interpreter for the sizes of these inputs.

        Raises:
            ModelError: There is none, or LiteRT does not load it.
        """
        sizes = tuple(feeds[port.name].shape for port in self._ports.inputs)
        if sizes not in self._interpreters:
            for port, size in zip(self._ports.inputs, sizes, strict=True):
                if 0 in size:
                    raise ModelError(f"LiteRT takes no {port.name!r} of the shape {list(size)}.", _FIX)
            path = self._flatbuffer(sizes)
            with captured() as said:
                try:
                    self._interpreters[sizes] = _Interpreter(path, self._ports, self._threads)
                except _FAILING as error:
                    raise _not_run(error, said(), self._folder) from error
        return self._interpreters[sizes]

    def _flatbuffer(self, sizes: Sizes) -> Path:
        """The file for these sizes; where the conversion is shared, so is the file."""
        shared, own = _place(self._shared, sizes), _place(self._folder, sizes)
        if shared.is_file():
            return shared
        if not own.is_file():
            _converted(self._folder, sizes)
            if self._shared.is_dir():
                shutil.copyfile(own, shared)
        return own

    def _shaped(self, made: Sequence[Array], feeds: Feeds) -> list[Array]:
        """Outputs in the model's shapes.

        Raises:
            ModelError: One has another number of elements or of dimensions.
        """
        ports = self._ports.outputs
        flat = [_is_flat(None if port.shape is None else len(port.shape)) for port in ports]
        expected = sessions.run(self._session, feeds) if any(flat) else made
        found = []
        for port, array, other, one in zip(ports, made, expected, flat, strict=True):
            shape = np.shape(other) if one else () if port.shape == () else array.shape
            if array.size != np.prod(shape, dtype=int) or (not one and len(shape) != len(port.shape or ())):
                raise ModelError(
                    f"LiteRT gives an array of the shape {list(array.shape)} for the output {port.name!r}, "
                    f"which has the shape {list(np.shape(other)) if one else port.shape}.",
                    _FIX,
                )
            found.append(array.reshape(shape))
        return found

    @cached_property
    def _session(self) -> Any:
        return sessions.session(self._folder / _GIVEN, optimized="off", threads=self._threads)


class _Interpreter:
    """A file that LiteRT has loaded.

    Args:
        path: The file.
        ports: The inputs and outputs of the ONNX model.
        threads: Threads to compute with.

    Raises:
        ModelError: The file has other inputs or outputs.
        RuntimeError: LiteRT does not load it.
    """

    def __init__(self, path: Path, ports: Interface, threads: int) -> None:
        self._made = _module().Interpreter(model_path=str(path), num_threads=threads)
        self._made.allocate_tensors()
        given = {one["name"]: one for one in self._made.get_input_details()}
        gives = {one["name"]: one for one in self._made.get_output_details()}
        inputs = {_named("input", n): port.name for n, port in enumerate(ports.inputs)}
        outputs = [_named("output", n) for n in range(len(ports.outputs))]
        # an input that no node reads may not have survived
        if not given.keys() <= inputs.keys() or gives.keys() != set(outputs):
            raise ModelError(
                f"onnx2tf wrote a file with the inputs {sorted(given)} and the outputs {sorted(gives)}, and "
                f"{len(inputs)} inputs and {len(outputs)} outputs of other names were expected.",
                _FIX,
            )
        self._inputs = [(inputs[name], one) for name, one in given.items()]
        self._outputs = [gives[name]["index"] for name in outputs]

    def computed(self, feeds: Feeds) -> list[Array]:
        for name, one in self._inputs:
            self._made.set_tensor(one["index"], _narrowed(name, feeds[name], one["dtype"]))
        self._made.invoke()
        return [self._made.get_tensor(index) for index in self._outputs]


def _fixed(shape: Sequence[int | str | None] | None) -> tuple[int, ...] | None:
    """Sizes of which none is open or 0; None for others."""
    sizes = tuple(size for size in shape or () if isinstance(size, int) and size)
    return None if shape is None or len(sizes) < len(shape) else sizes


def _named(kind: str, number: int) -> str:
    return f"bnfold_{kind}_{number}"


def _is_flat(rank: int | None) -> bool:
    """Whether an output of this rank is handed over in one dimension: up to two, all layouts are the same."""
    return rank is None or rank > 2


def _place(folder: Path, sizes: Sizes) -> Path:
    return folder / f"{hashlib.sha256(repr(sizes).encode()).hexdigest()[:16]}.tflite"


def _converted(folder: Path, sizes: Sizes) -> None:
    """Convert the model of a folder for these sizes of its inputs.

    Raises:
        ModelError: onnx2tf does not.
        SaveError: There is no room for its files.
    """
    program = _converter()
    with tempfile.TemporaryDirectory(dir=folder, ignore_cleanup_errors=True) as place:
        source = Path(place) / "model.onnx"
        names = _prepare(folder / _GIVEN, source, sizes)
        keep = ("-kat", *names) if names else ()
        command = [str(program), "-i", source.name, "-o", "made", "-n", "-v", "error", *keep]
        try:
            done = subprocess.run(
                command, capture_output=True, timeout=_SECONDS, cwd=place, env=_environment(program)
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise ModelError(f"onnx2tf does not run: {error}", _FIX) from error
        made = Path(place) / "made" / f"model_{_WEIGHTS}.tflite"
        if done.returncode or not made.is_file():
            raise _not_converted((done.stdout + done.stderr).decode(errors="replace"))
        made.replace(_place(folder, sizes))


def _prepare(given: Path, target: Path, sizes: Sizes) -> list[str]:
    """Write the model with fixed sizes, and with inputs and outputs that onnx2tf leaves as they are.

    Returns:
        The new names of the inputs.

    Raises:
        ModelError: A name in the model is one of these already.
    """
    model = as_ir(given)
    graph = model.graph
    for value in (*graph.inputs, *(value for node in nodes(model) for value in node.outputs)):
        if (value.name or "").startswith("bnfold_"):
            raise ModelError(f"The name {value.name!r} is one that is given to onnx2tf.", "Rename the value.")
        if value.shape is not None and not value.shape.is_static():
            value.shape = None  # it was inferred for open sizes
    needed = [value for value in graph.inputs if value.name not in graph.initializers]
    graph.inputs[:] = needed  # others may be overridden, which nobody does here
    for number, (value, size) in enumerate(zip(needed, sizes, strict=True)):
        value.name, value.shape = _named("input", number), ir.Shape(size)
    ranks = [None if port.shape is None else len(port.shape) for port in interface(as_ir(given)).outputs]
    one = ir.tensor(np.array([-1], np.int64), name="bnfold_flat")
    flat = ir.Value(name=one.name, const_value=one, type=ir.TensorType(one.dtype), shape=ir.Shape([1]))
    graph.register_initializer(flat)
    for number, (value, rank) in enumerate(zip(tuple(graph.outputs), ranks, strict=True)):
        kind, inputs = ("Reshape", [value, flat]) if _is_flat(rank) else ("Identity", [value])
        node = ir.node(kind, inputs)
        made = node.outputs[0]
        made.name, made.type = _named("output", number), value.type
        made.shape = ir.Shape([None] * (1 if _is_flat(rank) else rank or 0))
        graph.append(node)
        graph.outputs[number] = made
    save_onnx(model, target, exclusive=True)
    return [_named("input", number) for number in range(len(needed))]


def _narrowed(name: str, array: Array, taken: type[np.generic]) -> Array:
    """An input in the type that LiteRT takes.

    Raises:
        ModelError: That does not hold its numbers.
    """
    made = np.ascontiguousarray(array.astype(taken, copy=False))
    if array.dtype.kind in "iub" and not np.array_equal(made, array):
        raise ModelError(f"The input {name!r} has a number that LiteRT's {made.dtype} does not hold.", _FIX)
    return made


def _module() -> Any:
    """The module with LiteRT's interpreter.

    Raises:
        MissingExtraError: It is not installed.
    """
    try:
        return importlib.import_module("ai_edge_litert.interpreter")
    except ImportError as error:
        raise MissingExtraError("ai_edge_litert", "litert", "run models in LiteRT") from error


def _converter() -> Path:
    """The program onnx2tf.

    Raises:
        ProviderError: It is not on the path.
    """
    if found := shutil.which(_CONVERTER):
        return Path(found).absolute()
    raise ProviderError("onnx2tf is needed to convert models for LiteRT, and is not on the path.", _INSTALL)


@functools.cache
def _version(program: Path) -> str:
    """What onnx2tf calls its version."""
    done = subprocess.run(
        [str(program), "-V"], capture_output=True, text=True, timeout=_SECONDS, env=_environment(program)
    )
    return done.stdout.strip().rpartition("\n")[2] or "unknown"


def _environment(program: Path) -> dict[str, str]:
    """Its environment: without this Python's, and with onnxsim, which it calls and brings, on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {**kept, "PATH": os.pathsep.join((str(program.resolve().parent), kept.get("PATH", "")))}


def _not_converted(said: str) -> ModelError:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    last = lines[-1] if lines else "it does not say why"
    if found := _REFUSED.search(last):
        return ModelError(f"onnx2tf does not convert the operator {found[1]}: {found[2][:400]}", _FIX)
    return ModelError(f"onnx2tf cannot convert the model: {last[:400]}", _FIX)


def _not_run(error: BaseException, said: str, folder: Path) -> ModelError:
    """What LiteRT says; onnx2tf makes `ONNX_ERF` of an Erf that it cannot convert, and does not say so."""
    text = f"{error}\n{said}"
    if found := _UNRESOLVED.search(text):
        written = found[1].removeprefix("ONNX_")
        known = {node.op_type.upper(): node.op_type for node in nodes(as_ir(folder / _GIVEN))}
        return ModelError(f"LiteRT does not have the operator {known.get(written, written)}.", _FIX)
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "it does not say why")
    return ModelError(f"LiteRT cannot run the model: {first[:400]}", _FIX)


ENGINE = LiteRt()
