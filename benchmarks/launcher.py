"""A separate program: run a command, and say how long it took and how much memory it held at most.

It is started by its path and imports only what starting a process needs, so that it stays small: Linux passes
the peak memory of a process on to what it executes, and a large parent would be measured instead of a small
child. What the command prints is discarded; its error messages pass through. The answer is one line: seconds,
kilobytes, exit code (negative for a signal).
"""

import os
import sys
import time

_nowhere = [(os.POSIX_SPAWN_OPEN, stream, os.devnull, os.O_RDWR, 0) for stream in (0, 1)]
_start = time.monotonic()
_child = os.posix_spawnp(sys.argv[1], sys.argv[1:], os.environ, file_actions=_nowhere)
_, _status, _usage = os.wait4(_child, 0)
_seconds = time.monotonic() - _start
_kilobytes = _usage.ru_maxrss // (1024 if sys.platform == "darwin" else 1)
print(_seconds, _kilobytes, os.waitstatus_to_exitcode(_status))
