"""Where a command prints: progress on a terminal only, and words that survive any terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

pty = pytest.importorskip("pty")


def started(arguments: list[str], **options) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "bnfold", *arguments], **options)


def on_a_terminal(arguments: list[str]) -> tuple[int, str, str]:
    """Run with standard error on a terminal; exit code, standard output, and what the terminal received."""
    ours, theirs = pty.openpty()
    process = started(arguments, stdout=subprocess.PIPE, stderr=theirs, env={**os.environ, "TERM": "xterm"})
    os.close(theirs)
    stdout, _ = process.communicate(timeout=600)
    return process.returncode, stdout.decode(), drained(ours).decode()


def drained(terminal: int) -> bytes:
    """All that a terminal receives until its other side is closed, and then close it."""
    received = b""
    try:
        while block := os.read(terminal, 4096):
            received += block
    except OSError:  # Linux says so at the end of a terminal
        pass
    os.close(terminal)
    return received


def test_a_terminal_shows_progress_and_standard_output_none(model: Path) -> None:
    code, stdout, received = on_a_terminal(["inspect", str(model)])
    assert code == 0
    assert "Folding" in received
    assert "Folding" not in stdout
    assert "\x1b" not in stdout


def test_quiet_shows_no_progress(model: Path) -> None:
    code, stdout, received = on_a_terminal(["inspect", str(model), "--quiet"])
    assert (code, stdout, received) == (0, "", "")


def test_a_pipe_shows_no_progress(model: Path) -> None:
    environment = {**os.environ, "FORCE_COLOR": "1"}  # rich takes this for a terminal
    process = started(
        ["inspect", str(model)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
    )
    _, stderr = process.communicate(timeout=600)
    assert stderr == b""


def test_an_encoding_without_the_signs_is_no_error(tmp_path: Path, model: Path) -> None:
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    strange = tmp_path / "módel.onnx"
    strange.write_bytes(model.read_bytes())
    for extra in ([], ["--json", "-"]):
        process = started(["inspect", str(strange), *extra], stdout=subprocess.PIPE, env=environment)
        stdout, _ = process.communicate(timeout=600)
        assert process.returncode == 0
        assert b"BatchNormalization" in stdout


def test_a_reader_that_has_gone_is_no_disagreement(model: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = started(["inspect", str(model)], stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    _, stderr = process.communicate(timeout=600)
    assert (process.returncode, stderr) == (141, b"")


def test_lines_in_a_pipe_end_without_spaces(run, stubborn: Path) -> None:
    lines = run("inspect", stubborn).stdout.splitlines()
    assert lines == [line.rstrip() for line in lines]


def test_options_of_pictures_need_pictures(run, model: Path, tmp_path: Path) -> None:
    result = run("validate", model, model, "--mean", "0.5")
    assert result.exit_code == 2
    assert result.stderr.startswith("bnfold: --mean, --std and --size are for images.")
    result = run("bench", model, model, "--inputs", tmp_path / "absent")
    assert result.exit_code == 2
    assert "absent is not there" in result.stderr


def test_a_folder_of_pictures_is_run_on(run, model: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name in ("a.png", "b.jpg"):
        image.effect_noise((20, 10), 50).save(tmp_path / name)
    result = run("validate", model, model, "--inputs", tmp_path, "--mean", "imagenet")
    assert result.exit_code == 0, result.stderr
    result = run("validate", model, model, "--inputs", tmp_path, "--size", "9x9")
    assert result.exit_code == 2
    assert "--size is 9x9" in result.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize("extra", [[], ["--json", "-"]])
def test_a_report_that_cannot_be_printed(model: Path, tmp_path: Path, extra: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        process = started(
            ["fold", str(model), "-o", str(tmp_path / "out.onnx"), *extra],
            stdout=full,
            stderr=subprocess.PIPE,
        )
        _, stderr = process.communicate(timeout=600)
    assert process.returncode == 2
    assert b"The report could not be printed: No space left on device." in stderr
    assert (tmp_path / "out.onnx").stat().st_size


def test_without_any_standard_output_the_work_is_done(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    words = [sys.executable, "-m", "bnfold", "fold", str(model), "-o", str(out)]
    done = subprocess.run(
        ["sh", "-c", '"$@" >&-', "sh", *words], capture_output=True, timeout=600, check=False
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert out.stat().st_size


def test_a_name_reaches_no_terminal_as_a_command(model: Path, tmp_path: Path) -> None:
    proto = onnx.load(model)
    bad = (
        "".join(map(chr, [*range(1, 32), *range(0x7F, 0xA0), 0x202E, 0x2066]))
        .replace("\n", "")
        .replace("\t", "")
    )
    for node in proto.graph.node:
        node.name = f"{node.name}{bad}]0;title"
    onnx.save(proto, tmp_path / "bad.onnx")
    (tmp_path / f"empty{chr(27)}[31m.onnx").write_bytes(b"")
    for arguments in (
        ["inspect", "bad.onnx"],
        ["inspect", "bad.onnx", "--json", "-"],
        ["fold", "bad.onnx", "-o", "o.onnx"],
    ):
        ours, theirs = pty.openpty()
        environment = {**os.environ, "TERM": "dumb", "NO_COLOR": "1"}  # so that rich itself sends no escapes
        process = started(arguments, stdout=theirs, stderr=subprocess.DEVNULL, env=environment, cwd=tmp_path)
        os.close(theirs)
        received = drained(ours)
        assert process.wait(timeout=600) == 0
        text = received.decode().replace("\r\n", "\n")
        assert not [c for c in text if c not in "\n\t" and not c.isprintable()]
    _, _, received = on_a_terminal(
        ["fold", str(tmp_path / f"empty{chr(27)}[31m.onnx"), "-o", str(tmp_path / "p.onnx")]
    )
    assert "\x1b[31m" not in received
    assert "\N{SYMBOL FOR ESCAPE}[31m" in received
