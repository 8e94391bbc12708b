"""If these fail, a command of the model's reaches something it was never given."""

import asyncio
import contextlib
import http.server
import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from qwenterm.core.types import Access
from qwenterm.sandbox import git_guard
from qwenterm.sandbox.backends import Backend, choose
from qwenterm.sandbox.confinement import Limits, filtered_environment
from qwenterm.sandbox.run import Sandbox, blocked_write, run

BACKENDS = [
    pytest.param(backend, id=backend.name)
    for backend in (choose("bubblewrap"), choose("landlock"))
    if backend.contained
]


def test_this_machine_has_a_sandbox():
    """Without one every test below would be empty."""
    assert BACKENDS


@pytest.fixture
def home(tmp_path):
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True)
    (home / ".ssh/id_rsa").write_text("SECRET KEY")
    (home / ".netrc").write_text("SECRET PASSWORD")
    (home / "project").mkdir()
    (home / "project/file.txt").write_text("content\n")
    subprocess.run(["git", "init", "-q"], cwd=home / "project", check=True)
    return home


@pytest.fixture(params=BACKENDS)
def sandbox(request, home):
    return Sandbox(
        backend=request.param,
        home=home,
        hidden=(home / ".ssh", home / ".netrc"),
        limits=Limits(seconds=20, processes=64, file_bytes=1 << 20, output_bytes=1 << 20),
        environ={**os.environ, "HOME": str(home), "SECRET_TOKEN": "SECRET", "LD_X": "y"},
    )


async def shell(sandbox, command, access=Access.READ_ONLY, **options):
    workspace = sandbox.home / "project"
    return await run(
        sandbox, ["bash", "-c", command], workspace=workspace, access=access, **options
    )


async def test_reads_the_workspace_and_reports_the_status(sandbox):
    done = await shell(sandbox, "cat file.txt; pwd; exit 3")
    assert done.output.splitlines() == ["content", str(sandbox.home / "project")]
    assert done.exit_code == 3


async def test_read_only_means_that_nothing_changes_and_the_wish_is_noticed(sandbox):
    done = await shell(sandbox, "echo x > new.txt")
    assert not (sandbox.home / "project/new.txt").exists()
    assert blocked_write(done, sandbox.backend)
    assert not blocked_write(await shell(sandbox, "false"), sandbox.backend)


async def test_the_workspace_can_be_written_when_granted(sandbox):
    done = await shell(sandbox, "echo x > new.txt && mkdir d && mv new.txt d/", Access.WORKSPACE)
    assert done.exit_code == 0, done.output
    assert (sandbox.home / "project/d/new.txt").read_text() == "x\n"


async def test_a_private_temporary_folder_works(sandbox):
    done = await shell(sandbox, 'f=$(mktemp) && echo ok > "$f" && cat "$f"')
    assert done.output == "ok\n", done.output


async def test_secrets_are_not_there(sandbox):
    done = await shell(sandbox, "cat ~/.ssh/id_rsa ~/.netrc; env", Access.WORKSPACE)
    assert "SECRET" not in done.output


async def test_outside_the_workspace_nothing_is_written(sandbox):
    await shell(sandbox, "echo x > ../outside; echo x > ~/.bashrc", Access.WORKSPACE)
    assert not (sandbox.home / "outside").exists()
    assert not (sandbox.home / ".bashrc").exists()


async def test_hooks_and_configuration_of_git_stay(sandbox):
    """A hook written by the model would run with the user's rights at the next checkout."""
    config = (sandbox.home / "project/.git/config").read_text()
    command = (
        "mv .git away; mkdir -p .git/hooks; cp -r away/* .git 2>/dev/null;"
        "echo 'touch /tmp/x' > .git/hooks/post-checkout; chmod +x .git/hooks/post-checkout;"
        "git config core.pager evil; rm -rf .git/hooks; ln -s /tmp .git/hooks"
    )
    await shell(sandbox, command, Access.WORKSPACE)
    hooks = sandbox.home / "project/.git/hooks"
    assert not (hooks / "post-checkout").exists()
    assert not hooks.is_symlink()
    assert (sandbox.home / "project/.git/config").read_text() == config


