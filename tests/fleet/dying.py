"""What can happen to the process of a model; loads nothing, so that a server of it starts at once."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any


def one(word: Any) -> Any:
    """Do what a word says, or what the name of a job's file says."""
    match getattr(word, "file", Path(str(word))).stem:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "exits":
            os._exit(7)
        case "raises":
            raise ValueError
        case "slow":
            time.sleep(600)
        case "large":
            return {"size": len(bytearray(1 << 32))}
        case "prints":
            print("not an answer")
            os.write(1, b"nor this\n")
        case "kills its server":
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(600)
        case "kills its server once":
            if not (mark := word.file.with_suffix(".killed")).exists():
                mark.touch()
                os.kill(os.getppid(), signal.SIGKILL)
                time.sleep(600)
        case "reads":
            return {"state": "done", "read": sys.stdin.read()}
        case "has a child":
            if os.fork() == 0:
                time.sleep(600)
            return {"state": "done", "group": os.getpgid(0)}
    return {"state": "done", "verdict": "passed", "process": os.getpid()}
