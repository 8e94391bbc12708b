"""If these fail, the model reads wrong things or a user's file is damaged."""

import os
import subprocess
from pathlib import Path

import jsonschema
import pytest

from qwenterm.core.diff import unified
from qwenterm.core.types import Access, Effect, FileChange, ToolContext
from qwenterm.sandbox.backends import choose
from qwenterm.sandbox.run import Sandbox
from qwenterm.tools.anchors import AnchorError, replace_anchor
from qwenterm.tools.apply import ChangedMeanwhileError, apply_effect
from qwenterm.tools.toolbox import build_tools


@pytest.fixture
def workspace(tmp_path):
    home = tmp_path / "home"
    project = home / "project"
    (project / "pkg").mkdir(parents=True)
    (project / "main.py").write_text("def add(a, b):\n    return a - b\n\n\nprint(add(1, 2))\n")
    (project / "pkg/one.py").write_text("x = 1\n")
    (project / "notes.md").write_text("# Notes\nbuy milk\n")
    (project / ".gitignore").write_text("build/\n")
    (project / "build").mkdir()
    (project / "build/out.py").write_text("milk\n")
    git = ["git", "-c", "user.name=Ann", "-c", "user.email=ann@example.org"]
    subprocess.run([*git, "init", "-q"], cwd=project, check=True)
    subprocess.run([*git, "add", "."], cwd=project, check=True)
    subprocess.run([*git, "commit", "-qm", "first steps"], cwd=project, check=True)
    return project


@pytest.fixture
def call(workspace):
    sandbox = Sandbox(choose("auto"), workspace.parent, hidden=(workspace.parent / ".ssh",))
    tools = {tool.name: tool for tool in build_tools(sandbox, read_lines=100)}

    async def call(name, access=Access.READ_ONLY, /, **arguments):
        jsonschema.validate(arguments, tools[name].parameters)
        assert tools[name].intents(arguments, workspace)
        return await tools[name].run(arguments, ToolContext(workspace, access))

    return call


async def test_read_numbers_lines_and_takes_a_range(call):
    assert (await call("read", path="notes.md")).text == "1\t# Notes\n2\tbuy milk"
    assert (await call("read", path="main.py", start=2, end=2)).text == "2\t    return a - b"
    assert (await call("read", path="main.py", start=99)).is_error


async def test_read_says_how_to_go_on(call, workspace):
    (workspace / "long.txt").write_text("".join(f"line {n}\n" for n in range(1000)))
    text = (await call("read", path="long.txt")).text
    assert "(lines 1-100 of 1000; read on with start=101)" in text


@pytest.mark.parametrize("kind", ["missing", "folder", "binary", "pipe", "huge", "latin-1"])
async def test_read_refuses_what_is_no_text_file_without_hanging(call, workspace, kind):
    path = workspace / kind
    if kind == "folder":
        path.mkdir()
    elif kind == "binary":
        path.write_bytes(b"\x7fELF\0\0")
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "huge":
        with path.open("wb") as file:
            file.truncate(1 << 34)
    elif kind == "latin-1":
        path.write_bytes(b"caf\xe9\n")
    result = await call("read", path=kind)
    assert result.is_error
    assert kind in result.text


async def test_write_and_edit_change_nothing_by_themselves(call, workspace):
    """Only an approved effect may touch a file."""
    before = (workspace / "main.py").read_bytes()
    written = await call("write", path="new/file.txt", content="hello")
    edited = await call("edit", path="main.py", old="    return a - b", new="    return a + b")
    assert not (workspace / "new").exists()
    assert (workspace / "main.py").read_bytes() == before
    apply_effect(written.effect)
    apply_effect(edited.effect)
    assert (workspace / "new/file.txt").read_text() == "hello\n"
    assert "a + b" in (workspace / "main.py").read_text()


async def test_edit_accepts_copied_line_numbers(call):
    result = await call(
        "edit", path="main.py", old="2\t    return a - b", new="2\t    return a + b"
    )
    assert b"    return a + b\n" in result.effect.changes[0].after


async def test_a_missed_anchor_comes_back_with_the_nearest_lines(call):
    result = await call("edit", path="main.py", old="return a minus b", new="x")
    assert result.is_error
    assert "2\t    return a - b" in result.text


