"""Which files are checked."""

from __future__ import annotations

import fnmatch
import glob
import os
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bnfold.errors import FileAccessError, InputError, reason
from bnfold.gate.settings import Settings, fits


@dataclass(frozen=True)
class Discovered:
    """The files to check.

    Attributes:
        files: In the order of their names.
        ignored: How many models of folders are passed over since git ignores them.
    """

    files: list[Path]
    ignored: int = 0


def discover(
    given: Iterable[str | os.PathLike[str]], settings: Settings, root: Path | None = None
) -> Discovered:
    """The files of paths, patterns and folders, each once however it is named.

    What is named itself is taken as it is; of a folder those files are taken that `settings.include` names.

    Args:
        given: Paths, folders, and patterns such as `"models/**/*.onnx"` for shells that do not expand them.
        settings: What counts as a model, and what is passed over.
        root: The folder that patterns of the settings are relative to; None takes the current one.

    Raises:
        InputError: A path is not there, nothing fits a pattern, a folder cannot be read, or git ignores all
            that there is.
    """
    search = _Search(settings, _absolute(root or Path()))
    found: list[Path] = []
    for named in given:
        one = os.fspath(named)
        path = Path(one)
        if _is_folder(path):
            found += search.within(path)
        elif os.path.lexists(path):
            found += search.named(path)
        elif glob.has_magic(one):
            fitting = [Path(name) for name in glob.iglob(one, recursive=True)]  # noqa: PTH207 - it may be absolute
            if not fitting:
                raise InputError(f"Nothing fits {one}.", "Check the pattern; it is relative to this folder.")
            for name in fitting:
                found += search.within(name) if name.is_dir() else search.named(name)
        else:
            raise InputError(f"{one} is not there.", "Check the path; it is relative to this folder.")
    places = {str(_absolute(path)): path for path in reversed(found)}
    ignored = len(search.ignored - places.keys())
    if ignored and not places:
        models = "the only model" if ignored == 1 else f"all {ignored} models"
        raise InputError(
            f"git ignores {models} here.", "Name the files themselves, or add --no-respect-gitignore."
        )
    return Discovered(sorted(places.values(), key=lambda path: path.as_posix()), ignored)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise FileAccessError(path, error) from error


class _Search:
    """A search with its settings.

    Attributes:
        ignored: The files, by their absolute paths, that are passed over since git ignores them.
    """

    def __init__(self, settings: Settings, root: Path) -> None:
        self._settings, self._root = settings, root
        self._excluded = (*settings.exclude, *settings.extend_exclude)
        self.ignored: set[str] = set()

    def named(self, path: Path) -> list[Path]:
        """A file that was named, unless exclusions are to count for those as well."""
        if not self._settings.force_exclude:
            return [path]
        place = _absolute(path)
        within = place.relative_to(self._root).parents if place.is_relative_to(self._root) else ()
        places = [place, *(self._root / folder for folder in within if folder.parts)]
        return [] if any(map(self._is_excluded, places)) else [path]

    def within(self, folder: Path) -> list[Path]:
        """The models of a folder and of those in it."""
        found = list(self._walk(folder))
        if not (found and self._settings.respect_gitignore):
            return found
        ignored = _ignored(folder, [os.path.relpath(path, folder) for path in found])
        self.ignored |= {str(_absolute(folder / name)) for name in ignored}
        return [path for path in found if os.path.relpath(path, folder) not in ignored]

    def _walk(self, folder: Path) -> Iterator[Path]:
        for place, folders, files in os.walk(folder, onerror=_refuse):
            folders[:] = [name for name in folders if not self._is_excluded(Path(place, name))]
            for name in files:
                path = Path(place, name)
                if _any(name, self._settings.include) and not self._is_excluded(path) and _counts(path):
                    yield path

    def _is_excluded(self, path: Path) -> bool:
        """Whether a pattern fits the name of a file or folder, or where it is if the pattern says that."""
        place = _absolute(path)
        within = os.path.relpath(place, self._root).replace(os.sep, "/")
        patterns = [pattern.rstrip("/") for pattern in self._excluded]
        return any(
            fits(within, pattern) if "/" in pattern else fnmatch.fnmatchcase(place.name, pattern)
            for pattern in patterns
        )


def _absolute(path: Path) -> Path:
    """A path from the root of the system on; a link keeps its name, and is a file of its own."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _counts(path: Path) -> bool:
    """Whether a file of a folder is looked at: a pipe or a device is only where somebody has named it."""
    return path.is_file() or (path.is_symlink() and not path.exists())  # its model is missing


def _ignored(folder: Path, names: list[str]) -> set[str]:
    """Those of the names in a folder that git ignores and does not track.

    None where the folder is not in a repository, where git is not installed, or where git ignores the folder
    itself: somebody has named it nevertheless.
    """
    place = folder.resolve()
    if not any((above / ".git").exists() for above in (place, *place.parents)):
        return set()
    try:
        if not _git(place, "check-ignore", "--quiet", ".").returncode:
            return set()
        given = b"\0".join(map(os.fsencode, names))
        done = _git(place, "check-ignore", "--stdin", "-z", given=given)
    except OSError:
        return set()
    return {os.fsdecode(name) for name in done.stdout.split(b"\0") if name} if not done.returncode else set()


def _git(folder: Path, *arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(["git", *arguments], cwd=folder, input=given, capture_output=True, check=False)


def _refuse(error: OSError) -> None:
    raise InputError(
        f"{error.filename} cannot be read: {reason(error)}.",
        "Correct its permissions, or exclude the folder.",
    ) from error


def _any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)
