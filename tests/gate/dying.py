"""What can happen to a process that asks rules; `ask` stands in for that of `bnfold.gate.work` there."""

from __future__ import annotations

import os
import signal
import time

from bnfold.gate.finding import Finding, Found
from bnfold.gate.work import Answer, Job


def ask(job: Job, *_: object) -> Answer:
    """Do what the name of the file says."""
    match job.path.stem:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "ended":
            os._exit(7)
        case "slow":
            time.sleep(600)
    return Answer([Finding(job.name, "M307", Found("a finding"))])
