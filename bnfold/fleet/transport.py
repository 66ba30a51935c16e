"""Bytes to and from wherever they are, through fsspec, tried again where a network failed.

An URL may hold a password or a signature, and an error message may quote it. What people see has been through
[`shown`][bnfold.fleet.transport.shown] or [`cleaned`][bnfold.fleet.transport.cleaned].
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from bnfold.errors import BnfoldError, InputError, MissingExtraError, reason
from bnfold.files.atomic import replacing

ResultT = TypeVar("ResultT")

ATTEMPTS = 4
_PAUSE = 0.5  # seconds after the first failure; twice as many after each further one
_FINAL = (
    *(FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError),
    *(ImportError, ValueError, NotImplementedError),
)
"""What a second attempt does not change."""

_USER = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"(https?://[^\s?]+)\?([^\s]+)")
_SECRET = re.compile(
    r"secret|token|passw|credential|access_key|account_key|sas|connection_string", re.IGNORECASE
)
_SHORTEST_SECRET = 6  # characters; shorter values occur in any text
_PACKAGES = {
    "s3": 'pip install "bnfold[s3]"',
    "s3a": 'pip install "bnfold[s3]"',
    "gs": "pip install gcsfs",
    "gcs": "pip install gcsfs",
    "az": "pip install adlfs",
    "abfs": "pip install adlfs",
    "hf": "pip install huggingface_hub",
    "http": "pip install aiohttp",
    "https": "pip install aiohttp",
}


class TransportError(BnfoldError):
    """What could not be fetched or stored, however often it was tried."""


def filesystem(url: str) -> tuple[Any, str]:
    """The file system of an URL, and the path in it.

    Args:
        url: As fsspec takes it: `s3://bucket/key`, `zip://inner::outer.zip`, a local path.

    Raises:
        MissingExtraError: fsspec is not installed.
        InputError: Nothing knows its protocol, or what knows it is not installed.
    """
    try:
        import fsspec
    except ImportError:
        raise MissingExtraError("fsspec", "fleet", "work on a fleet") from None
    if "::" in url and (path := local(url)) is not None:  # which fsspec would take for a chain
        return fsspec.filesystem("file"), path.absolute().as_posix()
    try:
        return fsspec.core.url_to_fs(url)  # type: ignore[no-any-return]
    except ImportError as error:
        protocol = protocol_of(url)
        line = _PACKAGES.get(protocol, "pip install the package that it names")
        raise InputError(f"{protocol}:// needs a package: {reason(error)}.", f"Type: {line}") from error
    except ValueError as error:
        raise InputError(
            f"{shown(url)} cannot be opened: {cleaned(reason(error), url)}.",
            "Write it as s3://BUCKET/KEY, https://HOST/FILE, zip://FILE::ARCHIVE, or as a local path.",
        ) from error


def protocol_of(url: str) -> str:
    """The protocol of an URL; `"file"` for a local path."""
    found = re.match(r"([A-Za-z][A-Za-z0-9+]*)://", url)
    return "file" if found is None or found[1] == "local" else found[1].lower()


def local(url: str) -> Path | None:
    """The path of a local file; None of what has to be fetched."""
    if protocol_of(url) != "file":
        return None
    path = url.removeprefix("file://").removeprefix("local://")
    return None if "::" in path and _is_chain(path) else Path(path)


def _is_chain(path: str) -> bool:
    """Whether `::` in an address without a protocol joins addresses, and is not a part of a file's name."""
    if "://" in path:
        return True
    try:
        from fsspec.registry import known_implementations
    except ImportError:  # without it nothing can be fetched
        return False
    return path.partition("::")[0] in known_implementations  # as in simplecache::PATH


def links(url: str) -> list[str]:
    """The addresses that an URL chains, what is within first; a local path is one, with any name."""
    return url.split("::") if local(url) is None else [url]


def joined(url: str, path: str) -> str:
    """The URL of a path below an URL; what an archive is in stays at the end."""
    first, *rest = links(url)
    return "::".join([f"{first.rstrip('/')}/{path}", *rest])


