"""`bnfold.check`."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeAlias

import onnx
import onnx_ir as ir
from google.protobuf.message import EncodeError  # type: ignore[import-untyped]  # has no stubs

from bnfold.api.models import is_network, name_of, not_a_model, read
from bnfold.api.speaking import only_known, speaking_python
from bnfold.api.watching import watching
from bnfold.errors import InputError
from bnfold.files.save import save_onnx
from bnfold.gate import configuration as configured
from bnfold.gate import run
from bnfold.gate.configuration import Configuration
from bnfold.gate.run import Checked
from bnfold.gate.settings import Settings
from bnfold.pipeline.progress import Progress, Stage, within

if TYPE_CHECKING:
    from bnfold.api.models import AnyModel, ExampleInputs

    Checkable: TypeAlias = AnyModel | Iterable[AnyModel]

_SELECTIONS = ("select", "extend_select", "ignore")
_SEVERAL = ("targets", "include", "exclude", "extend_exclude")


@only_known(field.name for field in fields(Settings))
@speaking_python
def check(
    paths: Checkable = ".",
    configuration: Configuration | None = None,
    *,
    example_inputs: ExampleInputs | None = None,
    jobs: int | None = None,
    cache: str | os.PathLike[str] | None = None,
    earlier: str | os.PathLike[str] | None = None,
    accepted: str | os.PathLike[str] | None = None,
    time_limit: float = 600.0,
    progress: Progress | bool | None = None,
    **settings: Any,
) -> Checked:
    """Ask the rules about every model. The result is true if nothing was found but notes.

    Every model is looked at in a process of its own, which a broken file can end without harm to the others.
    A model in memory is written to a temporary file for it, and findings name it after its graph or class.

        bnfold.check("models")
        bnfold.check(["a.onnx", "b.onnx"], select="M1", targets="tensorrt")
        bnfold.check(net, example_inputs=torch.randn(1, 3, 224, 224), earlier="net.onnx")

    Args:
        paths: A file, a folder, a pattern, an `onnx.ModelProto`, an `onnx_ir.Model`, an `nn.Module`, an
            `ExportedProgram`, or several of them. Nothing is modified.
        configuration: The settings, and the folder that names are relative to; None looks for the nearest
            file with them, from the current folder upwards.
        example_inputs: What a network is traced with: a tensor, several in the order of `forward`, or
            several by its names. Those of `paths` that are networks take it.
        jobs: How many files are looked at side by side; None takes the number of CPUs.
        cache: The folder in which answers are kept; None keeps nothing.
        earlier: What models were before: a folder, a file, or `"git:REVISION"`.
        accepted: A baseline, whose findings do not count.
        time_limit: Seconds for one file, after which its process is ended.
        progress: Called as `progress(stage, done, total)`, in the stage `"check"` with the number of files;
            True or False shows a bar or none; None shows one in a terminal and in a notebook.
        settings: What is demanded, by the fields of [`Settings`][bnfold.gate.settings.Settings]: `select`,
            `ignore`, `targets` and others. Each replaces that of the configuration.

    Raises:
        InputError: A path, a revision, a rule, a target or the baseline is not there or not right; or the
            example inputs are missing or do not fit.
        ModelError: A network cannot be exported.
        BnfoldError: A rule that is asked needs a package that is not installed.

    Examples:
        >>> checked = bnfold.check("model.onnx")
        >>> [(one.path, one.code, one.found.headline) for one in checked.findings]
        [('model.onnx', 'M101', '1 BatchNorm can be folded')]
    """
    if not isinstance(configuration, Configuration | None):
        raise InputError(
            f"The second argument is the configuration, and not a {type(configuration).__name__}.",
            "Give example inputs by their name: bnfold.check(model, example_inputs=...).",
        )
    given = _several(paths)
    if example_inputs is not None and not any(map(is_network, given)):
        raise InputError("example_inputs are for a torch.nn.Module.", "Leave them out.")
    if earlier is not None and any(map(_is_in_memory, given)) and not Path(earlier).is_file():
        raise InputError(
            f"A model in memory has no place in {os.fspath(earlier)} to compare it with.",
            "Give the file that it was before: earlier='model.onnx'.",
        )
    known = configuration or configured.nearest(Path.cwd())
    known = replace(known, settings=replace(known.settings, **_chosen(settings)))
    with watching(progress) as report, _in_files(given, example_inputs, report) as (files, called):
        return run.check(
            files,
            known,
            jobs=jobs,
            cache=None if cache is None else Path(cache),
            earlier=None if earlier is None else os.fspath(earlier),
            accepted=None if accepted is None else Path(accepted),
            time_limit=time_limit,
            progress=within(Stage.CHECK, report),
            called=called,
        )


def _several(paths: Any) -> list[Any]:
    """The given models as a list; some that are one model can be iterated over as well."""
    if _is_path(paths) or _is_in_memory(paths):
        return [paths]
    given = list(paths) if isinstance(paths, Iterable) else [paths]
    for one in given:
        if not (_is_path(one) or _is_in_memory(one)):
            raise not_a_model(one)
    return given


def _is_path(given: object) -> bool:
    return isinstance(given, (str, os.PathLike))


def _is_in_memory(given: object) -> bool:
    return isinstance(given, (onnx.ModelProto, ir.Model)) or is_network(given)


def _chosen(given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings as the configuration has them: several where one is given, and known codes and targets."""
    chosen = dict(given)
    for name in (one for one in (*_SELECTIONS, *_SEVERAL) if one in chosen):
        one_or_more = chosen[name]
        chosen[name] = (one_or_more,) if isinstance(one_or_more, str) else tuple(one_or_more)
    for name in (one for one in _SELECTIONS if one in chosen):
        codes = (code for one in chosen[name] for code in one.replace(",", " ").split())
        chosen[name] = tuple(map(configured.check_code, codes))
    if "targets" in chosen:
        chosen["targets"] = configured.targets(chosen["targets"], Path.cwd())
    return chosen


