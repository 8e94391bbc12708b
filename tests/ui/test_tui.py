"""What the interface shows, with a scripted model and real tools."""

import time

import pytest
from textual.geometry import Size

from qwenterm.client import ChatThinking
from qwenterm.core.errors import UnavailableError
from qwenterm.ui.tui.answer import Answer
from qwenterm.ui.tui.toolcall import Tail, ToolCall
from tests.stubs.scripted_model import call, text
from tests.ui.driving import asked, finished, screen, send, until

HOSTILE = "[red]x[/red] [@click=app.quit]y[/] \x1b[31mz\x1b]0;title\x07 \u202e"
SHOWN = "[red]x[/red] [@click=app.quit]y[/] ␛[31mz␛]0;title␇ ⟨U+202E⟩"


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
