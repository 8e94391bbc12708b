"""If these fail, something happens that the user never agreed to."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwenterm.core.errors import UsageError
from qwenterm.core.types import Access, Intent, PermissionMode
from qwenterm.permissions.places import build_places, refuse_workspace, resolved_intents
from qwenterm.permissions.policy import decide, decide_rerun
from qwenterm.permissions.shell_syntax import needs_outside

ASK, EDITS, AUTO, PLAN = (
    PermissionMode.ASK,
    PermissionMode.EDITS,
    PermissionMode.AUTO,
    PermissionMode.PLAN,
)


@pytest.fixture
def places(tmp_path):
    (tmp_path / "home/.ssh").mkdir(parents=True)
    (tmp_path / "home/project/.git/hooks").mkdir(parents=True)
    return build_places(
        tmp_path / "home/project",
        home=tmp_path / "home",
        hidden=["~/.ssh"],
        own=[tmp_path / "home/.config/qwenterm"],
    )


def ruling(places, mode, kind, target, contained=True):
    home = places.workspace.parent
    intents = resolved_intents([Intent(kind, str(target))], home, places.workspace)
    return decide(mode, intents, places, contained=contained)


@pytest.mark.parametrize(
    ("mode", "action"), [(ASK, "ask"), (EDITS, "allow"), (AUTO, "allow"), (PLAN, "deny")]
)
def test_a_file_change_in_the_workspace_follows_the_mode(places, mode, action):
    assert ruling(places, mode, "write", "notes.txt").action == action


@pytest.mark.parametrize("mode", list(PermissionMode))
@pytest.mark.parametrize(
    "target",
    [
        "../outside",
        "/etc/passwd",
        "~/.bashrc",
        ".git/hooks/post-checkout",
        ".git/config",
        ".GIT/config",
        ".git",
        "sub/.git/hooks/x",
        "~/.config/qwenterm/config.toml",
    ],
)
def test_protected_places_are_closed_in_every_mode(places, mode, target):
    assert ruling(places, mode, "write", target).action == "deny"


def test_a_link_does_not_lend_its_name(places):
    """A link in the workspace to ~/.bashrc must be judged as ~/.bashrc."""
    (places.workspace / "innocent").symlink_to(places.workspace.parent / ".bashrc")
    (places.workspace / "keys").symlink_to(places.workspace.parent / ".ssh")
    assert ruling(places, AUTO, "write", "innocent").action == "deny"
    assert ruling(places, AUTO, "read", "keys/id_rsa").action == "deny"


def test_a_project_inside_home_protects_the_start_up_files_by_real_path(tmp_path):
    """When home itself is the workspace by name, start-up files stay closed."""
    places = build_places(tmp_path, home=tmp_path, hidden=[], own=[])
    intents = resolved_intents([Intent("write", ".zshrc")], tmp_path, tmp_path)
    assert decide(AUTO, intents, places, contained=True).action == "deny"


def test_secrets_are_not_read(places):
    assert ruling(places, ASK, "read", "~/.ssh/id_rsa").action == "deny"
    assert ruling(places, ASK, "read", "/proc/self/environ").action == "deny"
    assert ruling(places, ASK, "read", "/etc/hostname").action == "allow"


def test_commands_run_read_only_until_somebody_agrees(places):
    for mode in (ASK, EDITS, PLAN):
        assert ruling(places, mode, "exec", "make").access is Access.READ_ONLY
    assert ruling(places, AUTO, "exec", "make").access is Access.WORKSPACE
    assert decide_rerun(ASK).action == "ask"
    assert decide_rerun(EDITS).action == "ask"
    assert decide_rerun(PLAN).action == "deny"


@pytest.mark.parametrize("mode", [ASK, EDITS, AUTO])
def test_without_a_sandbox_every_command_is_asked(places, mode):
    assert ruling(places, mode, "exec", "ls", contained=False).action == "ask"
    assert ruling(places, PLAN, "exec", "ls", contained=False).action == "deny"


@pytest.mark.parametrize(
    "command",
    [
        "git push --force origin main",
        "docker run --rm -v /:/host alpine true",
        "systemctl restart ssh",
        "apt-get install -y cowsay",
        "cd x && sudo rm -rf /",
        "A=1 env B=2 git -c x=y push",
        "/usr/bin/ssh host",
    ],
)
def test_what_cannot_be_contained_is_asked_even_in_auto(places, command):
    assert ruling(places, AUTO, "exec", command).action == "ask"
    assert ruling(places, PLAN, "exec", command).action == "deny"


def test_ordinary_commands_are_not_taken_for_dangerous_ones():
    for command in ("git status", "grep -r sudo .", "echo docker", "python3 push.py", "ls 'a;b'"):
        assert needs_outside(command) == ""


@given(st.text(max_size=200))
def test_no_command_line_breaks_the_reader(command):
    needs_outside(command)


@given(st.lists(st.sampled_from(["read", "write", "exec", "net"]), min_size=1, max_size=4))
def test_the_strictest_intent_wins(kinds):
    places = build_places(Path("/w"), home=Path("/h"), hidden=[], own=[])
    intents = [Intent(kind, "/w/x") for kind in kinds]
    rank = {"allow": 0, "ask": 1, "deny": 2}
    for mode in PermissionMode:
        singles = [decide(mode, [intent], places, contained=True).action for intent in intents]
        together = decide(mode, intents, places, contained=True).action
        assert rank[together] == max(rank[action] for action in singles)


def test_root_and_home_are_no_workspaces(tmp_path):
    with pytest.raises(UsageError, match="home folder"):
        refuse_workspace(tmp_path, tmp_path, by_name=False)
    with pytest.raises(UsageError, match="root folder"):
        refuse_workspace(Path("/"), tmp_path, by_name=False)
    with pytest.raises(UsageError, match="no such folder"):
        refuse_workspace(tmp_path / "missing", tmp_path, by_name=True)
    refuse_workspace(tmp_path, tmp_path, by_name=True)
