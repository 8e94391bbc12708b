"""The terminal interface with a scripted model and real tools, driven by keys."""

import asyncio
import os
import subprocess
import time

import pytest
from textual import events as keys
from textual.geometry import Size

from qwenterm import app as wiring
from qwenterm.client import ChatProgress, ChatThinking
from qwenterm.config import Config
from qwenterm.core import events
from qwenterm.core.errors import UnavailableError, UsageError
from qwenterm.core.types import PermissionMode
from qwenterm.sandbox.backends import choose
from qwenterm.ui.tui import composer, transcript
from qwenterm.ui.tui.answer import Answer
from qwenterm.ui.tui.app import QwentermApp, run_tui
from qwenterm.ui.tui.difference import coloured, counts
from qwenterm.ui.tui.status import Facts, compose_line
from qwenterm.ui.tui.toolcall import Tail, ToolCall
from tests.stubs.scripted_model import ScriptedModel, call, text

HOSTILE = "[red]x[/red] [@click=app.quit]y[/] \x1b[31mz\x1b]0;title\x07 \u202e"
SHOWN = "[red]x[/red] [@click=app.quit]y[/] ␛[31mz␛]0;title␇ ⟨U+202E⟩"


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    """Keys are pressed here faster than a person could."""
    monkeypatch.setattr(composer, "_READING_SECONDS", 0.0)


@pytest.fixture
def workspace(tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "one.txt").write_text("one\n")
    subprocess.run(["git", "init", "-q"], cwd=project, check=True)
    return project


@pytest.fixture
def build(workspace):
    def build(*answers, mode="ask", delay=0.0, model=None, **options):
        model = model or ScriptedModel(*answers, delay=delay)
        config = Config.model_validate({"permission_mode": mode})
        runtime = wiring.build_runtime(config, workspace, backend=choose("auto"), model=model)
        return QwentermApp(runtime, title="tiny", **options)

    return build


def screen(app):
    """What a person sees, line by line."""
    return "\n".join(strip.text for strip in app.screen._compositor.render_strips())


async def until(pilot, condition, seconds=15):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, screen(pilot.app)
        await pilot.pause(0.01)


async def send(pilot, text):
    pilot.app.composer.insert(text)
    await pilot.press("enter")


async def finished(pilot, text=""):
    """The turn is over and `text` is on the screen."""
    app = pilot.app
    await until(pilot, lambda: not app.session.busy and text in screen(app))


async def asked(pilot):
    await until(pilot, lambda: pilot.app.composer._asked_at and "yes, once" in screen(pilot.app))


async def test_the_answer_to_a_prompt_is_shown_as_markdown(build):
    app = build(text("It is **", "four**.\n\n- because\n"))
    async with app.run_test(size=(80, 24)) as pilot:
        assert "project" in screen(app) and "/help" in screen(app)
        await send(pilot, "What is 2+2?")
        await finished(pilot, "It is four.")
        assert "• because" in screen(app)
        assert "What is 2+2?" in screen(app)
        assert "Shift+Tab" not in screen(app)
        assert app.focused is app.composer


async def test_the_first_prompt_is_sent_by_itself(build):
    app = build(text("Hello."), first_prompt="Say hello")
    async with app.run_test() as pilot:
        await finished(pilot, "Hello.")
        assert "Say hello" in screen(app)


async def test_an_answer_in_pieces_is_whole(build):
    """Two drawings of the same text at once would show a paragraph twice or lose its end."""
    words = [f"word{n} " + ("\n\n" if n % 7 == 0 else "") for n in range(300)]
    app = build(text(*words), delay=0.001)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "talk")
        await finished(pilot)
        answer = app.query_one(Answer)
        assert answer.source == "".join(words)
        shown = " ".join(block._content.plain for block in answer.query("MarkdownParagraph"))
        assert shown.split() == "".join(words).split()


async def test_a_tool_call_is_one_line_that_opens(build):
    app = build(call("read", path="one.txt"), text("It says one."))
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "read it")
        await finished(pilot, "It says one.")
        assert "✓ read one.txt" in screen(app)
        assert "path: one.txt" not in screen(app)
        await pilot.click(".fold-header")
        await until(pilot, lambda: "path: one.txt" in screen(app))
        assert "1       one" in screen(app)
        assert app.focused is app.composer
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "path: one.txt" not in screen(app))


async def test_a_failed_command_says_so_on_its_line(build):
    app = build(call("shell", command="exit 3"), call("read", path="no.txt"), text("sorry"))
    async with app.run_test() as pilot:
        await send(pilot, "go")
        await finished(pilot, "sorry")
        assert "✗ shell exit 3  exit 3" in screen(app)
        assert "✗ read no.txt  no.txt: no such file" in screen(app)


async def test_thinking_is_folded_and_opens(build):
    app = build([ChatThinking("First I "), ChatThinking("look."), *text("Done.")])
    async with app.run_test() as pilot:
        await send(pilot, "go")
        await finished(pilot, "Done.")
        assert "thought for" in screen(app)
        assert "First I look." not in screen(app)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "First I look." in screen(app))