async def test_list_counts_and_respects_gitignore(call):
    listed = (await call("list")).text
    assert "pkg/" in listed and "notes.md (" in listed
    found = (await call("list", pattern="*.py")).text
    assert found.splitlines() == ["2 files match *.py:", "main.py", "pkg/one.py"]
    assert (await call("list", path="nowhere")).is_error


async def test_search_finds_lines(call):
    found = (await call("search", pattern="milk")).text
    # Few matches come with the lines around them, which saves a call of `read`.
    assert found.splitlines()[0] == "1 matching lines, with the lines around:"
    assert "notes.md:2:buy milk" in found.splitlines()
    assert "nothing matches" in (await call("search", pattern="zebra")).text
    assert "main.py:5" in (await call("search", pattern="add(1", path="main.py")).text
    assert (await call("search", pattern="x", path="nowhere")).is_error


async def test_search_and_git_cannot_be_given_options(call):
    """A pattern or revision that looks like an option must not become one."""
    assert "nothing matches" in (await call("search", pattern="--files")).text
    assert (await call("git", action="show", revision="--output=x")).is_error


async def test_search_does_not_see_secrets(call, workspace):
    (workspace.parent / ".ssh").mkdir()
    (workspace.parent / ".ssh/id").write_text("TOPSECRET\n")
    found = await call("search", pattern="TOPSECRET", path=str(workspace.parent))
    assert "TOPSECRET" not in found.text.replace("'TOPSECRET'", "")


async def test_shell_reports_output_and_status(call):
    result = await call("shell", command="ls; exit 3")
    assert "main.py" in result.text
    assert result.exit_code == 3
    assert "[exit status 3]" in result.text


async def test_shell_notices_that_a_command_wanted_to_write(call, workspace):
    assert (await call("shell", command="echo hi > new.txt")).blocked_write
    done = await call("shell", Access.WORKSPACE, command="echo hi > new.txt")
    assert not done.blocked_write
    assert (workspace / "new.txt").read_text() == "hi\n"


async def test_git_tells_about_the_repository(call, workspace):
    (workspace / "main.py").write_text("changed\n")
    (workspace / "notes.md").write_text("staged\n")
    subprocess.run(["git", "add", "notes.md"], cwd=workspace, check=True)
    assert " M main.py" in (await call("git", action="status")).text
    diff = (await call("git", action="diff")).text
    assert "+changed" in diff and "+staged" in diff
    assert ": first steps" in (await call("git", action="log")).text
    assert "first steps" in (await call("git", action="show", revision="HEAD")).text
    assert "buy milk" in (await call("git", action="blame", path="notes.md", revision="HEAD")).text
    assert (await call("git", action="blame")).is_error


async def test_git_does_not_obey_the_repository(call, workspace, tmp_path):
    """A repository from the net may name programs in its configuration."""
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/pwned {workspace}/pwned\ncat\n")
    evil.chmod(0o755)
    with (workspace / ".git/config").open("a") as config:
        config.write(f'[core]\nfsmonitor = {evil}\n[diff]\nexternal = {evil}\n[filter "f"]\n')
        config.write(f"clean = {evil}\n[pager]\nlog = {evil}\n")
    (workspace / ".gitattributes").write_text("* filter=f\n")
    (workspace / "main.py").write_text("changed\n")
    for action in ("status", "diff", "log"):
        await call("git", action=action)
    assert not (tmp_path / "pwned").exists()
    assert not (workspace / "pwned").exists()


async def test_outside_a_repository_git_says_so(call, workspace):
    (workspace / ".git").rename(workspace / "git-away")
    result = await call("git", action="status")
    assert result.is_error and "not in a git repository" in result.text


def test_anchors_must_be_unique():
    with pytest.raises(AnchorError, match=r"2 times \(lines 1, 3\)"):
        replace_anchor("x\ny\nx\n", "x", "z")
    with pytest.raises(AnchorError, match="are empty"):
        replace_anchor("x\n", " ", "")
    assert replace_anchor("x\ny\nx\n", "x", "z", everywhere=True) == ("z\ny\nz\n", 1)


def test_an_empty_anchor_adds_at_the_end():
    assert replace_anchor("x\n", "", "y") == ("x\ny\n", 2)
    assert replace_anchor("x", "", "y\n") == ("x\ny\n", 2)


async def test_a_file_nobody_looked_at_is_not_overwritten(call, workspace):
    """A model that was asked to add a line replaced the whole file by that line."""
    for name, arguments in (
        ("write", {"content": "import os"}),
        ("edit", {"old": "a", "new": "b"}),
    ):
        result = await call(name, path="main.py", **arguments)
        assert result.is_error and result.effect is None
        assert "2\t    return a - b" in result.text


