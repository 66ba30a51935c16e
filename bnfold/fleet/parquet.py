"""The results as a table in Parquet, for whoever asks further questions."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any

from bnfold.fleet.results import Record

_ROWS = 1000  # that are held before they are written
_PAIRS = ("batchnorms", "nodes", "bytes")
_TEXTS = ("path", "command", "state", "verdict", "why", "content", "key", "output")
_MEASURED = ("host", "seconds", "worker_seconds", "processor_seconds", "memory", "fetched")


def is_there() -> bool:
    """Whether pyarrow is installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        return False
    return True


class Table:
    """Writes records to a file, some at a time."""

    def __init__(self, path: Path) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        counts = [(f"{name}_{end}", pa.int64()) for name in _PAIRS for end in ("before", "after")]
        kinds = {"host": pa.string(), "memory": pa.int64(), "fetched": pa.int64()}
        self._schema = pa.schema(
            [
                *((name, pa.string()) for name in _TEXTS),
                ("size", pa.int64()),
                *counts,
                ("findings", pa.list_(pa.string())),
                ("reasons", pa.list_(pa.string())),
                *((name, kinds.get(name, pa.float64())) for name in _MEASURED),
            ]
        )
        self._writer = parquet.ParquetWriter(path, self._schema)
        self._rows: list[dict[str, Any]] = []

    def __enter__(self) -> Table:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._flush()
        self._writer.close()

    def add(self, record: Record) -> None:
        """Add the row of one model."""
        counts = {
            f"{name}_{end}": (record.get(name) or {}).get(end)
            for name in _PAIRS
            for end in ("before", "after")
        }
        self._rows.append(
            {name: record.get(name) for name in (*_TEXTS, "size")}
            | counts
            | {name: record["measured"].get(name) for name in _MEASURED}
            | {
                "findings": [one["code"] for one in record.get("findings") or []],
                "reasons": list(record.get("reasons") or {}),
            }
        )
        if len(self._rows) >= _ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa

        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
            self._rows.clear()
