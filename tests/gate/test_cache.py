"""Answers are kept by all that decides them, and by nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bnfold.gate import cache as caching
from bnfold.gate.cache import Cache, key
from bnfold.gate.configuration import Configuration
from bnfold.gate.finding import Finding, Found
from bnfold.gate.run import Checked, check
from bnfold.gate.settings import Limits, Settings, Source, ValidationSettings
from bnfold.gate.work import Job
from tests.gate.models import codes, layers, save

FOUND = [
    Finding("a.onnx", "M101", Found("one", "{} of them", ("x", "y"), (3, 1)), "warning", True),
    Finding("a.onnx", "M107", Found("another"), "note"),
]


pytestmark = pytest.mark.usefixtures("in_process")


def answer_of(**others: object) -> bytes:
    """A kept answer with one finding that is not quite one."""
    return json.dumps({"findings": [FOUND[1].plain() | others]}).encode()


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """A folder with a model, and one with external data."""
    save(layers(seed=1), tmp_path / "models" / "a.onnx")
    save(layers(seed=2), tmp_path / "models" / "b.onnx", data="b.bin")
    return tmp_path / "models"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files count as settled at once."""
    monkeypatch.setattr(caching, "_RACY", -(10**12))


def run(models: Path, cache: Path | None, settings: Settings | None = None, **options: object) -> Checked:
    return check(str(models), Configuration(settings or Settings(), models), cache=cache, **options)  # type: ignore[arg-type]


def kept(cache: Path, kind: str) -> list[Path]:
    return sorted(cache.glob(f"v*/{kind}/*/*.json"))


# --- what is asked again ----------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusting")
def test_the_second_check_asks_nothing_and_finds_the_same(models, cache, in_process) -> None:
    first, second = run(models, cache), run(models, cache)
    assert in_process == ["a.onnx", "b.onnx"]
    assert (first.remembered, second.remembered) == (0, 2)
    assert first.findings == second.findings
    assert codes(first.findings) == ["M101", "M101"]
    assert first.findings[0].found.nodes == second.findings[0].found.nodes == (2, 1)


def test_without_a_cache_everything_is_asked(models, in_process) -> None:
    assert [run(models, None).remembered for _ in range(2)] == [0, 0]
    assert len(in_process) == 4


def test_the_same_content_anywhere_is_the_same_answer_under_its_own_name(models, cache, in_process) -> None:
    run(models, cache)
    (models / "a.onnx").rename(models / "moved.onnx")
    again = run(models, cache)
    assert again.remembered == 2
    assert [one.path for one in again.findings] == ["b.onnx", "moved.onnx"]
    assert len(in_process) == 2


@pytest.mark.usefixtures("trusting")
@pytest.mark.parametrize("changed", ["a.onnx", "b.onnx", "b.bin"])
def test_a_changed_file_is_asked_again(models, cache, in_process, changed: str) -> None:
    """Also where its size and the time that it shows are the same."""
    run(models, cache)
    path = models / changed
    before = path.stat()
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x3f", b"\x3e").replace(b"bias", b"move"))
    assert (path.stat().st_size, path.read_bytes() != content) == (before.st_size, True)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert run(models, cache).remembered == 1
    assert in_process[2:] == [changed.replace("bin", "onnx")]


@pytest.mark.parametrize(
    "settings",
    [
        Settings(ignore=("M101",)),
        Settings(extend_select=("M107",)),
        Settings(limits=Limits(opset=3)),
        Settings(per_file_ignores={"*.onnx": ("M2",)}),
    ],
)
def test_other_settings_are_another_question(models, cache, in_process, settings: Settings) -> None:
    run(models, cache)
    assert run(models, cache, settings).remembered == 0
    assert run(models, cache, settings).remembered == 2
    assert run(models, cache).remembered == 2
    assert len(in_process) == 4


def test_inputs_count_only_where_models_are_compared(models, cache, in_process, tmp_path) -> None:
    run(models, cache)
    absent = ValidationSettings(inputs=tmp_path / "absent.npz")
    assert run(models, cache, Settings(validation=absent)).remembered == 2
    assert in_process == ["a.onnx", "b.onnx"]


def test_a_changed_source_is_asked_again(models, cache, in_process, tmp_path) -> None:
    source = save(layers(seed=1), tmp_path / "source.onnx")
    settings = Settings(sources={"a.onnx": Source(source)})
    assert codes(run(models, cache, settings).findings) == ["M101", "M101"]
    assert run(models, cache, settings).remembered == 2
    save(layers(seed=5), source)
    again = run(models, cache, settings)
    assert again.remembered == 1
    assert codes(again.findings) == ["M101", "M401", "M101"]
    assert in_process == ["a.onnx", "b.onnx", "a.onnx"]


