"""Questions in the interface: nothing may happen that a person did not see and allow."""

from qwenterm.ui.tui import composer
from tests.stubs.scripted_model import call, text
from tests.ui.driving import asked, finished, screen, send, until


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