@contextmanager
def _in_files(
    given: Iterable[Any], example_inputs: ExampleInputs | None, progress: Progress
) -> Iterator[tuple[list[str | os.PathLike[str]], dict[Path, str]]]:
    """Write what is in memory to files that are there meanwhile.

    Args:
        given: Paths and models.
        example_inputs: For the networks among them.
        progress: Called with the stages.

    Yields:
        Paths in the order of what is given, and what findings call those of models in memory.
    """
    paths: list[str | os.PathLike[str]] = []
    called: dict[Path, str] = {}
    with TemporaryDirectory(prefix="bnfold-") if any(map(_is_in_memory, given)) else nullcontext() as place:
        for at, model in enumerate(given):
            if _is_path(model):
                paths.append(model)
                continue
            folder = Path(str(place), f"{at:06}")  # so that findings keep the order of the models
            folder.mkdir()
            name = _unused(_file_name(name_of(model)), called.values())
            path = folder / f"{name}.onnx"
            _write(model, path, example_inputs, progress)
            called[path] = path.name
            paths.append(path)
        yield paths, called


def _file_name(name: str) -> str:
    return re.sub(r"[^\w.-]", "_", name).lstrip(".") or "model"


def _unused(name: str, others: Iterable[str]) -> str:
    """A name, with a number where another model has it already."""
    taken, number, found = set(others), 1, name
    while f"{found}.onnx" in taken:
        number += 1
        found = f"{name}-{number}"
    return found


def _write(model: Any, path: Path, example_inputs: ExampleInputs | None, progress: Progress) -> None:
    if isinstance(model, onnx.ModelProto):
        with suppress(EncodeError, ValueError):  # of more than 2 GB
            path.write_bytes(
                model.SerializeToString()
            )  # as it is: what is wrong with it is for rules to find
            return
    source = read(model, example_inputs if is_network(model) else None, progress=progress)
    save_onnx(source.model, path)
