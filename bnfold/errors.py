"""What could not be done at all, and how to fix it.

A BatchNorm that stays is not an error: that is a [`Reason`][bnfold.reasons.Reason], a value in the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence


class BnfoldError(Exception):
    """Base of every error that bnfold raises on purpose.

    Args:
        problem: One line that says what is wrong, naming the file, node or value.
        fix: What the user can do or type. Shown after the problem.
    """

    exit_code = 2

    def __init__(self, problem: str, fix: str = "") -> None:
        super().__init__(f"{problem}\n{fix}" if fix else problem)
        self.problem = problem
        self.fix = fix


class ModelError(BnfoldError):
    """A model file that cannot be read, or is not what its name says."""


class ExternalDataError(ModelError):
    """A file that a model keeps tensors in is not there, not whole, or not to be read.

    Attributes:
        is_outside: Whether it is outside the model's folder, or could be.
    """

    def __init__(self, problem: str, fix: str = "", *, is_outside: bool = False) -> None:
        super().__init__(problem, fix)
        self.is_outside = is_outside


class UnsafePickleError(ModelError):
    """A pickle that asks for code beyond the classes that were allowed."""


class InputError(BnfoldError):
    """Input shapes, types or data that are missing or do not fit the model."""


class MissingShapeError(InputError):
    """The shape of an input that neither the file nor the user gave.

    Args:
        problem: As in `BnfoldError`.
        options: The options to add to the command, word by word; sizes to fill in are in angle brackets, and
            all others are a guess.
    """

    def __init__(self, problem: str, options: Sequence[str]) -> None:
        self.options = tuple(options)
        super().__init__(problem, "\n".join(filter(None, [f"Add: {' '.join(options)}", self.caution])))

    @property
    def has_blanks(self) -> bool:
        """Whether a size among the options is still to be filled in."""
        return any("<" in option for option in self.options)

    @property
    def caution(self) -> str:
        """What to keep in mind where the options are whole; empty where they have blanks."""
        if self.has_blanks:
            return ""
        return "This size is a guess: if the model was trained on another one, give that."


class MissingExtraError(BnfoldError):
    """An optional dependency that this command needs and that is not installed.

    Args:
        package: The import name that is missing.
        extra: bnfold's extra that brings it.
        purpose: What it is needed for, as the end of "is needed to …".
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{package} is needed to {purpose}, and is not installed.",
            f'Type: pip install "bnfold[{extra}]"',
        )


class ProviderError(BnfoldError):
    """An execution provider that was asked for and is not there, or did not run the model."""


class SaveError(BnfoldError):
    """An output that could not be written; what stood there before is unchanged."""


class DisagreementError(BnfoldError):
    """The folded model does not compute what the original computes.

    Args:
        problem: As in `BnfoldError`.
        fix: As in `BnfoldError`.
        cause: The first thing that disagrees, as a sentence, for where no report shows it.
    """

    exit_code = 1

    def __init__(self, problem: str, fix: str = "", *, cause: str = "") -> None:
        super().__init__(problem, fix)
        self.cause = cause


class UndecidedError(BnfoldError):
    """Two models that nothing can be said about, since nothing could be compared."""


class UnforeseenError(BnfoldError):
    """A fault of bnfold's own, found on a file; its cause is what Python raised.

    Args:
        path: The file.
        error: What Python raised.
    """

    def __init__(self, path: object, error: BaseException) -> None:
        super().__init__(
            f"{path}: bnfold did not foresee this: {type(error).__name__}: {reason(error)}.",
            "This is a bug in bnfold. bnfold --bug-report writes a report without your weights.",
        )


class FileAccessError(BnfoldError, OSError):
    """A file or a folder that the operating system does not let bnfold use.

    Args:
        path: What was asked for; the error may name another file.
        error: What the system said.
    """

    def __init__(self, path: object, error: OSError) -> None:
        super().__init__(
            f"{error.filename or path} cannot be used: {reason(error)}.",
            "Check that it is there, its permissions, and the space on its disk.",
        )


class OutOfMemoryError(BnfoldError, MemoryError):
    """A file, or what was asked for, takes more memory than there is."""


def reason(error: BaseException) -> str:
    """Reduce any exception to one line: the first line of its message, or the name of its class."""
    if isinstance(error, BnfoldError):
        return error.problem.rstrip(".")
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    lines = (line.strip() for line in str(error).splitlines())
    return next((line.rstrip(".:") for line in lines if line), type(error).__name__)


def listed(names: Iterable[str], most: int = 4) -> str:
    """Names in a sentence: the first few, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
