"""What models were before: in another folder, in a file, or in a revision of git."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from bnfold.errors import BnfoldError, InputError
from bnfold.files.atomic import hidden_next_to
from bnfold.files.file_kind import FileKind

_GIT = "git:"


@dataclass(frozen=True)
class Earlier:
    """Where models were before.

    Attributes:
        folder: The folder that stands in place of `root`; None where a single file does.
        root: The folder that paths are relative to.
        file: The one file; None where a folder stands for all.
        revision: The revision of git that `folder` is filled from when a model is asked for.
        changed: The files that are not as they were in that revision, relative to `root`.
        touched: The folders with such a file in them, or below.
    """

    folder: Path | None
    root: Path
    file: Path | None = None
    revision: str = ""
    changed: frozenset[str] = frozenset()
    touched: frozenset[str] = frozenset()

    def alone(self) -> Earlier:
        """The same without what only `is_same` needs."""
        return replace(self, changed=frozenset(), touched=frozenset())

    def is_same(self, path: Path, files: Iterable[Path] | None) -> bool:
        """Whether a model is known to be as it was, or not to have been there; nothing is read.

        Args:
            path: The model.
            files: The model and its external data, if that is known. Otherwise a file that has changed
                counts if it is in a place where external data may be.
        """
        place = self._place(path)
        if place is None or place in self.changed:
            return place is None
        if os.path.dirname(place) not in self.touched:  # noqa: PTH120 - "" is the root, and not "."
            return True
        return files is not None and not any(self._place(file) in self.changed for file in files)

    def _place(self, path: Path) -> str | None:
        """Where a file is, relative to the root; None outside of it."""
        place, root = path.resolve(), self.root.resolve()
        return place.relative_to(root).as_posix() if place.is_relative_to(root) else None

    def of(self, path: Path) -> Path | None:
        """What a model was before; None where there was none, or where git knows that it is the same.

        A revision is asked for the model and its external data: this reads the model, which may be hostile.

        Raises:
            InputError: The revision holds only a pointer of Git LFS, and git cannot get its content.
        """
        if self.file is not None:
            return self.file
        assert self.folder is not None, "either a file or a folder stands for the models"
        place = self._place(path)
        if place is None or (self.revision and self._git_says_same(path)):
            return None
        earlier = self.folder / place
        if self.revision and not earlier.exists():
            self._take(place, earlier)
            self._take_data(path, earlier)
        return earlier if earlier.is_file() else None

    def _git_says_same(self, path: Path) -> bool:
        """Whether nothing of a model has changed since; also where git does not know it, then or now."""
        from bnfold.files.load import files_beside

        places = filter(None, (self._place(file) for file in (path, *files_beside(path))))
        named = [f":(literal){place}" for place in places]
        compared = _git(self.root, "diff", "--quiet", "--no-ext-diff", self.revision, "--", *named)
        return compared.returncode == 0

    def _take(self, name: str, target: Path) -> None:
        """Write what the revision has under a name, if it has anything."""
        shown = _git(self.root, "cat-file", "-e", f"{self.revision}:./{name}")
        if shown.returncode:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = hidden_next_to(target, ".tmp")  # several models may share a file, and each has a process
        with draft.open("wb") as stream:
            # of a file that git keeps elsewhere, the filter gets the content
            done = subprocess.run(
                ["git", "cat-file", "--filters", f"{self.revision}:./{name}"],
                cwd=self.root, stdout=stream, stderr=subprocess.PIPE, check=False,
            )  # fmt: skip
        with draft.open("rb") as stream:
            head = stream.read(64)
        if done.returncode or FileKind.of(head) is FileKind.GIT_LFS:
            raise InputError(
                f"{name} of {self.revision} is kept in Git LFS, and its content is not here.",
                f"Type: git lfs fetch origin {self.revision}",
            )
        draft.replace(target)

    def _take_data(self, path: Path, earlier: Path) -> None:
        """Write the external data that an earlier model names, too."""
        import onnx
        from onnx.external_data_helper import ExternalDataInfo, _get_all_tensors, uses_external_data

        if not earlier.is_file():
            return
        try:
            proto = onnx.load(earlier, load_external_data=False)
            names = {ExternalDataInfo(t).location for t in _get_all_tensors(proto) if uses_external_data(t)}
        except Exception:  # protobuf's, of what is not a model; whoever compares it says so
            return
        folder = path.resolve().parent.relative_to(self.root.resolve())
        for name in names:
            target = earlier.parent / name
            if not Path(name).is_absolute() and ".." not in Path(name).parts and not target.exists():
                self._take((folder / name).as_posix(), target)


@contextmanager
def earlier(given: str, root: Path) -> Iterator[Earlier]:
    """Where models were before, as `--against` names it.

    Args:
        given: A folder, a file, or `git:` and a revision, such as `"git:main"`.
        root: The folder that paths are relative to.

    Raises:
        InputError: It is not there, or the revision is not known.
    """
    if not given.startswith(_GIT):
        path = Path(given)
        if not path.exists():
            raise InputError(f"{given} is not there.", "Give a folder, a file, or git:REVISION to --against.")
        yield Earlier(None, root, path) if path.is_file() else Earlier(path, root)
        return
    revision = given.removeprefix(_GIT)
    if shutil.which("git") is None:
        raise InputError("--against git:… needs git, which is not installed.", "Install it.")
    if _git(root, "rev-parse", "--git-dir").returncode:
        raise InputError(
            f"{given} needs a git repository, and {root} is not in one that git can read.",
            "Run bnfold check in the repository, or give a folder or a file to --against.",
        )
    known = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if known.returncode:
        raise InputError(
            f"{revision!r} is not a revision that git knows here.",
            f"Type: git fetch origin {revision}. A check-out of one commit (fetch-depth: 1) has no other.",
        )
    commit = known.stdout.decode().strip()
    listed = _git(root, "diff", "--name-only", "--no-renames", "--no-ext-diff", "--relative", "-z", commit)
    changed = frozenset(os.fsdecode(name) for name in listed.stdout.split(b"\0") if name)
    folders = {parent.as_posix() for name in changed for parent in Path(name).parents}
    touched = frozenset("" if folder == "." else folder for folder in folders)
    with TemporaryDirectory(prefix="bnfold-") as folder:
        yield Earlier(Path(folder), root, revision=commit, changed=changed, touched=touched)


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except OSError as error:
        raise BnfoldError(f"git could not be run: {error}.", "Check its installation.") from error
