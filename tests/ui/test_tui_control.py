"""Stopping, waiting, modes, commands and keys of the interface."""

import asyncio
import os
import subprocess
import time

import pytest
from textual import events as keys

from qwenterm.client import ChatProgress
from qwenterm.core import events
from qwenterm.core.errors import UnavailableError, UsageError
from qwenterm.core.types import PermissionMode
from qwenterm.ui.tui import transcript
from qwenterm.ui.tui.app import run_tui
from qwenterm.ui.tui.difference import coloured, counts
from qwenterm.ui.tui.status import Facts, compose_line
from tests.stubs.scripted_model import ScriptedModel, call, text
from tests.ui.driving import finished, screen, send, until


async def test_escape_stops_a_long_answer_and_the_next_prompt_works(build):
    app = build(text(*("word " for _ in range(10_000))), text("Next."), delay=0.01)
    async with app.run_test() as pilot:
        await send(pilot, "talk")
        await until(pilot, lambda: "word word" in screen(app))
        before = time.monotonic()
        await pilot.press("escape")
        await finished(pilot, "stopped")
        assert time.monotonic() - before < 3
        assert app.runtime.model.closed == 1
        await send(pilot, "go on")
        await finished(pilot, "Next.")


async def test_escape_ends_a_running_command(build):
    app = build(call("shell", command="sleep 60"), text("Fine."))
    async with app.run_test() as pilot:
        await send(pilot, "wait")
        await until(pilot, lambda: "● shell sleep 60" in screen(app))
        await pilot.press("escape")
        await finished(pilot, "stopped")
        assert "■ shell sleep 60" in screen(app)
        await send(pilot, "and now")
        await finished(pilot, "Fine.")


async def test_a_message_typed_while_the_model_works_waits_and_is_sent(build):
    app = build(text(*("a " for _ in range(40))), text("Second."), delay=0.01)
    async with app.run_test() as pilot:
        await send(pilot, "first")
        await send(pilot, "second")
        await until(pilot, lambda: "waits: second" in screen(app))
        await finished(pilot, "Second.")
        assert "waits:" not in screen(app)
        assert [message.role for message in app.runtime.history] == [
            *("system", "user", "assistant", "user", "assistant")
        ]


async def test_a_waiting_message_comes_back_when_the_turn_is_stopped(build):
    app = build(text(*("a " for _ in range(10_000))), delay=0.01)
    async with app.run_test() as pilot:
        await send(pilot, "first")
        await send(pilot, "second\nof two lines")
        await pilot.press("escape")
        await finished(pilot, "stopped")
        assert app.composer.text == "second\nof two lines"
        assert len(app.runtime.model.requests) == 1


async def test_shift_tab_goes_through_the_modes(build):
    app = build()
    async with app.run_test(size=(80, 24)) as pilot:
        for mode in ("edits", "auto", "plan", "ask"):
            await pilot.press("shift+tab")
            assert app.runtime.mode is PermissionMode(mode)
            assert f"{mode} · tiny" in screen(app)
        assert app.focused is app.composer


async def test_mode_is_set_by_name_and_an_unknown_one_refused(build, workspace):
    app = build(call("write", path="new.txt", content="x"), text("Written."))
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "/mode yolo")
        await until(pilot, lambda: "'yolo' is no permission mode" in screen(app))
        assert app.runtime.mode is PermissionMode.ASK
        await send(pilot, "/mode edits")
        await until(pilot, lambda: app.runtime.mode is PermissionMode.EDITS)
        await send(pilot, "write it")
        await finished(pilot, "Written.")
        assert (workspace / "new.txt").exists()


async def test_clear_begins_anew(build):
    app = build(text("One."), text("Two."))
    async with app.run_test() as pilot:
        await send(pilot, "first")
        await finished(pilot, "One.")
        await send(pilot, "/clear")
        await until(pilot, lambda: "a new conversation" in screen(app))
        assert "One." not in screen(app)
        await send(pilot, "second")
        await finished(pilot, "Two.")
        asked = app.runtime.model.requests[1].messages
        assert [message.role for message in asked] == ["system", "user"]


