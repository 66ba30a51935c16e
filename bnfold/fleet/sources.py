"""Which models there are: paths, folders, patterns and archives, wherever fsspec reaches."""

from __future__ import annotations

import contextlib
import fnmatch
import hashlib
import os
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

from bnfold.errors import InputError
from bnfold.fleet import manifest, side_by_side, transport
from bnfold.fleet.plan import Model
from bnfold.gate.settings import Settings

Found: TypeAlias = Iterator[tuple[str, Mapping[str, Any]]]
"""Paths, each with what its file system knows of it."""
Test: TypeAlias = Callable[["os.DirEntry[str]"], object]

_MAGIC = "*?["
_HASHES = ("ETag", "etag", "md5Hash", "content_md5", "sha256", "blob_id", "CRC")
_TIMES = ("mtime", "LastModified", "last_modified", "updated", "created", "date_time")


def models(
    given: Iterable[str], command: str, settings: Settings, names: Iterable[str] = (), *, out: str = ""
) -> Iterator[Model]:
    """Every model of some sources, one after the other; one may come twice.

    Args:
        given: URLs of models, folders, patterns, archives (`.zip`) and manifests.
        command: What the options of a manifest are for.
        settings: Which files of a folder are models.
        names: Further models, one by one, such as lines of standard input.
        out: Where results go: what earlier runs wrote there is no source.

    Raises:
        InputError: A source is not there, cannot be read, or has no models.
    """
    is_within = transport.within(out) if out else lambda _: False
    for url in given:
        is_there, is_source = False, False
        for model in _of_source(url, command, settings):
            is_there = True
            if not is_within(model.url):
                is_source = True
                yield model
        if is_there and not is_source:
            raise InputError(
                f"All models of {transport.shown(url)} are within {transport.shown(out)}, where results go.",
                "Name the models' own folder, or another one with --out.",
            )
    yield from _described(Model(_absolute(url), _last(url)) for url in names)


def _of_source(url: str, command: str, settings: Settings) -> Iterator[Model]:
    """The models of one source.

    Raises:
        InputError: It is not there, cannot be read, or has no models.
    """
    if not manifest.is_manifest(url):
        yield from _listed(url, settings)
        return
    count = 0
    for count, model in enumerate(_described(manifest.read(url, command)), 1):  # noqa: B007 - used below
        yield model
    if not count:
        raise InputError(
            f"{transport.shown(url)} lists no models.",
            'Write a line for each, such as {"model": "net.onnx"}; in CSV, the first line is: model',
        )


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

    return side_by_side.mapped(described, models)


def _listed(given: str, settings: Settings) -> Iterator[Model]:
    """The models of a path, a folder, a pattern or an archive.

    Raises:
        InputError: There are none.
    """
    url = f"zip://::{_absolute(given)}" if _is_archive(given) else _absolute(given)
    fs, root = transport.filesystem(url)
    root = root.rstrip("/")
    if is_pattern(url):
        base = root[: min(root.index(mark) for mark in _MAGIC if mark in root)].rpartition("/")[0]
        found = _matching(fs, root, base, url)
    elif not _is_web(url) and (not root or _is_folder(fs, root, url)):
        base, found = root, _within(fs, root, settings, url)
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
            f"{transport.shown(given)} has no models.",
            f"Check it: a folder's models are {', '.join(settings.include)}; a pattern names files.",
        )


def _is_archive(given: str) -> bool:
    """Whether a source is an archive whose files are meant.

    Raises:
        InputError: Its name has `::`, which stands between an archive and what is in it.
    """
    path = transport.local(given)
    if not given.endswith(".zip") or ("::" in given and path is None):
        return False
    if path is not None and "::" in str(path.absolute()):
        raise InputError(
            f"{given} is an archive with :: in its path, which separates an archive from what is in it.",
            "Give it another name, or make a link to it that has one.",
        )
    return True


