"""Where things are: which paths are inside the workspace, hidden, or protected whatever the mode.

Every path is compared after resolving symbolic links, so that a link inside the workspace does
not lend its innocent name to what it points to.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from qwenterm.core.errors import UsageError
from qwenterm.core.types import Intent

_STARTUP_FILES = (
    ".bashrc",
    ".bash_profile",
    ".bash_login",
    ".bash_logout",
    ".bash_aliases",
    ".profile",
    ".zshrc",
    ".zshenv",
    ".zprofile",
    ".zlogin",
    ".inputrc",
    ".gitconfig",
    ".config/fish",
    ".config/git",
    ".config/systemd",
    ".config/autostart",
)
# Not files at all: the environment of this very process is among them.
_NO_FILES = ("/proc", "/sys", "/dev", "/run")
# Inside any folder of this name: what runs on the user's next git command.
_GIT_EXECUTABLE_PARTS = ("hooks", "config", "config.worktree", "info", "modules", "worktrees")


@dataclass(frozen=True)
class Places:
    """The paths that rulings depend on, all absolute and without symbolic links."""

    workspace: Path
    hidden: tuple[Path, ...]
    protected: tuple[Path, ...]


def resolve(path: str | Path, base: Path, home: Path) -> Path:
    """Return `path` seen from `base`, with `~` and links resolved; it need not exist."""
    text = str(path)
    if text == "~" or text.startswith("~/"):
        text = str(home) + text[1:]
    return Path(os.path.realpath(base / text))


def build_places(
    workspace: Path, *, home: Path, hidden: Sequence[str], own: Sequence[Path]
) -> Places:
    """Return the places for a workspace; `own` are qwenterm's own config and state folders."""
    real_home = Path(os.path.realpath(home))
    protected = [real_home / name for name in _STARTUP_FILES]
    protected += [Path(os.path.realpath(path)) for path in own]
    return Places(
        workspace=Path(os.path.realpath(workspace)),
        hidden=tuple(resolve(path, real_home, real_home) for path in (*hidden, *_NO_FILES)),
        protected=tuple(protected),
    )


def resolved_intents(intents: Sequence[Intent], home: Path, base: Path) -> tuple[Intent, ...]:
    """Return the intents with the paths of reads and writes resolved on this machine."""
    return tuple(
        Intent(intent.kind, str(resolve(intent.target, base, home)))
        if intent.kind in ("read", "write")
        else intent
        for intent in intents
    )


def inside(path: Path, folder: Path) -> bool:
    """Tell whether `path` is `folder` or lies in it; both resolved."""
    return path == folder or folder in path.parents


def is_hidden(path: Path, places: Places) -> bool:
    """Tell whether `path` is among the secrets."""
    # A workspace inside a hidden folder was chosen by the user.
    return any(
        inside(path, secret) and not inside(places.workspace, secret) for secret in places.hidden
    )


def is_protected(path: Path, places: Places) -> bool:
    """Tell whether `path` must not be written whatever the mode."""
    if any(inside(path, guarded) for guarded in places.protected):
        return True
    parts = [part.casefold() for part in path.parts]
    for index, part in enumerate(parts):
        if part == ".git":
            rest = parts[index + 1 :]
            # `.git` itself counts: replaced by a file, it points git at another configuration.
            return not rest or rest[0] in _GIT_EXECUTABLE_PARTS
    return False


def refuse_workspace(workspace: Path, home: Path, *, by_name: bool) -> None:
    """Raise `UsageError` for `/` and the home folder unless the user asked for it by name."""
    real = Path(os.path.realpath(workspace))
    if not real.is_dir():
        raise UsageError(f"{workspace}: no such folder; name an existing one with --cd")
    if by_name or real not in (Path("/"), Path(os.path.realpath(home))):
        return
    what = "the root folder" if real == Path("/") else "your home folder"
    raise UsageError(
        f"{real} is {what}: too much to work in. Change to a project folder, or ask for it by "
        f"name with --cd {real}"
    )