async def test_clearing_while_the_model_works_stops_it_first(build):
    app = build(text(*("a " for _ in range(10_000))), text("Two."), delay=0.01)
    async with app.run_test() as pilot:
        await send(pilot, "first")
        await send(pilot, "/clear")
        await until(pilot, lambda: "a new conversation" in screen(app))
        assert app.runtime.history == []
        await send(pilot, "second")
        await finished(pilot, "Two.")


async def test_ctrl_l_clears_the_view_and_keeps_the_conversation(build):
    app = build(text("One."))
    async with app.run_test() as pilot:
        await send(pilot, "first")
        await finished(pilot, "One.")
        await pilot.press("ctrl+l")
        await until(pilot, lambda: "One." not in screen(app))
        assert len(app.runtime.history) == 3


async def test_an_error_ends_the_turn_and_not_the_program(build):
    app = build([UnavailableError("no model on disk; pull one")], text("Now it works."))
    async with app.run_test() as pilot:
        await send(pilot, "first")
        await finished(pilot, "no model on disk; pull one")
        assert app.query(".note.error")
        await send(pilot, "again")
        await finished(pilot, "Now it works.")


async def test_commands_are_told_and_unknown_ones_refused(build):
    app = build(text("A file."))
    async with app.run_test(size=(80, 40)) as pilot:
        await send(pilot, "/help")
        await until(pilot, lambda: "/mode" in screen(app) and "Ctrl+Q" in screen(app))
        await send(pilot, "/nonsense")
        await until(pilot, lambda: "/nonsense is no command" in screen(app))
        await send(pilot, "/etc/hosts is what?")
        await finished(pilot, "A file.")


async def test_the_palette_has_the_commands(build):
    app = build()
    async with app.run_test() as pilot:
        found = {item.title: item.callback for item in app.get_system_commands(app.screen)}
        assert {"Help", "Stop", "Mode: plan", "New conversation", "Quit"} <= set(found)
        found["Mode: plan"]()
        assert app.runtime.mode is PermissionMode.PLAN
        await pilot.press("ctrl+p", "n", "e", "w", "space", "c")
        await until(pilot, lambda: "New conversation" in screen(app))
        await pilot.press("escape")
        await until(pilot, lambda: app.focused is app.composer)
        assert app.composer.text == ""


async def test_notices_are_shown_also_those_that_come_later(build):
    notices = ["the sandbox is weaker here"]

    class Talking(ScriptedModel):
        async def prepare(self, progress):
            notices.append("a smaller model was chosen")
            await super().prepare(progress)

    app = build(model=Talking(text("Hello.")), notices=notices)
    async with app.run_test() as pilot:
        await until(pilot, lambda: "the sandbox is weaker here" in screen(app))
        await send(pilot, "hi")
        await finished(pilot, "a smaller model was chosen")


async def test_the_keyboard_works_while_the_model_loads(build):
    class Slow(ScriptedModel):
        async def prepare(self, progress):
            progress(0.42)
            await released.wait()

    released = asyncio.Event()
    app = build(model=Slow([ChatProgress(50, 100, 0), *text("Ready.")]))
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "hi")
        await until(pilot, lambda: "loading the model 42%" in screen(app))
        await pilot.press("a", "b")
        assert app.composer.text == "ab"
        released.set()
        await finished(pilot, "Ready.")


async def test_new_lines_history_and_a_paste_of_any_size(build):
    app = build(text("One."), text("Two."))
    async with app.run_test(size=(80, 24)) as pilot:
        for key in ("shift+enter", "ctrl+j", "alt+enter"):
            await pilot.press("a", key)
        assert app.composer.text == "a\na\na\n"
        await pilot.press("enter")
        await finished(pilot, "One.")
        pasted = "".join(f"line {n} \x1b[201~\r" for n in range(3000))
        app.composer.post_message(keys.Paste(pasted))
        await until(pilot, lambda: "line 2999" in app.composer.text)
        await pilot.press("x", "enter")
        await finished(pilot, "Two.")
        sent = app.runtime.model.requests[1].messages[-1].content
        assert sent == "".join(f"line {n} ␛[201~\n" for n in range(3000)) + "x"
        assert "more lines)" in screen(app)
        app.composer.insert("unsent")
        await pilot.press("up")
        assert app.composer.text == sent
        app.composer.move_cursor((0, 0))
        await pilot.press("up")
        assert app.composer.text == "a\na\na\n"
        await pilot.press("down", "ctrl+end")
        app.composer.move_cursor(app.composer.document.end)
        await pilot.press("down")
        assert app.composer.text == "unsent"


