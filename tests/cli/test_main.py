"""The command itself: its start, its help, its errors and exit codes."""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import click
import numpy as np
import onnx
import pytest

import bnfold_cli
from bnfold.errors import BnfoldError

HEAVY = ("torch", "onnxruntime", "onnx_ir", "onnx", "numpy", "rich")


def bnfold(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "bnfold", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)


def loaded_by(statement: str) -> set[str]:
    """The heavy packages that a fresh interpreter has loaded after a statement."""
    script = f"import sys\n{statement}\nprint(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


def test_help_loads_no_library_and_names_every_command() -> None:
    help_page = "from bnfold_cli import main\nmain(['--help'], standalone_mode=False)"
    assert loaded_by(help_page) == set()


def test_help_takes_less_than_half_a_second() -> None:
    def seconds() -> float:
        """The processor's time, which other processes lengthen far less than the clock's."""
        start = os.times()
        assert bnfold("--help").returncode == 0
        end = os.times()
        return end.children_user + end.children_system - start.children_user - start.children_system

    assert min(seconds() for _ in range(3)) < 0.5


def test_import_of_bnfold_loads_neither_torch_nor_onnxruntime() -> None:
    assert not loaded_by("import bnfold") & {"torch", "onnxruntime"}


def test_help_gives_every_command_its_first_line(run) -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in bnfold_cli.COMMANDS:
        command = importlib.import_module(f"bnfold_cli.{name}").command
        first = command.help.splitlines()[0]
        shown = " ".join(result.stdout.split())
        assert first in shown, f"{name}: the line is cut short in the list of commands"


def test_help_says_what_the_exit_codes_mean(run, model: Path, monkeypatch) -> None:
    from bnfold.system import doctor
    from bnfold.system.environment import environment

    page = " ".join(run("--help").stdout.split())
    assert "  doctor  " in run("--help").stdout
    assert (
        "Exit codes: 0, success; 1, the answer is negative (the outputs disagree, a report no longer holds, "
        "the model is not faster with --only-if-faster, something stands in the way of --target, "
        "--fail-on names what a model has, or check, fleet or doctor found something); 2, an error, such as "
        "a wrong option or a file that cannot be read."
    ) in page
    problem = doctor.Finding("problem", "cpu", "It does not run.")
    monkeypatch.setattr(doctor, "doctor", lambda: doctor.Diagnosis(environment(), (problem,)))
    assert run("doctor").exit_code == 1
    assert run("inspect", model).exit_code == 0
    for name in ("validate", "doctor"):
        assert "Exit code 1 means that" in " ".join(run(name, "--help").stdout.split())


