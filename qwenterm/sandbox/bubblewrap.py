"""The bubblewrap backend: namespaces for everything, one writable folder at most.

The whole file system is read-only, `/tmp`, `/run` and the cache are private, secrets are covered,
there is no network and no capability. The workspace is bound last, so that it is there even when
it lies in a folder that was made private.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qwenterm.core.types import Access
from qwenterm.sandbox.confinement import Confinement, git_read_only, private_folders


def arguments(
    program: str, command: Sequence[str], confinement: Confinement, environment: Mapping[str, str]
) -> list[str]:
    """Return the command line that runs `command` in `confinement`; `program` is bwrap's path."""
    workspace = str(confinement.workspace)
    argv = [program, "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-uts"]
    argv += ["--unshare-net", "--unshare-cgroup-try", "--die-with-parent", "--new-session"]
    argv += ["--cap-drop", "ALL", "--hostname", "sandbox"]
    argv += ["--ro-bind", "/", "/", "--dev", "/dev", "--proc", "/proc"]
    for folder in private_folders(confinement.home):
        argv += ["--tmpfs", str(folder)]
    for path in confinement.visible:
        argv += ["--ro-bind", str(path), str(path)]
    writable = confinement.access is Access.WORKSPACE
    argv += ["--bind" if writable else "--ro-bind", workspace, workspace]
    if writable:
        protected = git_read_only(confinement.workspace)
        if protected:
            # A mount of its own, or `mv .git away` would carry the protected parts with it.
            folder = str(confinement.workspace / ".git")
            argv += ["--bind", folder, folder]
        for path in protected:
            argv += ["--ro-bind", str(path), str(path)]
    for path in confinement.hidden:
        if path.is_dir():
            argv += ["--tmpfs", str(path), "--remount-ro", str(path)]
        elif path.exists():
            argv += ["--ro-bind", "/dev/null", str(path)]
    argv += ["--chdir", workspace, "--clearenv"]
    for name, value in environment.items():
        argv += ["--setenv", name, value]
    # Counted inside the new user namespace, so that the user's other processes don't matter.
    limit = f'ulimit -u {confinement.limits.processes} 2>/dev/null; exec "$@"'
    return [*argv, "--", "bash", "-c", limit, "bash", *command]
