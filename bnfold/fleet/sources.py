"""Which models there are: paths, folders, patterns and archives, wherever fsspec reaches."""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from bnfold.errors import InputError
from bnfold.fleet import manifest, transport
from bnfold.fleet.plan import Model
from bnfold.gate.settings import Settings

_MAGIC = "*?["
_AT_ONCE = 32  # questions to a store that go on side by side
_HASHES = ("ETag", "etag", "md5Hash", "content_md5", "sha256", "blob_id", "CRC")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created", "date_time")


def models(
    given: Iterable[str], command: str, settings: Settings, names: Iterable[str] = (), *, out: str = ""
) -> list[Model]:
    """Every model of some sources, largest first.

    Args:
        given: URLs of models, folders, patterns, archives (`.zip`) and manifests.
        command: What the options of a manifest are for.
        settings: Which files of a folder are models.
        names: Further models, one by one, such as lines of standard input.
        out: Where results go: what earlier runs wrote there is no source.

    Returns:
        Each model once for every set of options that it is given.

    Raises:
        InputError: A source is not there, cannot be read, or has no models.
    """
    found: list[Model] = []
    for url in given:
        if manifest.is_manifest(url):
            found += _described(manifest.read(url, command))
        else:
            found += _listed(url, settings)
    found += _described(Model(_absolute(url), _last(url)) for url in names)
    if out:
        is_within = transport.within(out)
        found = [model for model in found if not is_within(model.url)]
    once = {(model.url, repr(model.options), repr(model.inputs)): model for model in reversed(found)}
    written = once.values() if command == "check" else _with_names(once.values())
    return sorted(written, key=lambda model: (-model.size, model.url))


def identity(url: str) -> str:
    """What a source says of a file's content without reading it; empty where it is not there."""
    fs, path = transport.filesystem(url)
    try:
        return _identity(transport.retried(lambda: fs.info(path), "found", url))
    except transport.TransportError:
        return ""


def _described(models: Iterable[Model]) -> Iterator[Model]:
    """Models that somebody has named, with their sizes; one that is not there is a result like any other."""

    def described(model: Model) -> Model:
        fs, path = transport.filesystem(model.url)
        try:
            info = transport.retried(lambda: fs.info(path), "found", model.url)
        except transport.TransportError:
            return model
        return replace(model, size=int(info.get("size") or 0), identity=_identity(info))

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        yield from pool.map(described, models)


def _listed(url: str, settings: Settings) -> Iterator[Model]:
    """The models of a path, a folder, a pattern or an archive.

    Raises:
        InputError: There are none.
    """
    if url.endswith(".zip") and "::" not in url:
        url = f"zip://::{url}"
    url = _absolute(url)
    fs, root = transport.filesystem(url)
    root = root.rstrip("/")
    found: Iterator[tuple[str, Mapping[str, Any]]]
    if _is_pattern(url):
        files: Mapping[str, Any] = transport.retried(lambda: fs.glob(root, detail=True), "listed", url)
        base = root[: min(root.index(mark) for mark in _MAGIC if mark in root)].rpartition("/")[0]
        found = ((name, info) for name, info in files.items() if info["type"] != "directory")
    elif not _is_web(url) and transport.retried(lambda: fs.isdir(root or "/"), "found", url):
        base, found = root, _within(fs, root, settings)
    else:
        try:
            info = transport.retried(lambda: fs.info(root), "found", url)
        except transport.TransportError as error:
            raise InputError(error.problem, "Check the address, and what you may read there.") from error
        base, found = root.rpartition("/")[0], iter([(root, info)])
    count = 0
    for count, (name, info) in enumerate(found, 1):  # noqa: B007 - used after the loop
        yield _model(url, name, base, info)
    fs.invalidate_cache()  # it may keep all that it has listed
    if not count:
        raise InputError(
            f"{transport.shown(url)} has no models.",
            f"Check it: a folder's models are {', '.join(settings.include)}; a pattern names files.",
        )


def _absolute(url: str) -> str:
    """A local path from the root on, since workers may have another folder; any other address as it is."""
    path = transport.local(url)
    return url if path is None else path.absolute().as_posix()


def _is_pattern(url: str) -> bool:
    """Whether it names files by a pattern, and is not the name of one; a web address may have a query."""
    if (path := transport.local(url)) is not None and path.exists():
        return False
    marks = _MAGIC.replace("?", "") if _is_web(url) else _MAGIC
    return any(mark in url.split("::")[0] for mark in marks)


def _is_web(url: str) -> bool:
    """Whether asking for a folder would read a whole file, in search of links."""
    return transport.protocol_of(url) in ("http", "https")


def _within(fs: Any, root: str, settings: Settings) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The models below a folder, folder by folder."""
    for place, folders, files in fs.walk(root, detail=True):
        for name in [name for name in folders if _fits(name, settings.exclude)]:
            del folders[name]
        for name, info in sorted(files.items()):
            if _fits(name, settings.include) and not _fits(name, settings.exclude):
                yield f"{place.rstrip('/')}/{name}" if place else name, info


def _model(source: str, name: str, base: str, info: Mapping[str, Any]) -> Model:
    relative = name.removeprefix(base).lstrip("/")
    return Model(transport.whole(source, name), relative, int(info.get("size") or 0), _identity(info))


def _identity(info: Mapping[str, Any]) -> str:
    """A short text that changes with a file's content: the store's own hash, or else size and time."""
    known = [str(info[key]) for key in _HASHES if info.get(key)]
    known = known or [str(info[key]) for key in _TIMES if info.get(key)]
    return hashlib.sha256(repr((info.get("size"), known)).encode()).hexdigest()[:16]


def _with_names(models: Iterable[Model]) -> Sequence[Model]:
    """The same with names of the files to write; where several would have one, each has a hash in it."""
    named = [replace(model, name=_onnx(model.name)) for model in models]
    counts: dict[str, int] = {}
    for model in named:
        counts[model.name] = counts.get(model.name, 0) + 1
    return [model if counts[model.name] == 1 else _apart(model) for model in named]


def _apart(model: Model) -> Model:
    own = hashlib.sha256(repr((model.url, model.options, model.inputs)).encode()).hexdigest()[:8]
    return replace(model, name=f"{model.name.removesuffix('.onnx')}-{own}.onnx")


def _onnx(name: str) -> str:
    return name if name.endswith(".onnx") else f"{name.rpartition('.')[0] or name}.onnx"


def _last(url: str) -> str:
    """The file's own name."""
    return Path(url.split("::")[0].partition("?")[0]).name or "model"


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
