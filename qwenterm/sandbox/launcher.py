"""The process between qwenterm and a command that runs without bubblewrap.

Started as `python -m qwenterm.sandbox.launcher`, it reads its orders from the command line,
becomes the reaper of everything the command starts, and ends all of it when the command ends,
when it is told to stop, or when its parent dies. With `--landlock` the command is confined by
Landlock and seccomp; without, only the limits hold and a person has agreed to that.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path
from types import FrameType

from qwenterm.core.types import Access
from qwenterm.sandbox import landlock
from qwenterm.sandbox.confinement import Confinement, private_folders

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36
_CANNOT_CONFINE = 125


def main() -> int:
    """Run the command of the command line; returns its exit status, 128 + n for signal n."""
    options = _parse()
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    signal.signal(signal.SIGTERM, _stop)
    with tempfile.TemporaryDirectory(prefix="qwenterm-", ignore_cleanup_errors=True) as private:
        child = os.fork()
        if child == 0:
            _become(options, Path(private))
        try:
            _, status = os.waitpid(child, 0)
        finally:
            _end_descendants()
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="qwenterm-launcher")
    parser.add_argument("--landlock", action="store_true")
    parser.add_argument("--workspace", type=Path, required=True)
    parser.add_argument("--writable", action="store_true")
    parser.add_argument("--home", type=Path, required=True)
    parser.add_argument("--hidden", type=Path, action="append", default=[])
    parser.add_argument("--visible", type=Path, action="append", default=[])
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("command", nargs="+")
    return parser.parse_args()


def _become(options: argparse.Namespace, private: Path) -> None:
    """Turn the forked child into the command; never returns."""
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        os.chdir(options.workspace)
        limit_processes(options.processes)
        if options.landlock:
            os.environ["TMPDIR"] = str(private)
            _confine(options, private)
        os.execvp(options.command[0], options.command)  # noqa: S606 - this is its purpose
    except BaseException as error:
        os.write(2, f"the sandbox could not be set up: {error}\n".encode())
    os._exit(_CANNOT_CONFINE)


def _confine(options: argparse.Namespace, private: Path) -> None:
    access = Access.WORKSPACE if options.writable else Access.READ_ONLY
    confinement = Confinement(options.workspace, access, options.home, tuple(options.hidden))
    readable = [*readable_paths(confinement), *options.visible]
    writable = [private, *(Path(path) for path in ("/dev/null", "/dev/zero", "/dev/full"))]
    if options.writable:
        # Landlock knows no exceptions inside a folder: `git_guard` watches over `.git` instead.
        writable.append(options.workspace)
    landlock.restrict(readable, writable)
    landlock.forbid_sockets()


def readable_paths(confinement: Confinement) -> list[Path]:
    """Return what may be read: all but secrets and other programs' temporary files."""
    left_out = [*confinement.hidden, *private_folders(confinement.home)]
    outside = [path for path in left_out if path not in confinement.workspace.parents]
    around = [path for path in left_out if path in confinement.workspace.parents]
    # A workspace inside a private folder is still readable, the folder around it is not.
    # Other processes' memory and environment under /proc are closed by Landlock itself.
    return [
        *landlock.siblings([*outside, *around]),
        *landlock.siblings(confinement.hidden, confinement.workspace),
    ]


def limit_processes(processes: int) -> None:
    """Limit the number of processes; the other limits are inherited."""
    used = sum(1 for entry in Path("/proc").iterdir() if entry.name.isdigit() and _mine(entry))
    with contextlib.suppress(ValueError, OSError):
        # Without a namespace of its own the kernel counts all of the user's processes.
        resource.setrlimit(resource.RLIMIT_NPROC, (used + processes, used + processes))


def _mine(entry: Path) -> bool:
    try:
        return entry.stat().st_uid == os.getuid()
    except OSError:
        return False


def _stop(_number: int, _frame: FrameType | None) -> None:
    _end_descendants()
    os._exit(128 + signal.SIGTERM)


def _end_descendants() -> None:
    """Kill everything below this process until nothing is left; orphans arrive here."""
    for _ in range(1000):
        children = _children()
        if not children:
            return
        for pid in children:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        time.sleep(0.005)


def _children() -> list[int]:
    me = os.getpid()
    found: list[int] = []
    for task in Path(f"/proc/{me}/task").iterdir():
        with contextlib.suppress(OSError):
            found += [int(pid) for pid in (task / "children").read_text().split()]
    return found


if __name__ == "__main__":
    sys.exit(main())
