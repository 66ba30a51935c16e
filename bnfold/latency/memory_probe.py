"""A separate program: load a model, run it once, and report how much the memory of the process grew.

It is started by its path and imports nothing of bnfold, so that the process holds only Python, NumPy and ONNX
Runtime. The request is JSON in the first argument; the answer is one line of JSON.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import re
import sys
from pathlib import Path
from typing import Any


def peak_memory() -> int:
    """The most memory that this process has ever held, in bytes.

    On Linux it is in `VmHWM`. The `ru_maxrss` of getrusage would be wrong there, since a new program inherits
    it from the process that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file() and (line := re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE)):
        return int(line[1]) * 1024
    resource = importlib.import_module("resource")
    return int(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss) * (1 if sys.platform == "darwin" else 1024)


def growth(request: dict[str, Any]) -> int:
    """Bytes by which the peak exceeds what the process held after importing ONNX Runtime.

    Args:
        request: `model`; `feeds`, a file of arrays, and their `names`; `level`, `threads`, `config` and
            `providers` of the session.
    """
    import numpy as np

    ort = importlib.import_module("onnxruntime")
    if len(request["providers"]) > 1 and hasattr(ort, "preload_dlls"):
        with contextlib.redirect_stdout(sys.stderr):
            ort.preload_dlls()
    with np.load(request["feeds"]) as arrays:
        feeds = dict(zip(request["names"], arrays.values(), strict=True))
    before = peak_memory()
    options = ort.SessionOptions()
    options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, request["level"])
    options.intra_op_num_threads, options.inter_op_num_threads = request["threads"], 1
    for key, value in request["config"].items():
        options.add_session_config_entry(key, value)
    options.log_severity_level = 4
    providers = [(name, chosen) if chosen else name for name, chosen in request["providers"]]
    session = ort.InferenceSession(request["model"], options, providers=providers)
    session.run(None, feeds)
    return peak_memory() - before


if __name__ == "__main__":
    print(json.dumps(growth(json.loads(sys.argv[1]))))
