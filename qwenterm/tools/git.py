"""`git`: status, diff, log, show and blame, read-only.

A repository's configuration can name programs that git runs (filters, external diffs, a file
system monitor), so git itself runs in the sandbox, and with those switched off besides.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from qwenterm.core.types import Access, Intent, Tool, ToolContext, ToolResult
from qwenterm.permissions.places import resolve
from qwenterm.sandbox.run import Completed, Sandbox, run
from qwenterm.tools.schema import choice, parameters, text

_SAFE = ("-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "core.pager=cat")
_SMALL_DIFF = 40
_PLAIN = ("--no-ext-diff", "--no-textconv", "--no-color")
_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "status": ("status", "--short", "--branch"),
    "diff": ("diff", *_PLAIN),
    "log": ("log", "--no-color", "-n", "20", "--date=iso", "--format=%h %ad %an: %s"),
    "show": ("show", "--stat", "--patch", *_PLAIN),
    "blame": ("blame", "--date=short"),
}


def git_tool(sandbox: Sandbox) -> Tool:
    """Return `git`."""

    async def execute(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        action = str(arguments["action"])
        revision, path = str(arguments.get("revision") or ""), str(arguments.get("path") or "")
        if revision.startswith("-"):
            return ToolResult("`revision` is a commit, branch or range", is_error=True)
        if action == "blame" and not path:
            return ToolResult("`blame` needs `path`", is_error=True)
        root = repository_root(context.workspace)
        if root is None:
            return ToolResult("this folder is not in a git repository", is_error=True)
        options = list(_COMMANDS[action])
        if action == "diff" and not revision and await _has_commits(sandbox, context, root):
            revision = "HEAD"  # staged changes are changes too
        if revision and action != "status":
            options.append(revision)
        where = ["--", *([str(resolve(path, context.workspace, sandbox.home))] if path else [])]
        done = await _git(sandbox, [*options, *where], context, root)
        output = done.output.strip("\n")
        if done.exit_code:
            return ToolResult(output or f"git ended with {done.exit_code}", is_error=True)
        if action == "status" and "\n" in output:
            # What was changed is the next question, nearly always.
            changes = await _git(sandbox, ["diff", *_PLAIN, "HEAD", *where], context, root)
            if changes.exit_code == 0 and changes.output.count("\n") <= _SMALL_DIFF:
                output = f"{output}\n\n{changes.output.strip()}".strip()
        return ToolResult(output or _nothing(action), exit_code=0)

    return Tool(
        "git",
        "Look at the git repository.",
        parameters(
            1,
            action=choice(*_COMMANDS),
            revision=text("commit or range"),
            path=text("file"),
        ),
        # Without a sandbox, the repository's configuration could run anything: that is a command.
        lambda arguments, workspace: (
            (Intent("read", str(workspace)),)
            if sandbox.backend.contained
            else (Intent("exec", f"git {arguments['action']}"),)
        ),
        execute,
    )


async def _git(
    sandbox: Sandbox, options: Sequence[str], context: ToolContext, root: Path
) -> Completed:
    return await run(
        sandbox,
        ["git", *_SAFE, *options],
        workspace=context.workspace,
        access=Access.READ_ONLY,
        visible=[root] if root != context.workspace else [],
    )


async def _has_commits(sandbox: Sandbox, context: ToolContext, root: Path) -> bool:
    options = ["rev-parse", "--quiet", "--verify", "HEAD"]
    return (await _git(sandbox, options, context, root)).exit_code == 0


def repository_root(folder: Path) -> Path | None:
    """Return the folder that holds the repository's `.git`, None outside of one."""
    for candidate in (folder, *folder.parents):
        if (candidate / ".git").exists():
            return candidate
    return None


def _nothing(action: str) -> str:
    return "no uncommitted changes" if action == "diff" else "(nothing)"
