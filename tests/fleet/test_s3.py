"""An object store that speaks S3, on the loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bnfold.errors import InputError
from bnfold.fleet import sources
from bnfold.fleet.ledger import Ledger
from bnfold.fleet.plan import Plan
from bnfold.fleet.run import run
from bnfold.gate.settings import Settings
from tests.fleet.conftest import Here

pytestmark = [pytest.mark.fleet, pytest.mark.filterwarnings("default")]
SECRET, KEY = "battery-staple", "correct-horse"


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    s3fs = pytest.importorskip("s3fs", reason='needs: pip install "bnfold[s3]"')
    moto = pytest.importorskip("moto.server", reason='needs: pip install "moto[server]"')
    server = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in (("ENDPOINT_URL", address), ("ACCESS_KEY_ID", KEY), ("SECRET_ACCESS_KEY", SECRET)):
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    s3fs.S3FileSystem.clear_instance_cache()
    fs = s3fs.S3FileSystem()
    if not fs.exists("zoo"):  # moto keeps its buckets from test to test
        fs.mkdir("zoo")
    yield fs
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_read_written_and_resumed(store: Any, here: Here, zoo: Path) -> None:
    store.put(f"{zoo}/", "zoo/models/", recursive=True)
    models = list(sources.models(["s3://zoo/models"], "fold", Settings()))
    plan = Plan("fold", "s3://zoo/out")
    with Ledger(plan, models[:1]) as ledger:
        run(ledger, here)
    with Ledger(plan, models) as ledger:
        done = run(ledger, here, resume=True)
    assert (done.progress.known, done.bad) == (1, 1)
    lines = store.cat_file("zoo/out/results.jsonl").decode().splitlines()
    assert [Path(json.loads(line)["path"]).name for line in lines] == [
        "folds.onnx",
        "broken.onnx",
        "stays.onnx",
    ]
    assert store.exists("zoo/out/models/a/folds.onnx")
    store.invalidate_cache()
    written = b"".join(store.cat(store.find("zoo/out")).values()).decode(errors="replace")
    assert SECRET not in written
    assert KEY not in written


def test_a_file_and_a_folder_of_one_name(store: Any, here: Here, zoo: Path, tmp_path: Path) -> None:
    content = (zoo / "a" / "folds.onnx").read_bytes()
    names = ("net.onnx", "net.onnx/part.onnx", "other.onnx")
    for name in names:
        store.pipe_file(f"zoo/same/{name}", content)

    def found(*given: str, names: tuple[str, ...] = ()) -> set[str]:
        return {model.url for model in sources.models(given, "fold", Settings(), names)}

    urls = [f"s3://zoo/same/{name}" for name in names]
    assert found("s3://zoo/same") == found("s3://zoo/same/**/*.onnx") == {*urls}
    assert found("s3://zoo/same/*.onnx") == {urls[0], urls[2]}
    assert found("s3://zoo/same/net.onnx/") == {urls[1]}
    assert found(names=(urls[0],)) == {urls[0]}
    with pytest.raises(InputError, match="is a file and a folder"):
        found(urls[0])
    with Ledger(Plan("fold", str(tmp_path)), sources.models(["s3://zoo/same"], "fold", Settings())) as ledger:
        assert run(ledger, here).bad == 0
    assert len([*(tmp_path / "models").rglob("*.onnx")]) == 4, "three files in, with a folder"


def test_an_entry_that_is_refused_is_said_without_the_key(store: Any, here: Here) -> None:
    """What the store answers to a bucket that is not there."""
    absent = sources.models([], "fold", Settings(), ["s3://nowhere/net.onnx"])
    plan = Plan("fold", "s3://zoo/out")
    with Ledger(plan, absent) as ledger:
        run(ledger, here)
    [line] = store.cat_file("zoo/out/results.jsonl").decode().splitlines()
    assert json.loads(line)["state"] == "unreachable"
    assert SECRET not in line
