"""A program of its own: run `bnfold` in forks of this process, and do something to each of them meanwhile.

A fork has everything imported, so that a run takes milliseconds and hundreds of them take seconds. A request
is one line of JSON, and so is the answer:

- `arguments`: of the command.
- `step`, `deed`: what to do, and before which of the run's steps. A step is whatever Python's audit hooks
  tell of that names a file in `folder`: to open, rename, link, remove one.
- `after`, `deed`: the same from outside, after so many seconds.
- `limit`: bytes that a file may have at most (RLIMIT_FSIZE).
- `pair_from`: bytes from which on a model is written with external data.

A deed is `["kill", signal]`, `["remove", file]`, `["cut", file, bytes]`, `["fill", file, other]` (write the
other's bytes into the file) or `["swap", file, other]` (put a copy of the other in its place). The answer has
`code` (negative for a signal), `stderr`, `seconds` and `steps`.
"""

import json
import mmap
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from pathlib import Path

import bnfold.files.save
import bnfold_cli


def do(deed):
    """What shall happen to this process, or to its files."""
    kind, *rest = deed
    if kind == "kill":
        os.kill(os.getpid(), *rest)
    elif kind == "remove":
        Path(rest[0]).unlink()
    elif kind == "cut":
        os.truncate(*rest)
    elif kind == "fill":
        with Path(rest[1]).open("rb") as source, Path(rest[0]).open("r+b") as target:
            shutil.copyfileobj(source, target)
    elif kind == "swap":
        Path(shutil.copy(rest[1], f"{rest[0]}.new")).rename(rest[0])


def watch(folder, step, deed, count):
    """Count the steps of this process, and do the deed before one of them."""
    busy = False

    def hook(_, arguments):
        nonlocal busy
        names = (os.fspath(one) for one in arguments if isinstance(one, (str, os.PathLike)))
        if busy or not any(name.startswith(folder) for name in names):
            return
        busy = True
        number = count[0]
        count[0] = number + 1
        if number == step:
            do(deed)
        busy = False

    sys.addaudithook(hook)


def fold(request, complaints, count):
    """Be the run. Taking Python down would cost ten times as much as a fold, so this ends without."""
    code = 1
    try:
        os.dup2(complaints, 2)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if "limit" in request:
            resource.setrlimit(resource.RLIMIT_FSIZE, (request["limit"], request["limit"]))
        if "pair_from" in request:
            bnfold.files.save.PROTOBUF_LIMIT = request["pair_from"]
        watch(request["folder"], request.get("step"), request.get("deed"), count)
        bnfold_cli.main(request["arguments"], prog_name="bnfold")
    except SystemExit as end:
        code = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def meddle(child, deed):
    """Do the deed to a run from outside; all of it at one moment of the run."""
    if deed[0] == "kill":
        os.kill(child, deed[1])
        return
    os.kill(child, signal.SIGSTOP)
    os.waitid(os.P_PID, child, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    do(deed)
    os.kill(child, signal.SIGCONT)


def serve(request, count):
    """Run the command once."""
    count[0] = 0
    reading, complaints = os.pipe()
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        fold(request, complaints, count)
    os.close(complaints)
    if "after" in request:
        time.sleep(request["after"])
        meddle(child, request["deed"])
    _, status = os.waitpid(child, 0)
    seconds = time.monotonic() - start
    with os.fdopen(reading, errors="replace") as stream:  # an error fits into a pipe
        stderr = stream.read()
    return {
        "code": os.waitstatus_to_exitcode(status),
        "stderr": stderr,
        "seconds": seconds,
        "steps": count[0],
    }


if __name__ == "__main__":
    shared = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("i")
    for number, line in enumerate(sys.stdin):
        asked = json.loads(line)
        if number == 0:  # here as well, so that all that a run imports is there
            bnfold_cli.main(asked["arguments"], standalone_mode=False)
        print(json.dumps(serve(asked, shared)), flush=True)