async def test_quitting_in_the_middle_of_a_turn_stops_what_runs(build):
    app = build(call("shell", command="sleep 61"), text("x"))
    async with app.run_test() as pilot:
        await send(pilot, "wait")
        await until(pilot, lambda: "● shell" in screen(app))
        await pilot.press("ctrl+q")
        await until(pilot, lambda: not app.is_running)
    assert app.return_code == 0
    running = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True).stdout
    assert "sleep 61" not in running.splitlines()


async def test_ctrl_c_copies_then_asks_and_then_quits(build):
    app = build()
    async with app.run_test(notifications=True) as pilot:
        await pilot.press("a", "b", "shift+left", "ctrl+c")
        assert app.clipboard == "b"
        await pilot.press("right", "ctrl+c")
        await until(pilot, lambda: "Press Ctrl+C again" in screen(app))
        assert app.is_running
        await pilot.press("ctrl+c")
        await until(pilot, lambda: not app.is_running)
    assert app.return_code == 0


async def test_a_long_session_keeps_the_newest_blocks_only(build, monkeypatch):
    monkeypatch.setattr(transcript, "_MOST_BLOCKS", 10)
    app = build()
    async with app.run_test() as pilot:
        for number in range(30):
            await app.transcript.note(f"block {number}.")
        await until(pilot, lambda: "block 29." in screen(app))
        assert len(app.transcript.children) == 10


def test_what_matters_least_leaves_a_narrow_status_line():
    facts = Facts("qwen3.5-9b", PermissionMode.ASK)
    facts.take(events.TurnStarted("x"))
    facts.take(events.PrefillProgress(600, 1100, 100))
    facts.take(events.Usage(1100, 100, 70, 1, 2))
    wide = compose_line(facts, 100, facts.since + 65.5).plain
    assert "reading 50%  1 min 5 s" in wide
    assert "ask · qwen3.5-9b · 1,100 tokens, 100 reused · 35 tok/s" in wide
    for width in (80, 60, 40):
        line = compose_line(facts, width, facts.since)
        assert line.cell_length <= width
        assert "reading 50%" in line.plain and "ask" in line.plain


def test_the_speed_stays_in_a_terminal_of_eighty_columns():
    """A fast answer after a well-reused prompt makes long numbers; people look for the speed."""
    facts = Facts("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", PermissionMode.ASK)
    facts.take(events.Usage(11_072, 10_019, 400, 1, 2))
    assert compose_line(facts, 78, 0).plain.endswith(" · 11,072 tokens · 200 tok/s")


def test_a_model_file_is_named_shortly():
    facts = Facts("/models/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", PermissionMode.ASK)
    assert "ask · qwen2.5-coder-0.5b-inst…" in compose_line(facts, 80, 0).plain


def test_a_diff_is_complete_and_counted_by_its_hunks():
    """A removed line that looks like a file header must not vanish from what is approved."""
    diff = "--- a/x.sql\n+++ b/x.sql\n@@ -1,2 +1,2 @@\n--- old comment\n+++ new\n same\n"
    assert coloured(diff).plain == diff.rstrip("\n")
    assert counts(diff) == (1, 1)
    assert counts(diff + diff) == (2, 2)
    assert counts("") == (0, 0)


def test_an_unknown_theme_or_terminal_is_said_before_anything_starts(build, monkeypatch):
    runtime = build().runtime
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(UsageError, match="textual-dark"):
        run_tui(runtime, theme="nonsense")
    monkeypatch.setenv("TERM", "dumb")
    with pytest.raises(UsageError, match="-p"):
        run_tui(runtime, theme=os.environ.get("THEME", "textual-dark"))
