"""What `benchmarks.fleet` does with one model: what bnfold does, but for those that are planted to go wrong.

It stands in for [`bnfold.fleet.work`][bnfold.fleet.work]: a real file that ends bnfold's process would be a
fault to mend, so that none can be kept for a measurement.
"""

from __future__ import annotations

import os
import signal
import time
from typing import Any

from bnfold.fleet import work

prepare = work.prepare


def one(job: work.Job) -> dict[str, Any]:
    """Do what the name of the file says, or else what bnfold does."""
    if job.file.name.startswith("slow"):
        time.sleep(3600)
    if job.file.name.startswith("killing"):
        os.kill(os.getpid(), signal.SIGKILL)
    return work.one(job)


def nothing(job: work.Job) -> dict[str, Any]:
    """Read nothing and answer at once, so that what is measured is the fleet around it."""
    del job
    return {
        "state": "done",
        "verdict": "folded",
        "batchnorms": {"before": 1, "after": 0},
        "nodes": {"before": 2, "after": 1},
        "bytes": {"before": 900, "after": 700},
        "reasons": {},
        "content": "0" * 64,
        "key": "0" * 64,
    }