async def test_after_a_look_the_same_call_goes_through(workspace):
    sandbox = Sandbox(choose("auto"), workspace.parent, hidden=())
    tools = {tool.name: tool for tool in build_tools(sandbox, read_lines=50)}
    context = ToolContext(workspace)
    arguments = {"path": "main.py", "content": "import os"}
    assert (await tools["write"].run(arguments, context)).is_error
    assert (await tools["write"].run(arguments, context)).effect


async def test_a_look_at_one_line_is_no_look_at_the_file(workspace):
    sandbox = Sandbox(choose("auto"), workspace.parent, hidden=())
    tools = {tool.name: tool for tool in build_tools(sandbox, read_lines=50)}
    context = ToolContext(workspace)
    await tools["read"].run({"path": "main.py", "start": 1, "end": 1}, context)
    assert (await tools["write"].run({"path": "main.py", "content": "x"}, context)).is_error


async def test_a_long_file_is_edited_piece_by_piece_and_not_overwritten(call, workspace):
    (workspace / "long.txt").write_text("".join(f"line {n}.\n" for n in range(1000)))
    assert (await call("edit", path="long.txt", old="e 77.", new="e 78.")).effect
    assert (await call("write", path="long.txt", content="x")).is_error


async def test_a_small_status_tells_what_was_changed(call, workspace):
    (workspace / "main.py").write_text("changed\n")
    assert "+changed" in (await call("git", action="status")).text


async def test_edit_is_not_for_renaming(call):
    result = await call("edit", path="main.py", old="main.py", new="app.py")
    assert result.is_error and "mv" in result.text


def test_an_anchor_may_differ_in_indentation():
    text = "class A:\n    def f(self):\n        return 1\n"
    changed, line = replace_anchor(text, "def f(self):\n    return 1", "def f(self):\n    return 2")
    assert changed == "class A:\n    def f(self):\n        return 2\n"
    assert line == 2
    changed, _ = replace_anchor("a = 1\nb = 2\n", "    b = 2", "    b = 3")
    assert changed == "a = 1\nb = 3\n"


def test_an_effect_is_not_applied_over_somebody_elses_change(tmp_path):
    path = Path(os.path.realpath(tmp_path)) / "f"
    path.write_text("mine\n")
    other = path.with_name("g")
    effect = Effect((FileChange(other, None, b"new\n"), FileChange(path, b"old\n", b"new\n")))
    with pytest.raises(ChangedMeanwhileError, match="changed meanwhile"):
        apply_effect(effect)
    assert path.read_text() == "mine\n"
    assert not other.exists()


def test_an_effect_does_not_follow_a_link_put_in_its_way(tmp_path):
    real = Path(os.path.realpath(tmp_path))
    (real / "target").write_text("safe\n")
    (real / "f").symlink_to(real / "target")
    with pytest.raises(ChangedMeanwhileError, match="somewhere else"):
        apply_effect(Effect((FileChange(real / "f", b"safe\n", b"evil\n"),)))
    assert (real / "target").read_text() == "safe\n"


def test_applying_keeps_the_mode_and_leaves_no_litter(tmp_path):
    path = Path(os.path.realpath(tmp_path)) / "script.sh"
    path.write_text("old\n")
    path.chmod(0o755)
    apply_effect(Effect((FileChange(path, b"old\n", b"new\n"),)))
    assert path.stat().st_mode & 0o777 == 0o755
    assert [entry.name for entry in tmp_path.iterdir()] == ["script.sh"]


def test_diffs_apply_with_git(tmp_path):
    """What a person approves must be exactly what happens: git agrees with the diff."""
    real = Path(os.path.realpath(tmp_path))
    subprocess.run(["git", "init", "-q"], cwd=real, check=True)
    (real / "a").write_bytes(b"1\n2\x0c2\n3")
    effect = Effect(
        (
            FileChange(real / "a", b"1\n2\x0c2\n3", b"1\ntwo\n3\n"),
            FileChange(real / "b", None, b"new\n"),
        )
    )
    diff = unified(effect, real)
    subprocess.run(["git", "apply", "-"], cwd=real, input=diff.encode(), check=True)
    assert (real / "a").read_bytes() == b"1\ntwo\n3\n"
    assert (real / "b").read_bytes() == b"new\n"