async def test_yes_applies_exactly_the_diff_that_was_shown(build, workspace):
    app = build(call("edit", path="one.txt", old="one", new="two"), text("Changed."))
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "change it")
        await asked(pilot)
        shown = screen(app)
        assert shown.index("+two") < shown.index("change one.txt") < shown.index("changes a file")
        assert (workspace / "one.txt").read_text() == "one\n"
        await pilot.press("y")
        await finished(pilot, "Changed.")
        assert (workspace / "one.txt").read_text() == "two\n"
        assert "✓ edit one.txt  +1 -1" in screen(app)
        assert "yes, once" not in screen(app)
        assert app.composer.text == ""


async def test_no_leaves_the_file_and_tells_the_model(build, workspace):
    app = build(call("write", path="new.txt", content="x"), text("As you wish."))
    async with app.run_test() as pilot:
        await send(pilot, "write it")
        await asked(pilot)
        await pilot.press("n")
        await finished(pilot, "As you wish.")
        assert not (workspace / "new.txt").exists()
        assert "the user said no" in app.runtime.history[-2].content


async def test_a_typed_reason_is_a_no_that_the_model_hears(build, workspace):
    app = build(call("write", path="new.txt", content="x"), text("I see."))
    async with app.run_test() as pilot:
        await send(pilot, "write it")
        await asked(pilot)
        await send(pilot, "use docs/ instead")
        await finished(pilot, "I see.")
        assert not (workspace / "new.txt").exists()
        assert "the user said no: use docs/ instead" in app.runtime.history[-2].content
        assert len(app.runtime.model.requests) == 2


async def test_a_command_does_not_answer_a_question(build, workspace):
    app = build(call("write", path="new.txt", content="x"), text("Written."))
    async with app.run_test(size=(80, 40)) as pilot:
        await send(pilot, "write it")
        await asked(pilot)
        await send(pilot, "/help")
        await until(pilot, lambda: "Ctrl+Q" in screen(app))
        await pilot.press("y")
        await finished(pilot, "Written.")
        assert (workspace / "new.txt").exists()


async def test_always_is_asked_once(build, workspace):
    writes = [call("write", path=f"{n}.txt", content="x") for n in range(3)]
    app = build(*writes, text("Three."))
    async with app.run_test() as pilot:
        await send(pilot, "write them")
        await asked(pilot)
        await pilot.press("a")
        await finished(pilot, "Three.")
        assert (workspace / "2.txt").exists()


async def test_a_key_that_was_already_on_its_way_is_no_answer(build, workspace, monkeypatch):
    """Someone who types on while a question appears must not have approved it by a letter."""
    monkeypatch.setattr(composer, "_READING_SECONDS", 1000)
    app = build(call("write", path="new.txt", content="x"), text("No."))
    async with app.run_test() as pilot:
        await send(pilot, "write it")
        await asked(pilot)
        await pilot.press("y", "e", "s")
        await pilot.pause()
        assert app.composer.text == "yes"
        assert app.transcript.approval is not None
        await pilot.press("escape")
        await finished(pilot, "stopped")
        assert not (workspace / "new.txt").exists()


async def test_a_message_begun_before_the_question_is_no_reason(build, workspace):
    app = build(call("write", path="new.txt", content="x"), text("Written."), text("And tests."))
    async with app.run_test() as pilot:
        app.composer.insert("also the tests")
        app.session.send("write it")
        await asked(pilot)
        await pilot.press("enter")
        await until(pilot, lambda: "waits: also the tests" in screen(app))
        await pilot.press("y")
        await finished(pilot, "And tests.")
        assert (workspace / "new.txt").exists()


async def test_a_question_out_of_sight_is_shown_before_it_is_answered(build, workspace):
    long = "\n".join(f"line {n}" for n in range(100))
    app = build(call("write", path="new.txt", content=long), text("Written."))
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "write it")
        await asked(pilot)
        await pilot.press("pageup", "pageup")
        await until(pilot, lambda: "yes, once" not in screen(app))
        await pilot.press("y")
        await asked(pilot)
        assert not (workspace / "new.txt").exists()
        await pilot.press("y")
        await finished(pilot, "Written.")
        assert (workspace / "new.txt").exists()


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


