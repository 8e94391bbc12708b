"""Runs every hostile command in the sandbox and prints, as JSON, what it managed to change.

Started by test_hostile.py under an outer guard: arguments are the backend, the access, and a
folder in which a throw-away home is made.
"""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from qwenterm.core.types import Access
from qwenterm.sandbox.backends import choose
from qwenterm.sandbox.confinement import Limits
from qwenterm.sandbox.run import Sandbox, run

COMMANDS = Path(__file__).parent.parent / "data/hostile-commands.tsv"


def commands():
    for line in COMMANDS.read_text().splitlines():
        if line and not line.startswith("#"):
            kind, command = line.split("\t", 1)
            if kind == "contained":
                yield command


def make_home(folder):
    home = folder / "home"
    project = home / "project"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/id_rsa").write_text("SECRET key\n")
    for name in (".bashrc", ".profile", ".gitconfig", "document.txt"):
        (home / name).write_text(f"# {name}\n")
    project.mkdir()
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    subprocess.run([*git, "init", "-q"], cwd=project, check=True)
    (project / "file.txt").write_text("content\n")
    subprocess.run([*git, "add", "."], cwd=project, check=True)
    subprocess.run([*git, "commit", "-qm", "first"], cwd=project, check=True)
    return home


def snapshot(folder, skip=()):
    found = {}
    for path in sorted(folder.rglob("*")):
        if any(path == s or s in path.parents for s in skip):
            continue
        if path.is_symlink():
            found[str(path)] = f"-> {path.readlink()}"
        elif path.is_file():
            found[str(path)] = path.read_bytes().decode("latin-1")
        else:
            found[str(path)] = "folder"
    return found


def watched(home, access):
    """Everything when read-only; when writable, all but the workspace, and git's own parts."""
    project = home / "project"
    if access is Access.READ_ONLY:
        return snapshot(home)
    parts = snapshot(project / ".git/hooks") if (project / ".git/hooks").exists() else {}
    config = project / ".git/config"
    return {
        **snapshot(home, skip=[project]),
        **parts,
        "config": config.read_text() if config.exists() else "",
    }


async def main():
    access = Access(sys.argv[2])
    home = make_home(Path(sys.argv[3]))
    limits = Limits(seconds=6, processes=64, file_bytes=1 << 22, output_bytes=1 << 20)
    environ = {**os.environ, "HOME": str(home)}
    sandbox = Sandbox(
        choose(sys.argv[1]), home, (home / ".ssh", Path("/etc/shadow")), limits, environ
    )
    shadow = Path("/etc/shadow").read_text().splitlines()[0] if os.getuid() == 0 else "SECRET"
    problems, count = [], 0
    for command in commands():
        count += 1
        before = watched(home, access)
        done = await run(
            sandbox, ["bash", "-c", command], workspace=home / "project", access=access
        )
        after = watched(home, access)
        if after != before:
            changed = [key for key in {*before, *after} if before.get(key) != after.get(key)]
            problems.append([command, "changed", changed[:5]])
        if "SECRET" in done.output or shadow in done.output:
            problems.append([command, "read a secret", done.output[:200]])
        # Even a writable workspace is whole again for the next command.
        if access is Access.WORKSPACE and not (home / "project/file.txt").exists():
            (home / "project/file.txt").write_text("content\n")
        (home / "project/link").unlink(missing_ok=True)
    print(json.dumps({"backend": sandbox.backend.name, "count": count, "problems": problems}))


if __name__ == "__main__":
    asyncio.run(main())
