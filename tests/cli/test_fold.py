"""`bnfold fold` writes the folded model, and never over the original."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from bnfold.pipeline import fold_file
from tests.graphs import build, statistics


def operators(path) -> list[str]:
    return [node.op_type for node in onnx.load(path).graph.node]


def test_it_writes_the_folded_model(run, model, tmp_path) -> None:
    result = run("fold", model, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0, result.stderr
    assert operators(tmp_path / "out.onnx") == ["Conv"]
    assert "1 of 1 site folded" in result.stdout
    assert "Wrote" in result.stdout
    assert "bnfold validate" in result.stdout  # nothing was compared, and it says how to


@pytest.mark.parametrize("command", ["fold", "export"])
def test_no_batchnorm_is_left_for_a_target_that_has_none(run, tmp_path, command) -> None:
    between = build(
        "g (float[N,4,6] x) => (float[N,4,6] y) { s = Sigmoid(x) "
        "n = BatchNormalization(s, scale, bias, mean, var) y = Sigmoid(n) }",
        statistics(4),
    )
    onnx.save(between, tmp_path / "in.onnx")
    words = ["--no-bench"] if command == "export" else []
    for flags, left in (([], "BatchNormalization"), (["--no-batchnorm"], "Mul Add")):
        out, report = tmp_path / f"{len(flags)}.onnx", tmp_path / f"{len(flags)}.json"
        result = run(command, tmp_path / "in.onnx", "-o", out, "--json", report, *words, *flags)
        assert result.exit_code == 0, result.stderr
        assert " ".join(operators(out)) == f"Sigmoid {left} Sigmoid"
        summary = json.loads(report.read_text())["fold"]["summary"]
        assert (summary["decomposed"], summary["kept"]) == ((1, 0) if flags else (0, 1))
    assert "1 became other operators" in result.stdout


def test_the_same_input_gives_the_same_bytes(run, model, tmp_path) -> None:
    for name in ("a.onnx", "b.onnx"):
        assert run("fold", model, "-o", tmp_path / name).exit_code == 0
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_json_names_both_files(run, model, tmp_path) -> None:
    result = run("fold", model, "-o", tmp_path / "out.onnx", "--json", "-")
    report = json.loads(result.stdout)
    assert report["output"]["bytes"] == (tmp_path / "out.onnx").stat().st_size
    assert report["source"]["path"] == str(model)
    assert report["validation"] is None


def test_an_output_that_is_there_is_replaced(run, model, tmp_path) -> None:
    (tmp_path / "out.onnx").write_text("old")
    assert run("fold", model, "-o", tmp_path / "out.onnx").exit_code == 0
    assert operators(tmp_path / "out.onnx") == ["Conv"]


def test_the_source_is_never_replaced(run, model, tmp_path) -> None:
    before = model.read_bytes()
    link = tmp_path / "link.onnx"
    link.symlink_to(model)
    for output in (model, link):
        result = run("fold", model, "-o", output)
        assert result.exit_code == 2
        assert "use --in-place to replace it" in result.stderr
    assert model.read_bytes() == before


def test_the_report_is_never_written_over_a_model(run, model, tmp_path) -> None:
    before = model.read_bytes()
    for place in (model, tmp_path / "out.onnx"):
        assert run("fold", model, "-o", tmp_path / "out.onnx", "--json", place).exit_code == 2
    assert model.read_bytes() == before
    assert not (tmp_path / "out.onnx").exists()


def test_a_missing_folder_is_said_before_any_work(run, model, tmp_path) -> None:
    result = run("fold", model, "-o", tmp_path / "nowhere" / "out.onnx")
    assert result.exit_code == 2
    assert "mkdir -p" in result.stderr


def test_a_pytorch_file_is_sent_to_export(run, tmp_path) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(b"PK\x03\x04")
    result = run("fold", path, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 2
    assert result.stderr.splitlines()[1] == f"  Type: bnfold export {path} -o {tmp_path / 'out.onnx'}"


def test_a_name_of_a_pytorch_file_is_refused(run, model: Path, tmp_path: Path) -> None:
    result = run("fold", model, "-o", tmp_path / "folded.pt")
    assert result.exit_code == 2
    assert "folded.pt is the name of a PyTorch file" in result.stderr
    assert not (tmp_path / "folded.pt").exists()


def test_the_output_must_be_named(run, model) -> None:
    assert run("fold", model).exit_code == 2


@pytest.mark.parametrize("output", ["-", "pipe"])
def test_a_model_goes_to_an_ordinary_file_only(run, model, output, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)  # and not /dev/null, which a root who runs this on broken code would lose
    result = run("fold", model, "-o", output)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"bnfold: {output} is not an ordinary file.\n")
    assert "--json -" in result.stderr
    assert pipe.is_fifo()
    assert sorted(tmp_path.iterdir()) == [model, pipe]


def test_a_read_only_folder_is_said_before_any_work(run, model, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(fold_file, "read_onnx", lambda _: pytest.fail("it was read"))
    folder = tmp_path / "theirs"
    folder.mkdir()
    # patched, since whoever runs the tests may be root, who may write anywhere
    monkeypatch.setattr(os, "access", lambda path, mode: (Path(path), mode) != (folder, os.W_OK))
    for place in (("-o", folder / "m.onnx"), ("-o", tmp_path / "m.onnx", "--json", folder / "r.json")):
        result = run("fold", model, *place)
        assert result.exit_code == 2
        assert "is read-only.\n  Give a folder that you may write to." in result.stderr


def test_what_is_named_stays(run, model, tmp_path) -> None:
    out = tmp_path / "out.onnx"
    result = run("fold", model, "-o", out, "--keep", "batchnormalization_1", "--json", "-")
    assert result.exit_code == 0, result.stderr
    (site,) = json.loads(result.stdout)["fold"]["sites"]
    assert (site["status"], site["reason"]["code"]) == ("kept", "BN108")
    assert operators(out) == ["Conv", "BatchNormalization"]
    result = run("fold", model, "-o", out, "--keep", "batchnormalization_1")
    assert "0 of 1 site folded; 1 stays." in result.stdout
    assert "More on a reason: bnfold explain BN108" in result.stdout


@pytest.mark.parametrize("command", ["fold", "export"])
def test_a_name_that_there_is_not_exits_2(run, model, tmp_path, command: str) -> None:
    out = tmp_path / "out.onnx"
    result = run(command, model, "-o", out, "--keep", "batchnormalization_1", "--keep", "bn7")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[0] == ("bnfold: The model has no node named bn7, which was to be kept.")
    assert "bnfold inspect" in result.stderr
    assert not out.exists()


def test_a_name_that_is_nearly_right_is_corrected(run, model, tmp_path) -> None:
    result = run("fold", model, "-o", tmp_path / "out.onnx", "--keep", "batchnormalisation_1")
    assert "Did you mean batchnormalization_1?" in result.stderr


def test_in_place_replaces_the_source(run, model, tmp_path) -> None:
    assert run("fold", model, "-o", tmp_path / "out.onnx").exit_code == 0
    result = run("fold", model, "--in-place")
    assert result.exit_code == 0, result.stderr
    assert model.read_bytes() == (tmp_path / "out.onnx").read_bytes()
    assert "bnfold validate" not in result.stdout  # with what? the original is gone


def test_in_place_follows_a_link_and_keeps_permissions(run, model, tmp_path) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(model)
    model.chmod(0o640)
    assert run("fold", link, "--in-place").exit_code == 0
    assert link.is_symlink()
    assert operators(model) == ["Conv"]
    assert model.stat().st_mode & 0o777 == 0o640


def test_the_json_of_a_fold_in_place_tells_of_the_file_as_it_was(run, model) -> None:
    before = model.read_bytes()
    result = run("fold", model, "--in-place", "--json", "-")
    report = json.loads(result.stdout)
    assert report["source"]["path"] == report["output"]["path"] == str(model)
    assert report["source"]["sha256"] == hashlib.sha256(before).hexdigest()
    assert report["output"]["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert report["source"]["sha256"] != report["output"]["sha256"]


def test_in_place_with_external_data(run, model) -> None:
    proto = onnx.load(model)
    onnx.save(proto, model, save_as_external_data=True, location="weights.bin", size_threshold=0)
    data = (model.parent / "weights.bin").read_bytes()
    result = run("fold", model, "--in-place", "--json", "-")
    assert result.exit_code == 0, result.stderr
    assert [Path(file["path"]).name for file in json.loads(result.stdout)["source"]["external_data"]] == [
        "weights.bin"
    ]
    assert (model.parent / "weights.bin").read_bytes() == data  # somebody else's, perhaps another model's
    assert operators(model) == ["Conv"]


@pytest.mark.parametrize("options", [[], ["-o", "out.onnx", "--in-place"]])
def test_it_is_said_where_to_write(run, model, options) -> None:
    before = model.read_bytes()
    result = run("fold", model, *options)
    assert result.exit_code == 2
    assert "-o OUT.onnx, or use --in-place" in result.stderr
    assert model.read_bytes() == before


def test_a_fold_in_place_that_fails_changes_nothing(run, model, monkeypatch) -> None:
    before = model.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    result = run("fold", model, "--in-place")
    assert result.exit_code == 2
    assert "Free some space" in result.stderr
    assert model.read_bytes() == before
    assert [file.name for file in model.parent.iterdir()] == [model.name]


def test_the_report_is_never_written_over_the_model_in_place(run, model) -> None:
    before = model.read_bytes()
    assert run("fold", model, "--in-place", "--json", model).exit_code == 2
    assert model.read_bytes() == before


@pytest.fixture
def with_data(model, tmp_path) -> Path:
    """The same model, its weights in `weights.bin`."""
    path = tmp_path / "with_data.onnx"
    proto = onnx.load(model)
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    return path


@pytest.mark.parametrize("option", ["-o", "--json"])
def test_the_data_of_a_source_is_never_replaced(run, with_data, tmp_path, option: str) -> None:
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("weights.bin", "link.onnx"):
        if name == "link.onnx":
            (tmp_path / name).symlink_to("weights.bin")
        out = [] if option == "-o" else ["-o", tmp_path / "out.onnx"]
        result = run("fold", with_data, *out, option, tmp_path / name)
        assert result.exit_code == 2
        named_so = option == "-o" and name == "weights.bin"
        problem = "is not the name of an ONNX file" if named_so else "is an input or an output of this"
        assert problem in result.stderr
    assert all(path.read_bytes() == content for path, content in before.items())
    assert not (tmp_path / "out.onnx").exists()


@pytest.mark.parametrize("channels", [4, 48])  # 32 bytes go through protobuf, 4,608 do not
def test_a_fold_that_overflows_is_taken_back(run, tmp_path, channels: int) -> None:
    draw = np.random.default_rng(0)
    constants = {
        "w": draw.normal(0, 100, (channels, channels, 1, 1)),
        "scale": np.full(channels, 1e4),
        "bias": draw.normal(size=channels),
        "mean": draw.normal(size=channels),
        "var": draw.uniform(0.5, 2, channels),
    }
    half, shape = onnx.TensorProto.FLOAT16, [1, channels, 2, 2]
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "w"], ["v"]),
            onnx.helper.make_node("BatchNormalization", ["v", "scale", "bias", "mean", "var"], ["y"]),
        ],
        "half",
        [onnx.helper.make_tensor_value_info("x", half, shape)],
        [onnx.helper.make_tensor_value_info("y", half, shape)],
        [onnx.numpy_helper.from_array(array.astype(np.float16), name) for name, array in constants.items()],
    )
    onnx.save(
        onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)]), tmp_path / "m.onnx"
    )
    result = run("fold", tmp_path / "m.onnx", "-o", tmp_path / "out.onnx")
    assert result.exit_code == 0, result.stderr
    assert "BN401" in result.stdout
    assert operators(tmp_path / "out.onnx") == ["Conv", "BatchNormalization"]


@pytest.mark.parametrize("command", ["fold", "export", "inspect"])
def test_a_model_that_is_not_valid_is_said_not_to_be(run, model, tmp_path, command: str) -> None:
    """What goes wrong with it goes wrong somewhere in the middle, and is no defect of ours."""
    proto = onnx.load(model)
    proto.graph.node[-1].input[0] = "nowhere"
    onnx.save(proto, tmp_path / "damaged.onnx")
    out = [] if command == "inspect" else ["-o", tmp_path / "out.onnx"]
    result = run(command, tmp_path / "damaged.onnx", *out)
    assert result.exit_code == 2
    assert "damaged.onnx is not a valid ONNX model: " in result.stderr
    assert "nowhere" in result.stderr
    assert not (tmp_path / "out.onnx").exists()


def test_an_error_of_ours_is_not_blamed_on_a_valid_model(run, model, tmp_path, monkeypatch) -> None:
    def fails(*_args: object, **_options: object) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(fold_file, "fold_into", fails)
    result = run("fold", model, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 2
    assert "a defect" in result.stderr
    assert "a bug in bnfold" in result.stderr


@pytest.mark.parametrize(("field", "value"), [("offset", "-4"), ("length", "-1"), ("length", "abc")])
def test_a_place_in_external_data_that_is_none(run, with_data, tmp_path, field: str, value: str) -> None:
    proto = onnx.load(with_data, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == field:
            entry.value = value
    onnx.save(proto, with_data)
    result = run("fold", with_data, "-o", tmp_path / "out.onnx")
    assert result.exit_code == 2
    assert value in result.stderr
    assert "lambda" not in result.stderr


@pytest.mark.parametrize("command", [("fold",), ("export", "--no-validate", "--no-bench")])
def test_that_statistics_were_written_is_said(run, model, tmp_path, command: tuple[str, ...]) -> None:
    name, *options = command
    out, path = tmp_path / "out.onnx", tmp_path / "statistics.json"
    said = run(name, model, "-o", out, "--record", path, *options)
    many = len(json.loads(path.read_text())["batchnorms"])
    assert many
    assert f"Wrote {path} (statistics of {many} BatchNorm{'s' if many > 1 else ''})." in said.stdout
    again = run(name, out, "-o", tmp_path / "again.onnx", "--record", path, *options).stdout
    assert f"Wrote {path} (no statistics: no BatchNorm whose numbers are known was folded)." in again
    quiet = run(name, model, "-o", out, "--record", path, "--quiet", *options)
    assert (quiet.exit_code, quiet.stdout) == (0, "")
    for_programs = run(name, model, "-o", out, "--record", path, "--json", "-", *options)
    assert json.loads(for_programs.stdout)["command"] == name
