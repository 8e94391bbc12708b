"""The policy: mode, intents and places in, one ruling out. Deny wins over ask wins over allow.

Pure: it looks at nothing but its arguments. `dispatch` resolves the paths beforehand and obeys
the ruling; no tool decides for itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from qwenterm.core.types import Access, Intent, PermissionMode, Ruling
from qwenterm.permissions.places import Places, inside, is_hidden, is_protected
from qwenterm.permissions.shell_syntax import needs_outside

_RANK = {"allow": 0, "ask": 1, "deny": 2}


def decide(
    mode: PermissionMode, intents: Sequence[Intent], places: Places, *, contained: bool
) -> Ruling:
    """Return the strictest ruling over all intents; `contained`: a kernel sandbox is at hand."""
    rulings = [_one(mode, intent, places, contained) for intent in intents]
    if not rulings:
        return Ruling("allow", "the call touches nothing")
    return max(rulings, key=lambda ruling: _RANK[ruling.action])


def decide_rerun(mode: PermissionMode) -> Ruling:
    """Return whether a command that was stopped from writing may run again with write access."""
    if mode is PermissionMode.PLAN:
        return Ruling("deny", "plan mode changes nothing")
    if mode is PermissionMode.AUTO:
        return Ruling("allow", "auto mode: the sandbox holds it", Access.WORKSPACE)
    return Ruling("ask", "the command wants to write in the workspace", Access.WORKSPACE)


def _one(mode: PermissionMode, intent: Intent, places: Places, contained: bool) -> Ruling:
    if intent.kind == "read":
        return _read(intent, places)
    if intent.kind == "write":
        return _write(mode, intent, places)
    if intent.kind == "exec":
        return _exec(mode, intent, contained)
    if mode is PermissionMode.PLAN:
        return Ruling("deny", "plan mode reaches no network")
    return Ruling("ask", f"wants to reach {intent.target}")


def _read(intent: Intent, places: Places) -> Ruling:
    if is_hidden(Path(intent.target), places):
        return Ruling("deny", f"{intent.target} is among the hidden files (sandbox.hidden)")
    return Ruling("allow", "reading is free")


def _write(mode: PermissionMode, intent: Intent, places: Places) -> Ruling:
    path = Path(intent.target)
    if not inside(path, places.workspace):
        return Ruling("deny", f"{path} is outside the workspace {places.workspace}")
    if is_protected(path, places) or is_hidden(path, places):
        return Ruling("deny", f"{path} is protected in every mode")
    if mode is PermissionMode.PLAN:
        return Ruling("deny", "plan mode changes nothing")
    if mode is PermissionMode.ASK:
        return Ruling("ask", "changes a file")
    return Ruling("allow", f"{mode.value} mode accepts file changes in the workspace")


def _exec(mode: PermissionMode, intent: Intent, contained: bool) -> Ruling:
    outside = needs_outside(intent.target)
    if mode is PermissionMode.PLAN and (outside or not contained):
        reason = outside or "there is no sandbox on this machine"
        return Ruling("deny", f"plan mode changes nothing: {reason}")
    if not contained:
        return Ruling("ask", "there is no sandbox on this machine", Access.WORKSPACE)
    if outside:
        return Ruling("ask", outside, Access.WORKSPACE)
    if mode is PermissionMode.AUTO:
        return Ruling("allow", "auto mode: the sandbox holds it", Access.WORKSPACE)
    return Ruling("allow", "runs with everything read-only first", Access.READ_ONLY)
