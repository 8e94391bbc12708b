"""`shell`: a command line in the sandbox, in the workspace."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qwenterm.core.types import Access, Intent, Tool, ToolContext, ToolResult
from qwenterm.sandbox.run import Sandbox, blocked_write, run
from qwenterm.tools.schema import parameters, text


def shell_tool(sandbox: Sandbox) -> Tool:
    """Return `shell`; its `blocked_write` tells dispatch that the command wanted more."""

    async def execute(arguments: Mapping[str, Any], context: ToolContext) -> ToolResult:
        command = str(arguments["command"])
        if "\0" in command:
            return ToolResult("the command contains a NUL byte", is_error=True)
        done = await run(
            sandbox,
            ["bash", "-c", command],
            workspace=context.workspace,
            access=context.access,
            emit=context.emit,
        )
        parts = [done.output.rstrip("\n") or "(no output)"]
        if done.stopped:
            parts.append(f"[{done.stopped}]")
        if done.restored:
            parts.append(f"[put back, because it is protected: {', '.join(done.restored)}]")
        if done.exit_code:
            parts.append(f"[exit status {done.exit_code}]")
        blocked = (
            context.access is Access.READ_ONLY
            and sandbox.backend.contained
            and blocked_write(done, sandbox.backend)
        )
        return ToolResult(
            "\n".join(parts),
            is_error=bool(done.exit_code or done.stopped),
            exit_code=done.exit_code,
            blocked_write=blocked,
        )

    return Tool(
        "shell",
        "Run a bash command in the workspace (no network; only the workspace can change).",
        parameters(1, command=text("bash command")),
        lambda arguments, _workspace: (Intent("exec", str(arguments["command"])),),
        execute,
    )
