"""The one list of tools that the model is given."""

from __future__ import annotations

from qwenterm.core.types import Tool
from qwenterm.sandbox.run import Sandbox
from qwenterm.tools.files import edit_tool, read_tool, write_tool
from qwenterm.tools.git import git_tool
from qwenterm.tools.search import list_tool, search_tool
from qwenterm.tools.shell import shell_tool


def build_tools(sandbox: Sandbox, *, read_lines: int) -> tuple[Tool, ...]:
    """Return every tool, in the order in which the prompt names them."""
    home = sandbox.home
    return (
        read_tool(read_lines, home),
        write_tool(home),
        edit_tool(home),
        list_tool(sandbox),
        search_tool(sandbox),
        shell_tool(sandbox),
        git_tool(sandbox),
    )
