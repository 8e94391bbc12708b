"""What can be told from a command line without running it: only what cannot be contained.

A sandbox without network makes these commands fail or pretend, so a person is asked first, with
the reason. Everything else is decided by what the command does, never by how it looks; this
list being fooled costs a clear error from the sandbox, nothing more.
"""

from __future__ import annotations

import re
import shlex

_SEPARATORS = re.compile(r"\|\||&&|[;&|\n()]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.S)
_PREFIXES = frozenset({"command", "exec", "env", "nohup", "time", "nice", "builtin", "setsid"})

_REASONS = {
    "network": "needs the network",
    "service": "talks to a service outside the sandbox",
    "system": "changes the system",
    "root": "wants to become root",
}
_PROGRAMS = {
    **dict.fromkeys(("sudo", "su", "doas", "pkexec"), "root"),
    **dict.fromkeys(
        ("docker", "podman", "nerdctl", "kubectl", "helm", "systemctl", "service", "journalctl"),
        "service",
    ),
    **dict.fromkeys(
        ("apt", "apt-get", "aptitude", "dnf", "yum", "pacman", "zypper", "snap", "flatpak"),
        "system",
    ),
    **dict.fromkeys(("ssh", "scp", "sftp", "rsync", "ftp", "telnet", "gh", "brew"), "network"),
}
_SUBCOMMANDS = {
    ("git", "push"): "network",
    ("git", "fetch"): "network",
    ("git", "pull"): "network",
    ("git", "clone"): "network",
    ("git", "ls-remote"): "network",
    ("pip", "install"): "network",
    ("pip", "download"): "network",
    ("pip3", "install"): "network",
    ("npm", "install"): "network",
    ("npm", "publish"): "network",
    ("cargo", "install"): "network",
    ("cargo", "publish"): "network",
}


def needs_outside(command: str) -> str:
    """Return why the command cannot work inside the sandbox, empty if nothing says so."""
    for part in _SEPARATORS.split(command):
        words = _words(part)
        if not words:
            continue
        program = words[0].rsplit("/", 1)[-1]
        kind = _PROGRAMS.get(program, "")
        if not kind:
            plain = [word for word in words[1:] if not word.startswith("-")]
            kinds = (_SUBCOMMANDS.get((program, word)) for word in plain[:2])
            kind = next(filter(None, kinds), "")
        if kind:
            return f"`{program}` {_REASONS[kind]}"
    return ""


def _words(part: str) -> list[str]:
    try:
        words = shlex.split(part, comments=True)
    except ValueError:
        words = part.split()
    while words and (_ASSIGNMENT.fullmatch(words[0]) or words[0] in _PREFIXES):
        words = words[1:]
    return words