@pytest.mark.parametrize("reading", [{"arch": "package:factory"}, {"trust": True}, {"allow": ("a.B",)}])
def test_a_source_that_code_makes_is_always_asked(models, cache, in_process, tmp_path, reading) -> None:
    """The code is not part of any file that is known here."""
    source = save(layers(seed=1), tmp_path / "source.onnx")
    settings = Settings(sources={"a.onnx": Source(source, reading)}, select=("M401",))
    assert [run(models, cache, settings).remembered for _ in range(2)] == [0, 1]
    assert in_process == ["a.onnx", "b.onnx", "a.onnx"]


def test_an_earlier_model_is_part_of_the_question(models, cache, in_process, tmp_path) -> None:
    before = save(layers(seed=1), tmp_path / "before.onnx")
    settings = Settings(select=("M402",), include=("a.onnx",))
    assert run(models, cache, settings).remembered == 0
    assert run(models, cache, settings, earlier=str(before)).remembered == 0
    assert run(models, cache, settings, earlier=str(before)).remembered == 1
    save(layers(seed=5), before)
    assert codes(run(models, cache, settings, earlier=str(before)).findings) == ["M402"]
    assert len(in_process) == 3


def test_a_time_is_measured_every_time(models, cache, tmp_path, monkeypatch) -> None:
    from types import SimpleNamespace

    monkeypatch.setattr("bnfold.latency.benchmark.benchmark", lambda *_: SimpleNamespace(slower=()))
    before = save(layers(seed=1), tmp_path / "before.onnx")
    settings = Settings(select=("M405",), include=("a.onnx",))
    assert [run(models, cache, settings, earlier=str(before)).remembered for _ in range(2)] == [0, 0]


def test_another_version_of_bnfold_asks_again(models, cache, monkeypatch) -> None:
    run(models, cache)
    monkeypatch.setattr("bnfold.gate.run._versions", lambda: ("another",))
    assert run(models, cache).remembered == 0


# --- what is not kept -------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["M301", "M304", "M305"])
def test_what_more_than_the_content_decides_is_not_kept(models, cache, in_process, tmp_path, code) -> None:
    match code:
        case "M301":
            (models / "b.onnx").write_bytes(b"")
        case "M304":
            (models / "b.bin").unlink()
        case "M305":
            (models / "b.bin").rename(tmp_path / "b.bin")
            (models / "b.bin").symlink_to(tmp_path / "b.bin")
    assert codes(run(models, cache).findings) == ["M101", code]
    assert run(models, cache).remembered == 1
    assert in_process == ["a.onnx", "b.onnx", "b.onnx"]


def test_what_could_not_be_checked_is_not_kept(models, cache, monkeypatch) -> None:
    failed = Finding("a.onnx", "M300", Found("the file could not be checked"), "error")
    monkeypatch.setattr("bnfold.gate.work.answer", lambda *_: [failed])
    assert [run(models, cache).remembered for _ in range(2)] == [0, 0]


def test_data_that_comes_later_is_seen_although_its_absence_was_ignored(models, cache) -> None:
    """The model itself is the same file with the same content."""
    data = (models / "b.bin").read_bytes()
    (models / "b.bin").unlink()
    settings = Settings(ignore=("M304",), include=("b.onnx",))
    assert run(models, cache, settings).findings == ()
    (models / "b.bin").write_bytes(data)
    assert codes(run(models, cache, settings).findings) == ["M101"]


def test_a_file_that_changes_while_it_is_looked_at_is_not_kept(models, cache, monkeypatch) -> None:
    """The answer may be about either content."""

    def answer(job: Job, *_: object) -> list[Finding]:
        save(layers("y = Relu(a)"), job.path)
        return [FOUND[0]]

    monkeypatch.setattr("bnfold.gate.work.answer", answer)
    run(models, cache, Settings(include=("a.onnx",)))
    assert kept(cache, "found") == []


# --- times ------------------------------------------------------------------------------------------------