async def test_a_new_repository_gets_no_hooks(sandbox):
    command = "mkdir -p r && rm -rf .git && git init -q . && printf x > .git/hooks/pre-commit"
    for path in sorted((sandbox.home / "project/.git").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (sandbox.home / "project/.git").rmdir()
    done = await shell(sandbox, command, Access.WORKSPACE)
    assert not (sandbox.home / "project/.git/hooks/pre-commit").exists()
    assert done.restored == (".git/hooks/pre-commit",)


async def test_no_network_not_even_to_this_machine(sandbox):
    reached = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            reached.set()

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        port = server.server_address[1]
        done = await shell(sandbox, f"exec 3<>/dev/tcp/127.0.0.1/{port} && echo >&3 'GET /'")
        assert done.exit_code != 0
        assert not reached.is_set()
    finally:
        server.shutdown()


async def test_endless_output_is_stopped(sandbox):
    done = await shell(sandbox, "yes")
    assert done.stopped.startswith("stopped: it printed")
    assert len(done.output) < 2 << 20


async def test_a_command_that_never_ends_is_stopped_with_its_children(sandbox):
    started = time.monotonic()
    done = await shell(sandbox, "setsid sleep 4242 & sleep 4243", seconds=1)
    assert "longer than 1 s" in done.stopped
    assert time.monotonic() - started < 10
    assert not running("sleep 4242")
    assert not running("sleep 4243")


async def test_what_was_left_in_the_background_ends_with_the_command(sandbox):
    await shell(sandbox, "nohup setsid sleep 4244 >/dev/null 2>&1 & disown; exit 0")
    assert not running("sleep 4244")


async def test_cancelling_ends_the_command(sandbox):
    task = asyncio.create_task(shell(sandbox, "sleep 4245"))
    while not running("sleep 4245"):
        await asyncio.sleep(0.02)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert not running("sleep 4245")


async def test_a_file_cannot_fill_the_disk(sandbox):
    await shell(sandbox, "dd if=/dev/zero of=fill bs=1M count=64", Access.WORKSPACE)
    assert (sandbox.home / "project/fill").stat().st_size <= 1 << 20


async def test_a_fork_bomb_is_held(sandbox):
    done = await shell(sandbox, "b() { b | b & }; b; sleep 2", seconds=8)
    assert done.seconds < 20
    again = await shell(sandbox, "echo alive")
    assert again.output == "alive\n"


async def test_memory_is_limited(home):
    backend = BACKENDS[0].values[0]
    sandbox = Sandbox(backend, home, limits=Limits(seconds=30, memory_bytes=128 << 20))
    done = await shell(sandbox, "python3 -c 'x = bytearray(1 << 30); print(len(x))'")
    assert done.exit_code != 0
    assert "1073741824" not in done.output


async def test_output_arrives_while_the_command_runs(sandbox):
    pieces = []
    done = await shell(sandbox, "echo one; sleep 0.3; echo zwei ü", emit=pieces.append)
    assert "".join(pieces) == done.output == "one\nzwei ü\n"
    assert len(pieces) >= 2


async def test_without_a_backend_the_children_still_end(home):
    sandbox = Sandbox(Backend("none"), home, limits=Limits(seconds=20))
    done = await shell(sandbox, "setsid sleep 4246 & echo x > file2; echo ok", Access.WORKSPACE)
    assert done.output == "ok\n"
    assert (home / "project/file2").exists()
    assert not running("sleep 4246")


def test_the_environment_carries_no_injection():
    given = {
        "PATH": "/bin",
        "LD_PRELOAD": "x",
        "GIT_EXTERNAL_DIFF": "x",
        "NODE_OPTIONS": "x",
        "PYTHONPATH": "x",
        "BASH_ENV": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "LC_ALL": "C.UTF-8",
    }
    kept = filtered_environment(given, Path("/home/u"))
    assert "x" not in kept.values()
    assert kept["LANG"] == "C.UTF-8"


def test_the_guard_leaves_an_untouched_repository_alone(home):
    before = git_guard.remember(home / "project")
    assert git_guard.restore(home / "project", before) == []


def running(command_line: str) -> bool:
    wanted = command_line.encode().replace(b" ", b"\0")
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                # A zombie has no command line any more.
                if (entry / "cmdline").read_bytes().rstrip(b"\0") == wanted:
                    return True
    return False
