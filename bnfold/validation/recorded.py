"""The outputs of a model at one setting, recorded so that sessions need not be in memory at the same time."""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np

from bnfold.errors import ModelError
from bnfold.runtime.sessions import Feeds
from bnfold.system.memory import return_freed

_LARGE = 1 << 20  # bytes of an array that is kept in a file


@dataclass
class Recorded:
    """A model at one setting, which runs from a session or from what was recorded of one.

    A session of a large model takes one to three times the memory of its weights.

    Attributes:
        start: Makes the session; raises ModelError where it cannot be made.
        call: Runs the session; raises ModelError where it rejects the inputs.
    """

    start: Callable[[], Any]
    call: Callable[[Any, Feeds], list[Any]]
    broken: ModelError | None = field(default=None, init=False)
    """Why no session can be made, once that has been tried."""
    _session: Any = None
    _records: dict[int, tuple[Feeds, list[Any] | ModelError]] = field(default_factory=dict)
    _file: IO[bytes] | None = None

    def open(self) -> None:
        """Make the session, unless it is there.

        Raises:
            ModelError: It cannot be made.
        """
        if self.broken is not None:
            raise self.broken
        if self._session is None:
            try:
                self._session = self.start()
            except ModelError as error:
                self.broken = error
                raise

    def again(self, feeds: Feeds) -> list[Any]:
        """The outputs of a run that really takes place.

        Raises:
            ModelError: The session cannot be made, or rejects the inputs.
        """
        self.open()
        return self.call(self._session, feeds)

    def run(self, feeds: Feeds) -> list[Any]:
        """The recorded outputs for these very inputs, or those of a run.

        Raises:
            ModelError: The session cannot be made, or rejects the inputs.
        """
        if id(feeds) not in self._records:
            return self.again(feeds)
        found = self._records[id(feeds)][1]
        if isinstance(found, ModelError):
            raise found
        return [self._taken(value) for value in found]

    def record(self, samples: Iterable[Feeds], step: Callable[[], None] = lambda: None) -> None:
        """Run all inputs, call `step` after each, and close the session.

        What the model rejects is recorded as well.
        """
        for feeds in samples:
            if id(feeds) not in self._records:
                self._records[id(feeds)] = feeds, self._outcome(feeds)
            step()
        if self._session is not None:
            self._session = None
            return_freed()

    def _outcome(self, feeds: Feeds) -> list[Any] | ModelError:
        try:
            return [self._laid_down(value) for value in self.again(feeds)]
        except ModelError as error:
            return error

    def _laid_down(self, value: Any) -> Any:
        """A value, or where in the file it is."""
        if not isinstance(value, np.ndarray) or value.nbytes < _LARGE or value.dtype.hasobject:
            return value
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="bnfold-")  # noqa: SIM115 - closed with this object
            weakref.finalize(self, self._file.close)
        place = self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(value).data.cast("B"))
        return _Place(place, value.shape, value.dtype)

    def _taken(self, value: Any) -> Any:
        if not isinstance(value, _Place) or self._file is None:
            return value
        found = np.empty(value.shape, value.dtype)
        self._file.seek(value.offset)
        self._file.readinto(found.data.cast("B"))  # type: ignore[attr-defined]  # of binary files
        return found


@dataclass(frozen=True)
class _Place:
    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