def test_a_young_file_is_not_trusted_by_its_times(models, cache, monkeypatch) -> None:
    store, path = Cache(cache), models / "a.onnx"
    one = store.digest(path)
    assert kept(cache, "stat") == []
    monkeypatch.setattr(caching, "_state", lambda _: [1, 1, time.time_ns(), time.time_ns() // 10**12])
    path.write_bytes(path.read_bytes() + b"\0\0")
    assert store.digest(path) != one


def test_a_settled_file_is_not_read_again(models, cache, monkeypatch) -> None:
    store, now = Cache(cache), time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now + 60 * 10**9)
    one = [store.digest(models / name) for name in ("a.onnx", "b.onnx")]
    assert len(kept(cache, "stat")) == 2

    def never(*_: object) -> None:
        pytest.fail("it was read")

    monkeypatch.setattr("hashlib.file_digest", never)
    monkeypatch.setattr(caching, "_beside", never)
    assert [store.digest(models / name) for name in ("a.onnx", "b.onnx")] == one
    (models / "b.bin").unlink()
    with pytest.raises(pytest.fail.Exception):
        store.digest(models / "b.onnx")


def test_a_time_of_the_future_is_not_trusted(models, cache) -> None:
    future = time.time_ns() + 10**14
    os.utime(models / "a.onnx", ns=(future, future))
    assert Cache(cache).digest(models / "a.onnx")
    assert kept(cache, "stat") == []


def test_what_is_not_a_file_has_no_digest_and_is_not_opened(tmp_path, cache) -> None:
    os.mkfifo(tmp_path / "pipe.onnx")
    (tmp_path / "folder").mkdir()
    assert [Cache(cache).digest(tmp_path / name) for name in ("pipe.onnx", "folder", "absent")] == [None] * 3


def test_weights_in_several_files_are_known_by_all_of_them(tmp_path, cache) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "one.safetensors", "b": "two.safetensors"}}')
    assert Cache(cache).digest(index) is None
    for name in ("one", "two"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"first")
    first = Cache(cache).digest(index)
    (tmp_path / "two.safetensors").write_bytes(b"other")
    assert first != Cache(cache).digest(index) is not None


# --- caches that are none ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"3",
        b'{"findings": 3}',
        b'{"findings": [3]}',
        b'{"findings": [{"path": "a"}]}',
        answer_of(path=3),
        answer_of(code="X1"),
        answer_of(severity="mild"),
        answer_of(found=["ab"]),
        answer_of(found={"one": "", "many": "", "sites": [3], "nodes": None}),
        answer_of(found={"one": "", "many": "", "sites": [], "nodes": [1]}),
        answer_of(more=1),
        b"[" * 100_000,
    ],
)
@pytest.mark.usefixtures("trusting")
def test_a_damaged_answer_is_asked_again(models, cache, content: bytes) -> None:
    first = run(models, cache)
    for path in kept(cache, "found"):
        path.write_bytes(content)
    second = run(models, cache)
    assert (second.remembered, second.findings) == (0, first.findings)
    assert run(models, cache).remembered == 2


@pytest.mark.parametrize(
    "content",
    [
        '{"digest": "0", "files": []}',
        '{"digest": "0"}',
        '{"files": [["NAME", [1]]]}',
        '{"digest": "0", "files": [["NAME"]]}',
        '{"digest": "0", "files": [["NAME", [1], 2]]}',
        '{"digest": "0", "files": [[3, STATE]]}',
        '{"digest": "0", "files": [["NAME", STATE], ["\\u0000", 3]]}',
        '{"digest": "0", "files": [["OTHER", STATE]]}',
        '{"digest": "0", "files": "NAME"}',
        "[3]",
        "{",
    ],
)
@pytest.mark.usefixtures("trusting")
def test_a_damaged_note_of_times_is_not_trusted(models, cache, content: str) -> None:
    path, store = models / "a.onnx", Cache(cache)
    one = store.digest(path)
    (note,) = kept(cache, "stat")
    state = json.dumps(caching._state(path))
    note.write_text(
        content.replace("NAME", str(path)).replace("STATE", state).replace("OTHER", str(models / "b.onnx"))
    )
    assert store.digest(path) == one


@pytest.mark.parametrize("error", [OSError(28, "full"), PermissionError(13, "no"), OSError(30, "read-only")])
@pytest.mark.parametrize("step", ["mkdir", "write_text", "replace"])
def test_a_cache_that_cannot_be_written_costs_time_only(
    models, cache, monkeypatch, error: OSError, step: str
) -> None:
    expected = run(models, None).findings

    def refuse(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Path, step, refuse)
    assert run(models, cache).findings == expected
    monkeypatch.undo()
    assert [path for path in cache.rglob("*") if path.suffix == ".json" or ".json." in path.name] == []


def test_a_file_in_place_of_the_folder_costs_time_only(models, cache) -> None:
    cache.write_text("not a folder")
    assert codes(run(models, cache).findings) == ["M101", "M101"]
    assert cache.read_text() == "not a folder"


def test_git_passes_the_cache_over(cache) -> None:
    Cache(cache).put(key(["x"]), FOUND)
    assert (cache / ".gitignore").read_text() == "*\n"


def test_findings_come_back_as_they_were(cache) -> None:
    strange = Finding("a\udcff.onnx", "M302", Found("\x1b\n \ud800", "", ("é", "\0")), "error")
    Cache(cache).put(key(["x"]), [*FOUND, strange])
    assert Cache(cache).get(key(["x"])) == [*FOUND, strange]
    assert Cache(cache).get(key(["y"])) is None
    assert Cache(None).get(key(["x"])) is None


