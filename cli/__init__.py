"""The `bnfold` command: one module per command, each loaded when it is used."""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import click
from click.shell_completion import CompletionItem

from . import _lazy

_MOMENT = 0.01  # seconds, after which a signal that arrived at a bad time is sent again

_QUIET = "bnfold.quiet"  # in click's meta
COMMANDS = {
    "export": "Turn a trained model into a checked ONNX file.",
    "fold": "Fold an ONNX model without running it.",
    "check": "Check every model of a repository.",
    "fleet": "Check, fold or export every model of a zoo.",
    "inspect": "Show what a model is, and what becomes of each of its BatchNorms.",
    "validate": "Compare the outputs of two ONNX models on the same data.",
    "bench": "Measure the latency of two ONNX models against each other.",
    "explain": "Explain why a BatchNorm stays, or a finding of `bnfold check`.",
    "targets": "List the targets that `--target` takes, or what one demands of a model.",
    "doctor": "Examine this installation and say what to fix.",
}
"""What each command says first of itself, so that `bnfold --help` imports none of them."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used, and reports its errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order in which a new user needs them."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the command's module."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = importlib.import_module(f".{cmd_name}", __name__).command
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Offer commands without importing them, and the options of the group."""
        known = [
            CompletionItem(name, help=text) for name, text in COMMANDS.items() if name.startswith(incomplete)
        ]
        return [*known, *click.Command.shell_complete(self, ctx, incomplete)]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them, which takes as long as all the rest."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Note whether the command is quiet, which has to be known even where its options are wrong."""
        ctx.meta[_QUIET] = not {"-q", "--quiet"}.isdisjoint(args)
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise _refused(error, ctx) from None

    def main(self, *arguments: Any, **options: Any) -> Any:
        """Run, and end the process at once where a run that was given up still goes on."""
        try:
            return super().main(*arguments, **options)
        except SystemExit as end:
            given_up = sys.modules.get("bnfold.runtime.bounded_run")
            if given_up is not None and given_up.is_left():
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(end.code if isinstance(end.code, int) else 1)
            raise

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and turn its errors into messages and exit codes."""
        try:
            with _ended_like_interrupts(), warnings.catch_warnings():
                if ctx.meta[_QUIET] and not sys.warnoptions:
                    warnings.simplefilter("ignore")
                return super().invoke(ctx)
        except KeyboardInterrupt as interrupt:
            click.echo("\nbnfold: interrupted.", err=True)
            sent = interrupt.args[0] if interrupt.args else signal.SIGINT
            raise click.exceptions.Exit(128 + sent) from None
        except BrokenPipeError:  # the reader has gone, as in `bnfold inspect MODEL | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise click.exceptions.Exit(141) from None
        except click.UsageError as error:
            raise _refused(error, ctx) from None
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except Exception as error:
            if ctx.params["show_traceback"]:
                traceback.print_exc()
            report = ctx.params["bug_report"]
            raise click.exceptions.Exit(_complain(error, quiet=ctx.meta[_QUIET], report=report)) from error


class _Ended(KeyboardInterrupt):
    """A signal has asked the command to end.

    A subclass, since CPython kills itself with SIGINT if KeyboardInterrupt itself has passed through code
    that was compiled from a string, such as the methods of a dataclass.
    """


@contextlib.contextmanager
def _ended_like_interrupts() -> Iterator[None]:
    """Let `kill`, and a terminal that closes, end the command as Ctrl-C does: unfinished files are removed.

    A signal that is ignored, as with nohup, stays ignored.
    """

    def interrupt(sent: int, frame: FrameType | None) -> None:
        if _in_finalizer(frame):
            threading.Timer(_MOMENT, _send_to_main_thread, (sent,)).start()
        else:
            raise _Ended(sent)

    names = [name for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]  # Windows: no SIGHUP
    usual = (signal.SIG_DFL, signal.default_int_handler)
    before = {sent: signal.getsignal(sent) for sent in (getattr(signal, name) for name in names)}
    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        before = {}
    taken = {sent: handler for sent, handler in before.items() if handler in usual}
    for sent in taken:
        signal.signal(sent, interrupt)
    try:
        yield
    finally:
        for sent, handler in taken.items():
            signal.signal(sent, handler)


def _send_to_main_thread(sent: int) -> None:
    """Send a signal to the thread that handles it: one that another thread gets does not end a wait there."""
    main_thread = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main_thread is not None:
        signal.pthread_kill(main_thread, sent)
    else:  # Windows
        signal.raise_signal(sent)


def _in_finalizer(frame: FrameType | None) -> bool:
    """Whether an object is being finalised: Python would print an exception raised there, and go on."""
    while frame is not None:
        if frame.f_globals.get("__name__") == "weakref":
            return True
        frame = frame.f_back
    return False


def _refused(error: click.UsageError, ctx: click.Context) -> Exception:
    """Print what is wrong with the command line, and what to type; return what ends the command."""
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is the answer; click 8.1 has no such error
        return error
    from bnfold.display.visible import visible

    from . import _usage

    problem, fix = _usage.answer(error, " ".join(filter(None, [ctx.command_path, ctx.invoked_subcommand])))
    click.echo(f"bnfold: {visible(' '.join(problem.split()))}", err=True)
    for line in visible(fix).splitlines():
        click.echo(f"  {line}", err=True)
    return click.exceptions.Exit(error.exit_code)


def _complain(error: Exception, *, quiet: bool, report: bool) -> int:
    """Print what is wrong and how to fix it; return the exit code.

    An error that bnfold did not raise on purpose is reported as a bug. Where a quiet command shows no report,
    the first line also says what the report would: the cause of a disagreement.
    """
    from bnfold.display.visible import visible
    from bnfold.errors import (
        BnfoldError,
        DisagreementError,
        FileAccessError,
        MissingShapeError,
        UnforeseenError,
    )

    if isinstance(error, UnforeseenError) and isinstance(error.__cause__, Exception):
        error = error.__cause__
    if isinstance(error, OSError) and not isinstance(error, BnfoldError):
        error = FileAccessError("A file", error)
    if isinstance(error, BnfoldError):
        problem, fix, exit_code = error.problem, error.fix, error.exit_code
        if isinstance(error, MissingShapeError) and not error.has_blanks:
            example = shlex.join(["bnfold", *sys.argv[1:], *error.options])
            fix = f"For example: {example}\n{error.caution}"
    elif isinstance(error, MemoryError):
        problem, exit_code = f"There is not enough memory. {error}".strip().splitlines()[0], 2
        fix = "Use a machine or a limit with more; a comparison also takes less with smaller --inputs."
    else:
        problem = f"{type(error).__name__}: {error}".splitlines()[0]
        fix, exit_code = _bug(error, report=report), 2
    if quiet and isinstance(error, DisagreementError) and error.cause:
        problem = " ".join(f"{problem.removesuffix('.')}: {error.cause}".split())
    click.echo(f"bnfold: {visible(problem)}", err=True)
    for line in visible(fix).splitlines():
        click.echo(f"  {line}", err=True)
    return exit_code


def _bug(error: Exception, *, report: bool) -> str:
    """Ask for a report of a bug, or write one."""
    if not report:
        again = shlex.join(["bnfold", "--bug-report", *sys.argv[1:]])
        return f"This is a bug in bnfold. To write a report without your weights, type: {again}"
    from . import _bug_report

    try:
        path = _bug_report.write(error, [one for one in sys.argv[1:] if one != "--bug-report"])
    except OSError as problem:
        return f"This is a bug in bnfold, and its report could not be written: {problem}"
    return f"This is a bug in bnfold. Please look through {path}, and send it with your report."


def _print_version(ctx: click.Context, option: click.Parameter, wanted: bool) -> None:
    del option
    if wanted and not ctx.resilient_parsing:
        _lazy.load_onnx_ir()
        from bnfold._version import __version__

        click.echo(f"bnfold {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.option(
    "--traceback",
    "show_traceback",
    is_flag=True,
    envvar="BNFOLD_TRACEBACK",
    help="Show Python's traceback of an error, for a bug report. BNFOLD_TRACEBACK=1 does the same.",
)
@click.option(
    "--bug-report",
    is_flag=True,
    help="If bnfold fails in a way that it did not foresee, write a report next to the model: the command,"
    " the versions, the traceback and the graph without weights.",
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Show the version and exit.",
)
def main(show_traceback: bool, bug_report: bool) -> None:
    """Fold the BatchNorms of a trained model into its weights, and prove that nothing changed.

    \b
    From a trained PyTorch model to a checked ONNX file:
        bnfold export model.pt --input-shape 1x3x224x224 -o model.onnx
    What would happen to each BatchNorm of an ONNX model, and why:
        bnfold inspect model.onnx
    What a reason code means:
        bnfold explain BN301

    Exit codes: 0, success; 1, the answer is negative (the outputs disagree, a report no longer holds, the
    model is not faster with --only-if-faster, something stands in the way of --target, --fail-on names what a
    model has, or check, fleet or doctor found something); 2, an error, such as a wrong option or a file that
    cannot be read.
    """
    del show_traceback, bug_report  # LazyGroup.invoke reads them from the context
