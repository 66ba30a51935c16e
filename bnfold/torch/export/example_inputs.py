"""The tensors that an export is traced with, of shapes that the file has or the user gives."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.export import ExportedProgram

from bnfold.errors import InputError, MissingShapeError
from bnfold.torch.export import guess_shape
from bnfold.torch.export.signature import Inputs, Signature, channels, dimensions
from bnfold.torch.read.load import Loaded

Note = Callable[[str], None]
"""Called with what the user should know, as a sentence."""


def discard(note: str) -> None:
    """Ignore the note."""
    del note


_SHAPE = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<sizes>\d+(?:x\d+)*|scalar)")
_DTYPES: dict[str, torch.dtype] = {
    name: getattr(torch, name)
    for name in (
        *("float16", "bfloat16", "float32", "float64"),
        *("int8", "int16", "int32", "int64", "uint8", "bool"),
    )
}
_LARGEST = 1 << 28  # elements
_PLACES = {1: "<length>", 2: "<height>x<width>", 3: "<depth>x<height>x<width>"}


@dataclass(frozen=True)
class InputSpec:
    """One input as the user gave it.

    Attributes:
        name: The parameter of `forward`; None for the next one in order.
        shape: Its sizes; `()` for a scalar.
        dtype: Name of its type, as `"int64"`; None for the type of the model's own weights.
    """

    name: str | None
    shape: tuple[int, ...]
    dtype: str | None = None


def parse_shapes(texts: Sequence[str], *, dtype: str | None = None) -> tuple[InputSpec, ...]:
    """Read `--input-shape` and `--dtype`.

    Args:
        texts: One an input: `"1x3x32x32"`, `"name=1x3x32x32"`, or `"name=scalar"`.
        dtype: One type for every input, `"float16"`, or types by name, `"ids=int64,mask=bool"`.

    Raises:
        InputError: Not of that form, a size of 0, a name given twice, or an unknown type.
    """
    specs = []
    for text in texts:
        match = _SHAPE.fullmatch(text.strip())
        if match is None:
            raise InputError(
                f"{text!r} is not an input shape.",
                "Write it as 1x3x224x224, or name=1x3x224x224 for each input: sizes are numbers with x"
                " between. --dynamic batch leaves one open.",
            )
        sizes = match["sizes"]
        shape = () if sizes == "scalar" else tuple(int(size) for size in sizes.split("x"))
        if 0 in shape:
            raise InputError(f"{text!r} has a size of 0.", "Every size must be at least 1.")
        specs.append(InputSpec(match["name"], shape))
    names = [spec.name for spec in specs if spec.name]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"Input {twice!r} is given twice.", "Give each --input-shape name=... once.")
    types = _parse_dtypes(dtype)
    if unknown := set(types) - set(names) - {None}:
        raise InputError(
            f"--dtype names {', '.join(map(str, unknown))}, which has no --input-shape.", "Add it."
        )
    return tuple(InputSpec(s.name, s.shape, types.get(s.name, types.get(None))) for s in specs)


def _parse_dtypes(text: str | None) -> dict[str | None, str]:
    types: dict[str | None, str] = {}
    for part in text.split(",") if text else ():
        name, _, value = part.strip().rpartition("=")
        if value not in _DTYPES:
            raise InputError(f"{value!r} is not an input type.", f"Take one of: {', '.join(_DTYPES)}.")
        types[name or None] = value
    return types


def example_inputs(
    loaded: Loaded, specs: Sequence[InputSpec], seed: int = 0, *, note: Note = discard
) -> Inputs:
    """Make seeded example inputs for `loaded`.

    Floating-point values are standard normal; integers are 0 or 1, which index any embedding.

    Args:
        loaded: The model.
        specs: What the user gave; may be empty for an exported program, which has its shapes, and for a
            module whose input's shape is stored with it or the only possible one.
        seed: Of the values.
        note: Called with where a shape comes from that the user did not give.

    Returns:
        A tuple, one tensor a parameter of `forward` in order; a dictionary if any was given by name.

    Raises:
        MissingShapeError: The shapes are missing; it states what is known and gives options to paste.
        InputError: They do not fit `forward`.
    """
    generator = torch.Generator().manual_seed(seed)
    if isinstance(loaded.source, ExportedProgram):
        return _program_inputs(loaded.source, specs, generator, note)
    signature = Signature.of(loaded.source)
    if not specs and loaded.traced_with and len(loaded.traced_with) >= len(signature.required):
        specs = tuple(InputSpec(None, shape, dtype) for shape, dtype in loaded.traced_with)
        shapes = ", ".join(_shape_text(spec.shape) or "scalar" for spec in specs)
        note(f"The shape of its input is what it was traced with: {shapes}.")
    elif not specs:
        found = guess_shape.shape(signature)
        if found is None:
            raise _unknown_shape(signature)
        note(f"The input's shape is {_shape_text(found.shape)}: {found.why}.")
        specs = (InputSpec(None, found.shape),)
    tensors = [_random(spec.shape, _dtype(spec, loaded.source), generator) for spec in specs]
    names, required = signature.names, signature.required
    if all(spec.name is None for spec in specs):
        if names is not None and not len(required) <= len(tensors) <= len(names):
            raise InputError(
                f"forward takes {_count(names, required)}, and {len(tensors)} shapes were given.",
                _line(signature),
            )
        return tuple(tensors)
    return _by_name(signature, specs, tensors)


def _by_name(
    signature: Signature, specs: Sequence[InputSpec], tensors: Sequence[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """Match named shapes with `forward`; unnamed ones take its first parameters in order."""
    names = signature.names
    if names is None:
        raise InputError(
            "forward takes any number of inputs, without names.", "Give the shapes without names."
        )
    bound: dict[str, torch.Tensor] = {}
    free = iter([name for name in names if name not in {spec.name for spec in specs}])
    for spec, tensor in zip(specs, tensors, strict=True):
        name = spec.name or next(free, None)
        if name is None or name not in names:
            raise InputError(
                f"forward has no input {spec.name!r}."
                if spec.name
                else "More shapes than forward has inputs.",
                f"It takes {', '.join(names)}. {_line(signature)}",
            )
        bound[name] = tensor
    if missing := [name for name in signature.required if name not in bound]:
        raise InputError(f"No shape was given for {', '.join(missing)}.", _line(signature))
    return {name: bound[name] for name in names if name in bound}


def _count(names: Sequence[str], required: Sequence[str]) -> str:
    if len(names) == len(required):
        word = "input" if len(names) == 1 else "inputs"
        return f"{len(names)} {word} ({', '.join(names)})"
    return f"{len(required)} to {len(names)} inputs ({', '.join(names)})"


def _dtype(spec: InputSpec, module: nn.Module) -> torch.dtype:
    if spec.dtype:
        return _DTYPES[spec.dtype]
    own: list[torch.dtype] = [p.dtype for p in module.parameters() if p.is_floating_point()]
    return own[0] if own else torch.float32


def _random(shape: Sequence[int], dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    if math.prod(shape) > _LARGEST:
        raise InputError(
            f"An input of shape {_shape_text(shape)} is larger than any model takes.",
            "Give the shape of one with --input-shape.",
        )
    if dtype.is_floating_point:
        return torch.randn(tuple(shape), generator=generator).to(dtype)
    return torch.randint(0, 2, tuple(shape), generator=generator).to(dtype)


def _unknown_shape(signature: Signature) -> MissingShapeError:
    problem = "The file does not contain the shape of its input."
    if signature.first_layer:
        path, layer = signature.first_layer
        problem += f" Known: its first layer with weights is {_describe(path, layer)}."
    required = signature.required
    if len(required) > 1:
        problem += f" forward takes {_count(signature.names or required, required)}."
    return MissingShapeError(problem, _options(signature))


def _line(signature: Signature) -> str:
    """The options to add, said as where all shapes are missing: sizes in them are a guess."""
    return MissingShapeError("", _options(signature)).fix


def _options(signature: Signature) -> list[str]:
    """The options to add: a shape that the module takes, or what is not known in angle brackets."""
    if len(signature.required) > 1:  # which of them reaches the first layer is not known
        return [word for name in signature.required for word in ("--input-shape", f"{name}=<shape>")]
    layer = signature.first_layer
    taken = guess_shape.plausible(signature)
    shape = _shape_text(taken) if taken else _template(layer[1]) if layer else "1x<...>"
    embeds = layer is not None and isinstance(layer[1], (nn.Embedding, nn.EmbeddingBag))
    return ["--input-shape", shape, *(("--dtype", "int64") if embeds else ())]


def _describe(path: str, layer: nn.Module) -> str:
    where = f" at {path}" if path else ""
    count, spatial = channels(layer), dimensions(layer)
    text = f"{type(layer).__name__}{where}"
    if count:
        text += f", with {count[1]} {count[0]}"
    if spatial:
        text += f" and {spatial} spatial {'dimension' if spatial == 1 else 'dimensions'}"
    return text


def _template(layer: nn.Module) -> str:
    count, spatial = channels(layer), dimensions(layer)
    if isinstance(layer, (nn.Embedding, nn.EmbeddingBag)):
        return "1x<length>"
    if count is None:
        return "1x<...>"
    if isinstance(layer, nn.Linear):
        return f"1x{count[1]}"  # any sizes may be between: Linear maps them alike
    if isinstance(layer, nn.RNNBase):
        return f"1x<length>x{count[1]}" if layer.batch_first else f"<length>x1x{count[1]}"
    return f"1x{count[1]}x{_PLACES[spatial]}" if spatial else f"1x{count[1]}x<...>"


def _program_inputs(
    program: ExportedProgram, specs: Sequence[InputSpec], generator: torch.Generator, note: Note
) -> Inputs:
    """Tensors like the program's placeholders; dynamic sizes as they were when it was exported."""
    placeholders = {
        node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"
    }
    inputs = {
        name: placeholders[name] for name in program.graph_signature.user_inputs if name in placeholders
    }
    if other := [name for name, value in inputs.items() if not isinstance(value, torch.Tensor)]:
        raise InputError(
            f"The program takes {', '.join(map(str, other))}, which is not a tensor.",
            "Export it with tensors only.",
        )
    fitted = {str(name): value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
    if specs:
        _check_given(fitted, specs)
        is_open = any(not isinstance(size, int) for value in fitted.values() for size in value.shape)
        stays = "; its open sizes stay open (--set-shape fixes them)" if is_open else ""
        note(f"--input-shape changes nothing here: an exported program has the sizes of its inputs{stays}.")
    return tuple(_random(_sizes(value), value.dtype, generator) for value in fitted.values())


def _sizes(value: torch.Tensor) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else size.node.hint for size in value.shape)


def _check_given(inputs: dict[str, torch.Tensor], specs: Sequence[InputSpec]) -> None:
    """A given shape must be the one that the program was exported with, where that is fixed."""
    free = iter([name for name in inputs if name not in {spec.name for spec in specs}])
    for spec in specs:
        name = spec.name or next(free, None)
        if name is None or name not in inputs:
            raise InputError(f"The program has no input {spec.name!r}.", f"It takes {', '.join(inputs)}.")
        shape = inputs[name].shape
        fits = len(shape) == len(spec.shape) and all(
            not isinstance(size, int) or size == given for size, given in zip(shape, spec.shape, strict=True)
        )
        if not fits:
            raise InputError(
                f"The program was exported with {name} of shape {_shape_text(shape)}.",
                "Leave --input-shape out, or export the program again with other sizes.",
            )


def _shape_text(shape: Sequence[object]) -> str:
    """Write a shape as the user would; torch replaces the name of a dynamic size by its own, as s77."""
    return "x".join(str(size) if isinstance(size, int) else "?" for size in shape)