def whole(url: str, path: str) -> str:
    """The URL of a path that the file system of `url` has named."""
    first, *rest = links(url)
    protocol = protocol_of(first)
    if protocol == "file" or path.startswith(f"{protocol}://"):
        return "::".join([path, *rest])
    return "::".join([f"{protocol}://{path}", *rest])


def within(folder: str) -> Callable[[str], bool]:
    """What says whether a file is in a folder, or below it."""
    protocol, root = protocol_of(folder), filesystem(folder)[1].rstrip("/")

    def is_within(url: str) -> bool:
        return protocol_of(url) == protocol and filesystem(url)[1].startswith(f"{root}/")

    return is_within


def shown(url: str) -> str:
    """An URL as people may see it: no user, no password, and of a query a hash, which signs nothing."""

    def hashed(found: re.Match[str]) -> str:
        return f"{found[1]}?sha256:{hashlib.sha256(found[2].encode()).hexdigest()[:12]}"

    return _QUERY.sub(hashed, _USER.sub("", url))


def cleaned(text: str, url: str = "") -> str:
    """A message without what only its reader's own program should know.

    Args:
        text: Such as an exception's.
        url: What it may quote.
    """
    text = shown(text.replace(url, shown(url)) if url else text)
    for secret in sorted(_secrets(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _secrets() -> set[str]:
    """Values that open a door: of environment variables, and of fsspec's settings."""
    import fsspec

    named = [*os.environ.items()]
    for options in fsspec.config.conf.values():
        if isinstance(options, dict):
            named += [
                (f"secret {name}", value) for name, value in options.items() if name in ("key", "secret")
            ]
            named += [(name, value) for name, value in options.items() if isinstance(value, str)]
    return {
        value
        for name, value in named
        if isinstance(value, str) and _SECRET.search(name) and len(value) >= _SHORTEST_SECRET
    }


def retried(action: Callable[[], ResultT], what: str, url: str) -> ResultT:
    """Do something with a network, again where it failed and may not fail the next time.

    Args:
        action: What is done; doing it twice has to be the same as doing it once.
        what: For the message, as `"fetched"`.
        url: For the message.

    Raises:
        TransportError: It failed `ATTEMPTS` times, or for a reason that stays.
    """
    for attempt in range(ATTEMPTS):
        try:
            return action()
        except BnfoldError:
            raise
        except Exception as error:  # each backend has its own; those that stay are the few that are named
            if isinstance(error, _FINAL) or attempt == ATTEMPTS - 1:
                why = cleaned(reason(error), url)
                if isinstance(error, FileNotFoundError):
                    why = "it is not there"
                raise TransportError(f"{shown(url)} could not be {what}: {why}.") from error
            time.sleep(_PAUSE * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def fetch(url: str, target: Path) -> None:
    """Copy a file from wherever it is.

    Raises:
        TransportError: It could not be read, or `target` could not be written.
    """
    fs, path = filesystem(url)
    retried(lambda: fs.get_file(path, str(target)), "fetched", url)


def store(source: Path, url: str) -> None:
    """Copy a local file to wherever it belongs, where it appears whole or not at all.

    Raises:
        TransportError: It could not be written.
    """

    def copy(stream: BinaryIO) -> None:
        with source.open("rb") as given:
            shutil.copyfileobj(given, stream, 1 << 20)

    _written(url, copy, lambda fs, path: fs.put_file(str(source), path))


def put(url: str, content: bytes) -> None:
    """Write a small file, which appears whole or not at all.

    Raises:
        TransportError: It could not be written.
    """
    _written(url, lambda stream: stream.write(content), lambda fs, path: fs.pipe_file(path, content))


def _written(url: str, here: Callable[[BinaryIO], Any], there: Callable[[Any, str], Any]) -> None:
    """Write a local file by way of a hidden one, or any other at once: an object appears when it is whole."""
    target = local(url)
    fs, path = filesystem(url)

    def write() -> None:
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            with replacing(target) as stream:
                here(stream)
            return
        try:
            there(fs, path)
        except FileNotFoundError:  # of the few remote systems that have folders
            fs.makedirs(path.rpartition("/")[0], exist_ok=True)
            there(fs, path)

    retried(write, "stored", url)