def _is_folder(fs: Any, root: str, url: str) -> bool:
    """Whether an address is a folder; in a store it may be a file as well.

    Raises:
        InputError: It is both, and has no / at its end, which says that the folder is meant.
    """

    def known() -> tuple[bool, bool]:
        # in this order, since s3fs takes for a folder alone what it has listed as one
        is_file = transport.local(url) is None and bool(fs.isfile(root))
        is_folder = bool(fs.isdir(root))
        if is_file and not is_folder:
            is_folder = any(name.rstrip("/") != root for name in fs.ls(root, detail=False))
        return is_folder, is_file

    is_folder, is_file = transport.retried(known, "found", url)
    if is_folder and is_file and not transport.links(url)[0].endswith("/"):
        name = transport.shown(url)
        raise InputError(
            f"{name} is a file and a folder.",
            f"For the models in the folder, write {name}/. For the file, give its name on standard input,"
            f" with - in place of it: echo {shlex.quote(name)} | bnfold fleet … -",
        )
    return is_folder


def _absolute(url: str) -> str:
    """A local path from the root on, since workers may have another folder; any other address as it is."""
    path = transport.local(url)
    return url if path is None else path.absolute().as_posix()


def is_pattern(url: str) -> bool:
    """Whether it names files by a pattern, and is not the name of one; a web address may have a query."""
    if (path := transport.local(url)) is not None and path.exists():
        return False
    marks = _MAGIC.replace("?", "") if _is_web(url) else _MAGIC
    return any(mark in transport.links(url)[0] for mark in marks)


def _is_web(url: str) -> bool:
    """Whether asking for a folder would read a whole file, in search of links."""
    return transport.protocol_of(url) in ("http", "https")


def _matching(fs: Any, pattern: str, base: str, url: str) -> Found:
    """The files whose path fits a pattern; those of a store are all listed before the first."""
    if transport.local(url) is None:
        files: dict[str, Any] = transport.retried(lambda: fs.glob(pattern, detail=True), "listed", url)
        folders = [name for name, info in files.items() if info["type"] == "directory"]
        if any("." in name.rpartition("/")[2] for name in folders) and not _is_web(url):
            # of a file and a folder of one name, which a store may have, glob knows the folder only
            every = transport.retried(lambda: fs.find(base, detail=True), "listed", url)
            files.update((name, every[name]) for name in folders if name in every)
        yield from ((name, info) for name, info in files.items() if info["type"] != "directory")
        return
    from fsspec.utils import glob_translate

    fits = re.compile(glob_translate(pattern)).match
    is_deep, depth = "**" in pattern, pattern.count("/")
    yield from _here(
        fs, base, lambda entry: fits(entry.path), lambda entry: is_deep or entry.path.count("/") < depth
    )


def _within(fs: Any, root: str, settings: Settings, url: str) -> Found:
    """The models below a folder, folder by folder; those of a store's folder are listed before the first."""

    def is_model(name: str) -> bool:
        return _fits(name, settings.include) and not _fits(name, settings.exclude)

    if transport.local(url) is not None:
        yield from _here(
            fs,
            root,
            lambda entry: is_model(entry.name),
            lambda entry: not _fits(entry.name, settings.exclude),
        )
        return
    for place, folders, files in fs.walk(root, detail=True):
        for name in [name for name in folders if _fits(name, settings.exclude)]:
            del folders[name]
        for name, info in files.items():
            if is_model(name):
                yield f"{place.rstrip('/')}/{name}" if place else name, info


def _here(fs: Any, root: str, is_wanted: Test, is_entered: Test) -> Found:
    """Files of this machine one by one: fsspec lists a folder as a whole, with a kilobyte for each file.

    Folders that may not be read, and files that go meanwhile, are left out, as fsspec does.
    """
    pending = [root or "/"]
    while pending:
        try:
            entries = os.scandir(pending.pop())
        except OSError:
            continue
        with entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if is_entered(entry):
                        pending.append(entry.path)
                elif is_wanted(entry):
                    with contextlib.suppress(FileNotFoundError):
                        yield entry.path, fs.info(entry)


def _model(source: str, name: str, base: str, info: Mapping[str, Any]) -> Model:
    relative = name.removeprefix(base).lstrip("/")
    return Model(transport.whole(source, name), relative, int(info.get("size") or 0), _identity(info))


def _identity(info: Mapping[str, Any]) -> str:
    """A short text that changes with a file's content: the store's own hash, or else size and time."""
    known = [str(info[key]) for key in _HASHES if info.get(key)]
    known = known or [str(info[key]) for key in _TIMES if info.get(key)]
    return hashlib.sha256(repr((info.get("size"), known)).encode()).hexdigest()[:16]


def _last(url: str) -> str:
    """The file's own name."""
    return Path(transport.links(url)[0].partition("?")[0]).name or "model"


def _fits(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