@pytest.mark.parametrize("name", bnfold_cli.COMMANDS)
def test_the_help_of_a_command_teaches_with_examples(run, name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert f"bnfold {name}" in result.stdout.split("Examples:")[1]
    assert "--json" in result.stdout


@pytest.mark.parametrize("name", bnfold_cli.COMMANDS)
def test_a_default_is_shown_as_it_is_typed(run, name: str) -> None:
    page = " ".join(run(name, "--help").stdout.split())
    shown = re.findall(r"\[default: ([^\];]+)", page)
    assert all(re.fullmatch(r"[a-z0-9_.-]+", default) for default in shown), shown
    assert len(shown) == page.count("default: ")


def test_version(run) -> None:
    from bnfold._version import __version__

    assert run("--version").stdout == f"bnfold {__version__}\n"


def test_unknown_command_is_a_usage_error(run) -> None:
    result = run("explode")
    assert (result.exit_code, result.stdout) == (2, "")
    assert "No such command" in result.stderr


class Raising(bnfold_cli.LazyGroup):
    """The real group with one command that raises a given exception."""

    error: BaseException

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        del ctx

        def fail() -> None:
            raise self.error

        return click.Command(cmd_name, callback=fail)


def outcome_of(error: BaseException, *arguments: str):
    from click.testing import CliRunner

    group = Raising(name="bnfold", params=bnfold_cli.main.params, callback=bnfold_cli.main.callback)
    group.error = error
    return CliRunner().invoke(group, [*arguments, "any"])


def test_an_error_is_its_problem_and_its_fix() -> None:
    result = outcome_of(BnfoldError("it is broken.", "Mend it."))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == "bnfold: it is broken.\n  Mend it.\n"


def test_an_error_chooses_the_exit_code() -> None:
    from bnfold.errors import DisagreementError

    assert outcome_of(DisagreementError("they differ.")).exit_code == 1


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_traceback_comes_when_asked_for_and_keeps_the_exit_code(monkeypatch, by_variable: bool) -> None:
    if by_variable:
        monkeypatch.setenv("BNFOLD_TRACEBACK", "1")
    result = outcome_of(BnfoldError("it is broken."), *([] if by_variable else ["--traceback"]))
    assert result.exit_code == 2
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("bnfold: it is broken.\n")


def test_an_unforeseen_error_is_not_taken_for_a_disagreement() -> None:
    result = outcome_of(ZeroDivisionError("division by zero"))
    assert result.exit_code == 2
    assert result.stderr.startswith("bnfold: ZeroDivisionError: division by zero\n")
    assert "Traceback" not in result.stderr


def test_too_little_memory_is_not_a_bug() -> None:
    result = outcome_of(MemoryError("Unable to allocate 142. MiB"))
    assert result.exit_code == 2
    assert result.stderr.startswith("bnfold: There is not enough memory. Unable to allocate 142. MiB\n")
    assert "report" not in result.stderr


def test_an_interrupt_exits_130() -> None:
    result = outcome_of(KeyboardInterrupt())
    assert (result.exit_code, result.stdout) == (130, "")
    assert "Traceback" not in result.stderr


def test_a_real_process_says_one_clear_line(tmp_path: Path) -> None:
    done = bnfold("inspect", str(tmp_path / "nowhere.onnx"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == f"bnfold: {tmp_path / 'nowhere.onnx'} is not there."
    assert "Traceback" not in done.stderr


class Lasting:
    """Something that takes a while to finalise, as closing a large file does."""


def test_a_signal_that_falls_on_a_finalizer_is_not_lost() -> None:
    """Python prints an exception in there and goes on: the command would end as if nothing had been."""
    survived = []

    def finalise() -> None:
        signal.raise_signal(signal.SIGTERM)
        survived.append(True)

    def command() -> None:
        kept = Lasting()
        weakref.finalize(kept, finalise)
        with bnfold_cli._ended_like_interrupts():
            del kept
            assert survived
            time.sleep(30)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt) as caught:
        command()
    assert caught.value.args == (signal.SIGTERM,)
    assert signal.getsignal(signal.SIGTERM) == before


def test_an_interrupt_in_code_made_of_a_string_ends_with_its_own_code() -> None:
    """CPython would end itself with SIGINT where the very KeyboardInterrupt has passed through such code."""
    script = "\n".join(
        (
            "import click, signal, bnfold_cli",
            "def deed(): exec('signal.raise_signal(signal.SIGTERM)')",
            "bnfold_cli.LazyGroup.get_command = lambda *_: click.Command('fold', callback=deed)",
            "bnfold_cli.main(['fold'])",
        )
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=600, check=False
    )
    assert (done.returncode, "interrupted" in done.stderr) == (128 + signal.SIGTERM, True)


@pytest.fixture
def broken(monkeypatch):
    """Let every fold fail in a way that nobody foresaw."""

    def fail(*_: object, **__: object) -> None:
        raise LookupError("the thing \x1b[31m that nobody foresaw")

    monkeypatch.setattr("bnfold.pipeline.fold_file.fold_into", fail)


@pytest.mark.usefixtures("broken")
def test_a_bug_asks_for_a_report(run, model: Path, monkeypatch) -> None:
    words = ["fold", str(model), "-o", str(model.with_name("out.onnx"))]
    monkeypatch.setattr(sys, "argv", ["bnfold", *words])
    result = run(*words)
    assert result.exit_code == 2
    assert f"bnfold --bug-report fold {model}" in result.stderr
    assert not list(model.parent.glob("*bug*"))


@pytest.mark.usefixtures("broken")
def test_a_report_of_a_bug_has_all_but_the_weights(run, model: Path, monkeypatch) -> None:
    proto = onnx.load(model)
    secret = np.full((8, 16), 0.123456, np.float32)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(secret, "secret"))
    proto.graph.initializer.append(onnx.numpy_helper.from_array(np.array([42, 43]), "sizes"))
    inner = onnx.helper.make_node("Constant", [], ["c"], value=onnx.numpy_helper.from_array(secret, "inner"))
    proto.graph.node.insert(0, inner)
    onnx.save(proto, model)
    words = ["--bug-report", "fold", str(model), "-o", str(model.with_name("out.onnx"))]
    monkeypatch.setattr(sys, "argv", ["bnfold", *words])
    result = run(*words)
    assert result.exit_code == 2
    report = model.with_name(f"{model.name}.bnfold-bug.txt")
    assert str(report) in result.stderr
    text = report.read_text(encoding="utf-8")
    for part in (
        f"bnfold fold {model}",
        "LookupError",
        "fold_file",
        "python 3",
        "onnxruntime",
        "secret",
        "43",
    ):
        assert part in text
    assert "0.123" not in text
    assert "secret = " in text or "secret" in text.split("## Graph")[1]


def test_a_report_without_a_model_goes_into_the_current_folder(run, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)

    def fail() -> None:
        raise LookupError("nobody foresaw this")

    monkeypatch.setattr("bnfold.system.doctor.doctor", fail)
    monkeypatch.setattr(sys, "argv", ["bnfold", "--bug-report", "doctor"])
    assert run("--bug-report", "doctor").exit_code == 2
    assert "nobody foresaw this" in Path("bnfold-bug.txt").read_text(encoding="utf-8")