async def test_nothing_that_a_model_or_a_tool_writes_is_read_as_markup(build, workspace):
    """A file's content must not colour, click, retitle or reorder anything."""
    (workspace / "bad.txt").write_text(HOSTILE + "\n")
    command = f"echo '{HOSTILE}'"
    app = build(
        [ChatThinking(HOSTILE), *call("shell", command="cat bad.txt")],
        call("shell", command=command),
        call("[bold]tool[/bold]", path="x"),
        call("write", path="copy.txt", content=HOSTILE),
        text(HOSTILE),
        [UnavailableError(HOSTILE)],
        notices=[HOSTILE],
    )
    async with app.run_test(size=(120, 60)) as pilot:
        await send(pilot, HOSTILE)
        await asked(pilot)
        assert screen(app).count("+" + SHOWN) == 1
        await pilot.press("n")
        await finished(pilot)
        await pilot.press("ctrl+o")
        await until(pilot, lambda: "command: cat bad.txt" in screen(app))
        shown = screen(app)
        # Notice, prompt, thinking, output, header, arguments, output, arguments, answer.
        assert shown.count(SHOWN) >= 9
        assert "[bold]tool[/bold]" in shown
        assert not {"\x1b", "\x07", "\u202e"} & set(shown)
        await send(pilot, "again")
        await finished(pilot, "again")
        assert SHOWN in screen(app).split("again")[-1]
        assert app.is_running


@pytest.mark.parametrize(
    ("markdown", "shown"),
    [
        ("use <select> and <b>bold</b>", "use <select> and <b>bold</b>"),
        ("<div>\nblock\n</div>", "<div> block </div>"),
        ("a &#x202E;b", "a &#x202E;b"),
        ("```\n\x1b[31m\u202e\n```", "␛[31m⟨U+202E⟩"),
        ("see http://x.example/%E2%80%AEgpj", "see http://x.example/⟨U+202E⟩gpj"),
    ],
)
async def test_markdown_hides_and_decodes_nothing(build, markdown, shown):
    app = build(text(markdown))
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "go")
        await finished(pilot, shown)


async def test_a_link_is_copied_and_not_opened(build, monkeypatch):
    app = build(text("[docs](http://x.example/?secret)"))
    opened = []
    monkeypatch.setattr(app, "open_url", opened.append)
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "go")
        await finished(pilot, "docs")
        await pilot.click("MarkdownParagraph", offset=(1, 0))
        await until(pilot, lambda: app.clipboard == "http://x.example/?secret")
        assert not opened


async def test_output_at_any_speed_stays_bounded_and_keys_work_meanwhile(build):
    """`yes` prints gigabytes: a transcript that kept it all would freeze and eat the memory."""
    app = build(call("shell", command="yes 0123456789"), text("Stopped."))
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "flood")
        await until(pilot, lambda: app.query(ToolCall))
        await pilot.press("ctrl+o")
        slowest = 0.0
        while app.session.busy:
            before = time.monotonic()
            await pilot.press("x")
            slowest = max(slowest, time.monotonic() - before)
        assert slowest < 1.5
        assert app.composer.text
        await finished(pilot, "Stopped.")
        assert app.query_one(ToolCall).body().plain.count("\n") < 500


def test_a_hundred_megabytes_a_second_leave_the_last_lines():
    tail = Tail(lines=200, columns=500)
    chunk = "y" * 99 + "\n"
    before = time.monotonic()
    for _ in range(1600):
        tail.feed(chunk * 655)
    for _ in range(20):
        tail.feed("z" * 1_000_000)
    assert time.monotonic() - before < 3
    assert tail.total > 100_000_000
    assert len(tail.text()) <= 200 * 501
    tail.feed("\nlast\n")
    assert tail.text().endswith("\nlast")


def test_of_a_progress_bar_the_last_state_is_kept():
    tail = Tail()
    tail.feed("10%\r20%\r")
    tail.feed("30%\r\ndone\n")
    assert tail.text() == "30%\ndone"


async def test_a_small_terminal_and_back(build):
    app = build(call("edit", path="one.txt", old="one", new="two"), text("Changed."))
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "change it")
        await asked(pilot)
        await pilot.resize_terminal(40, 12)
        await until(pilot, lambda: "why not, and Enter" in screen(app) and app.transcript.at_end)
        assert "ask" in screen(app).splitlines()[-1]
        assert "why not" in screen(app)
        assert max(map(len, screen(app).splitlines())) == 40
        await pilot.press("y")
        await finished(pilot, "Changed.")
        await pilot.resize_terminal(80, 24)
        await until(pilot, lambda: app.size == Size(80, 24) and "tiny" in screen(app))
        assert "Changed." in screen(app)


def above(app):
    """The upper part of the screen without the scrollbar."""
    return [line[:76] for line in screen(app).splitlines()[:15]]


async def test_new_output_does_not_pull_down_someone_who_reads_above(build):
    lines = text("\n\n".join(f"paragraph {n}" for n in range(60)))
    app = build(lines, text("Below."))
    async with app.run_test(size=(80, 24)) as pilot:
        await send(pilot, "talk")
        await finished(pilot, "paragraph 59")
        await pilot.press("pageup", "pageup")
        await until(pilot, lambda: "paragraph 59" not in screen(app))
        seen = above(app)
        await send(pilot, "more")
        await until(pilot, lambda: not app.session.busy)
        await pilot.pause(0.1)
        assert above(app) == seen
        for _ in range(4):
            await pilot.press("pagedown")
        await finished(pilot, "Below.")


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
