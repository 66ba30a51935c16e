"""What models were before: in another folder, in a file, or in a revision of git."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from bnfold.errors import BnfoldError, InputError
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
    """

    folder: Path | None
    root: Path
    file: Path | None = None
    revision: str = ""

    def of(self, path: Path) -> Path | None:
        """What a model was before; None where there was none.

        Raises:
            InputError: The revision holds only a pointer of Git LFS, and git cannot get its content.
        """
        if self.file is not None:
            return self.file
        assert self.folder is not None, "either a file or a folder stands for the models"
        try:
            place = path.resolve().relative_to(self.root.resolve())
        except ValueError:
            return None
        earlier = self.folder / place
        if self.revision and not earlier.exists():
            self._take(place.as_posix(), earlier)
            self._take_data(path, earlier)
        return earlier if earlier.is_file() else None

    def _take(self, name: str, target: Path) -> None:
        """Write what the revision has under a name, if it has anything."""
        shown = _git(self.root, "cat-file", "-e", f"{self.revision}:./{name}")
        if shown.returncode:
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("wb") as stream:
            # of a file that git keeps elsewhere, the filter gets the content
            done = subprocess.run(
                ["git", "cat-file", "--filters", f"{self.revision}:./{name}"],
                cwd=self.root, stdout=stream, stderr=subprocess.PIPE, check=False,
            )  # fmt: skip
        with target.open("rb") as stream:
            head = stream.read(64)
        if done.returncode or FileKind.of(head) is FileKind.GIT_LFS:
            raise InputError(
                f"{name} of {self.revision} is kept in Git LFS, and its content is not here.",
                f"Type: git lfs fetch origin {self.revision}",
            )

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
    known = _git(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    if known.returncode:
        raise InputError(
            f"{revision!r} is not a revision that git knows here.",
            f"Type: git fetch origin {revision}. A check-out of one commit (fetch-depth: 1) has no other.",
        )
    with TemporaryDirectory(prefix="bnfold-") as folder:
        yield Earlier(Path(folder), root, revision=known.stdout.decode().strip())


def _git(folder: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(["git", *arguments], cwd=folder, capture_output=True, check=False)
    except OSError as error:
        raise BnfoldError(f"git could not be run: {error}.", "Check its installation.") from error
