"""What the page rests on: the command, the files, the versions, the machine and the seeds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bnfold.report.page.words import count, provider
from bnfold.report.terminal.tables import size

View = dict[str, Any]
Record = Mapping[str, Any]

_LABELS = {"cpu": "CPU", "cpus": "CPUs", "usable_cpus": "usable CPUs", "cpu_quota": "CPU quota"}
_LABELS |= {"gpus": "GPUs", "gpu_driver": "GPU driver"}


def evidence(record: Record, command: str) -> View:
    """Name the command, the files with their hashes, the machine and the seeds.

    Args:
        record: The JSON document of the run.
        command: The command line.
    """
    validation = record.get("validation")
    files = list(_files(record))
    seeds = []
    if validation:
        drawn = "given inputs" if validation["seed"] is None else f"seed {validation['seed']}"
        seeds.append(("comparison", f"{drawn}, {count(validation['samples'], 'input')}"))
    for benchmark in record.get("benchmarks", ()):
        conditions = f"seed {benchmark['seed']}, {count(benchmark['threads'], 'thread')}"
        seeds.append((f"timing on {provider(benchmark['provider'])}", conditions))
    return {
        "command": command,
        "files": [
            {"role": f["role"], "path": str(f["path"]), "size": size(f["bytes"]), "sha256": f["sha256"]}
            for f in files
        ],
        "seeds": seeds,
        "versions": list(record["versions"].items()),
        "machine": list(_flat(record.get("environment") or {})),
    }


def _files(record: Record) -> Iterator[View]:
    """The files that went in and came out, each with what it is."""
    roles = {"source": "Original", "output": "Folded", "original": "Original", "folded": "Folded"}
    roles |= {"report": "Report"}
    for key, role in roles.items():
        if file := record.get(key):
            yield {"role": role, **file}
            yield from ({"role": f"{role}’s data", **entry} for entry in file.get("external_data", ()))


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Every entry of nested dictionaries as a label and a text; null entries are left out."""
    for key, value in values.items():
        label = prefix + _LABELS.get(key, key.replace("_", " "))
        if key in ("versions", "system", "python") or value is None:
            continue  # the document itself has the versions
        if isinstance(value, Mapping):
            yield from _flat(value, f"{label}: ")
        elif isinstance(value, list | tuple):
            yield label, ", ".join(map(str, value)) or "none"
        else:
            yield label, size(value) if key.startswith("memory") else str(value)