HAMMER = """
import sys
from pathlib import Path
from bnfold.gate.cache import Cache, key
from bnfold.gate.finding import Finding, Found
store, me = Cache(Path(sys.argv[1])), sys.argv[2]
seen = set()
for turn in range(300):
    name = key([turn % 5])
    mine = [Finding(me, "M101", Found("x" * 500, sites=(str(turn % 5),) * 50))]
    store.put(name, mine)
    (found,) = store.get(name)
    assert found.sites == (str(turn % 5),) * 50 and found.path in ("one", "two"), found
    seen.add(found.path)
print(*sorted(seen))
"""


def test_two_checks_at_once_on_one_cache_never_read_half_an_answer(cache) -> None:
    arguments = [sys.executable, "-c", HAMMER, str(cache)]
    running = [subprocess.Popen([*arguments, who], stdout=subprocess.PIPE) for who in ("one", "two")]
    for process in running:
        printed, _ = process.communicate(timeout=120)
        assert process.returncode == 0
        assert printed
    assert len(kept(cache, "found")) == 5
    assert [path.name for path in cache.rglob("*.*") if path.suffix != ".json"] == [".gitignore"]


# --- what goes --------------------------------------------------------------------------------------------


def aged(path: Path, days: float) -> Path:
    then = time.time() - days * 86_400
    os.utime(path, (then, then))
    return path


def test_what_was_not_used_for_a_month_goes_and_what_is_used_stays(cache) -> None:
    store = Cache(cache)
    for name in ("old", "used", "new"):
        store.put(key([name]), FOUND)
    places = {name: store._place("found", key([name])) for name in ("old", "used", "new")}
    for name in ("old", "used"):
        aged(places[name], 31)
    assert store.get(key(["used"])) == FOUND
    store.prune()
    assert [name for name, place in places.items() if place.exists()] == ["used", "new"]


def test_of_too_much_the_part_goes_that_was_not_used_for_the_longest(cache, monkeypatch) -> None:
    monkeypatch.setattr(caching, "_LARGEST", 2 * 4096)
    store = Cache(cache)
    for days in range(4):
        store.put(key([days]), FOUND)
        aged(store._place("found", key([days])), days)
    store.prune()
    assert [store.get(key([days])) is not None for days in range(4)] == [True, True, False, False]


def test_only_files_of_the_cache_go_and_no_link_is_followed(cache, tmp_path) -> None:
    """The folder may be one that holds other things."""
    store = Cache(cache)
    store.put(key(["x"]), FOUND)
    place = store._place("found", key(["x"]))
    outside = tmp_path / "outside"
    outside.write_text("mine")
    aged(outside, 99)
    draft = place.with_name(f".{place.name}.0123456789ab.77")
    young = place.with_name(f".{place.name}.0123456789ac.77")
    others = [cache / "notes.json", place.with_name("notes.json"), cache / "v1" / "notes.json", draft, young]
    for path in others:
        path.write_text("mine")
        aged(path, 0 if path == young else 99)
    link = place.with_name("0" * 62 + ".json")
    link.symlink_to(outside)
    aged(place, 99)
    store.prune()
    assert [path.name for path in (*others, link, outside, place) if not path.exists()] == [
        draft.name,
        place.name,
    ]


def test_it_is_looked_for_once_a_day(cache) -> None:
    store = Cache(cache)
    store.put(key(["x"]), FOUND)
    store.prune()
    aged(store._place("found", key(["x"])), 99)
    store.prune()
    assert len(kept(cache, "found")) == 1
    aged(cache / "pruned", 2)
    store.prune()
    assert kept(cache, "found") == []
    Cache(None).prune()
    Cache(cache / "absent").prune()
    assert not (cache / "absent").exists()


def test_a_check_prunes(models, cache) -> None:
    run(models, cache)
    for path in kept(cache, "found"):
        aged(path, 99)
    (cache / "pruned").unlink()
    run(models, cache, Settings(include=("a.onnx",), ignore=("M103",)))
    assert len(kept(cache, "found")) == 1


# --- who looks into models --------------------------------------------------------------------------------


@pytest.mark.usefixtures("trusting")
def test_the_process_that_waits_opens_no_model(models, cache, monkeypatch) -> None:
    """A model may be hostile: only processes that may come to harm look into it."""
    run(models, cache)
    expected = run(models, cache)

    def never(*_: object) -> None:
        pytest.fail("it was opened")

    for name in ("bnfold.files.load.load_onnx", "bnfold.gate.cache._beside", "hashlib.file_digest"):
        monkeypatch.setattr(name, never)
    assert run(models, cache) == expected
    save(layers(seed=9), models / "new.onnx")
    left: list[int] = []
    monkeypatch.setattr("bnfold.gate.run._answers", lambda _, at, *_others: left.extend(at) or ())
    run(models, cache)
    assert left == [2]
