"""The terminal interface: wires the session to the screen, and keys and commands to both."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, ClassVar

from textual.app import App, ComposeResult, SystemCommand
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Static

from qwenterm.agent.runtime import Runtime
from qwenterm.core import events
from qwenterm.core.errors import EXIT_ANSWERED, UsageError
from qwenterm.core.types import Decision, PermissionMode
from qwenterm.ui.render import sanitize
from qwenterm.ui.tui import commands
from qwenterm.ui.tui.approval import KEYS
from qwenterm.ui.tui.composer import Composer
from qwenterm.ui.tui.legacy_keys import teach_alt_enter
from qwenterm.ui.tui.session import Session
from qwenterm.ui.tui.status import Facts, Status
from qwenterm.ui.tui.transcript import Transcript

_TWICE_SECONDS = 2.0
# A sandboxed command gets two seconds to end by itself; leaving must not hang on one that cannot.
_CLOSING_SECONDS = 5.0
_MODES = list(PermissionMode)
# Actions of the conversation, which something in front of it must not trigger.
_HERE = ("stop", "clear_view", "details", "next_mode")


def run_tui(
    runtime: Runtime,
    *,
    first_prompt: str = "",
    title: str = "",
    notices: Sequence[str] = (),
    theme: str,
) -> int:
    """Show the interface until the user leaves; returns the exit status.

    `title` names the model. `notices` may grow while the interface runs; new ones are shown.
    Raises `UsageError` for a theme or a terminal that cannot be used.
    """
    if os.environ.get("TERM") in ("dumb", "unknown"):
        raise UsageError("this terminal cannot show the interface; ask with -p instead")
    app = QwentermApp(runtime, first_prompt=first_prompt, title=title, notices=notices)
    if theme not in app.available_themes:
        themes = ", ".join(sorted(app.available_themes))
        raise UsageError(f"ui.theme {theme!r} does not exist; there are {themes}")
    app.theme = theme
    teach_alt_enter()
    app.run()
    return app.return_code or EXIT_ANSWERED


class QwentermApp(App[None]):
    """One conversation on one screen."""

    TITLE = "qwenterm"
    CSS_PATH = "tui.tcss"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop", priority=True, show=False),
        Binding("ctrl+c", "interrupt", "Copy, stop or quit", priority=True, show=False),
        Binding("ctrl+q", "quit", "Quit", priority=True, show=False),
        Binding("ctrl+l", "clear_view", "Clear the view", priority=True, show=False),
        Binding("ctrl+o", "details", "Open or close details", priority=True, show=False),
        Binding("shift+tab", "next_mode", "Next permission mode", priority=True, show=False),
    ]

    def __init__(
        self,
        runtime: Runtime,
        *,
        first_prompt: str = "",
        title: str = "",
        notices: Sequence[str] = (),
    ) -> None:
        super().__init__()
        runtime.approvals.attended = True
        self.runtime = runtime
        self.session = Session(runtime, self.show_event, self._session_changed)
        self._first_prompt = first_prompt
        self._notices = notices
        self._noticed = 0
        self._interrupted = 0.0
        hint = commands.hint(runtime.workspace, runtime.home)
        self.transcript = Transcript(hint)
        self.waiting = Static(id="waiting", markup=False)
        self.composer = Composer()
        self.status = Status(Facts(title, runtime.mode))

    def compose(self) -> ComposeResult:
        """Put the parts on the screen, from top to bottom."""
        yield self.transcript
        yield self.waiting
        yield self.composer
        yield self.status

    async def on_mount(self) -> None:
        """Begin: focus, notices, first prompt."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, partial(self._leave, 128 + number))
        self.composer.focus()
        self._session_changed()
        await self._show_notices()
        if self._first_prompt:
            self.session.send(self._first_prompt)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Leave the keys to the command palette while it is open."""
        del parameters
        return action not in _HERE or not self.screen.is_modal

    async def show_event(self, event: events.Event) -> None:
        """Render an event of the turn; the session awaits this."""
        self.status.show(event)
        await self.transcript.show(event)
        if isinstance(event, events.ApprovalRequested):
            self.composer.ask()
        elif isinstance(event, (events.ToolFinished, events.TurnEnded)):
            self.composer.asked()
        if isinstance(event, (events.LoadProgress, events.TurnEnded)):
            await self._show_notices()

    async def on_composer_sent(self, message: Composer.Sent) -> None:
        """A message, a command, or why something is refused."""
        command = commands.parse(message.text)
        known = command is not None and command.name in commands.COMMANDS
        if message.is_reason and not known:
            await self._answer(Decision(False, reason=message.text.strip()))
        elif command is not None:
            await self._run_command(command)
        else:
            self.session.send(message.text)

    async def on_composer_answered(self, message: Composer.Answered) -> None:
        """One key answers a question, but only one that can be seen."""
        if self.transcript.at_end:
            await self._answer(KEYS[message.key])
        else:
            self.transcript.follow()

    async def action_quit(self) -> None:
        """Stop what runs and leave."""
        try:
            await asyncio.wait_for(self.session.stop(), _CLOSING_SECONDS)
        except asyncio.TimeoutError:
            self.log.warning("the turn did not stop in time")
        self.exit(return_code=EXIT_ANSWERED)

    def action_stop(self) -> None:
        """Stop the turn; messages that waited come back to where they were typed."""
        if not self.session.busy:
            self.screen.clear_selection()
            return
        waiting = self.session.cancel()
        self.status.stopping()
        self.composer.asked()
        if waiting:
            self.composer.restore("\n".join(waiting))

    async def action_interrupt(self) -> None:
        """Copy what is selected; else stop the turn; twice in a row, leave."""
        selected = self.composer.selected_text or self.screen.get_selected_text()
        if selected:
            self.copy_to_clipboard(selected)
            self.screen.clear_selection()
            return
        now = time.monotonic()
        if now - self._interrupted < _TWICE_SECONDS:
            await self.action_quit()
            return
        self._interrupted = now
        if self.session.busy:
            self.action_stop()
        self.notify("Press Ctrl+C again to quit", timeout=_TWICE_SECONDS, markup=False)

    async def action_clear_view(self) -> None:
        """Take the blocks away; the model still knows what was said."""
        await self.transcript.clear()

    def action_details(self) -> None:
        """Open or close every tool call and every piece of thinking."""
        self.transcript.open_all()

    def action_next_mode(self) -> None:
        """Go to the next permission mode."""
        self.set_mode(_MODES[(_MODES.index(self.runtime.mode) + 1) % len(_MODES)])

    def action_page(self, direction: int) -> None:
        """Scroll the transcript by most of a page."""
        distance = max(1, self.transcript.size.height - 2) * direction
        self.transcript.scroll_relative(y=distance, animate=False)

    async def action_new_conversation(self) -> None:
        """Forget what was said."""
        await self.session.clear()
        await self.transcript.clear()
        self.status.forget()
        await self.transcript.note("a new conversation")

    def set_mode(self, mode: PermissionMode) -> None:
        """Change how much may happen without a question, from the next call on."""
        self.runtime.mode = mode
        self.status.set_mode(mode)

    def get_system_commands(self, screen: Screen[Any]) -> Iterable[SystemCommand]:
        """Return the commands of the palette: those with a slash, and Textual's own."""
        yield SystemCommand("Help", commands.COMMANDS["help"], self._help)
        yield SystemCommand("Stop", "stop the model", self.action_stop)
        for mode, text in commands.MODES.items():
            yield SystemCommand(f"Mode: {mode.value}", text, partial(self.set_mode, mode))
        clear = commands.COMMANDS["clear"]
        yield SystemCommand("New conversation", clear, self.action_new_conversation)
        yield SystemCommand("Clear the view", "the conversation stays", self.action_clear_view)
        yield from super().get_system_commands(screen)  # pyright: ignore[reportUnknownMemberType]

    async def _run_command(self, command: commands.Command) -> None:
        if command.name == "help":
            await self._help()
        elif command.name == "mode":
            await self._mode(command.argument)
        elif command.name == "clear":
            await self.action_new_conversation()
        elif command.name == "quit":
            await self.action_quit()
        else:
            known = ", ".join(f"/{name}" for name in commands.COMMANDS)
            text = f"/{command.name} is no command; there are {known}"
            await self.transcript.note(text, "error")

    async def _mode(self, name: str) -> None:
        if name in {mode.value for mode in _MODES}:
            self.set_mode(PermissionMode(name))
            return
        modes = "\n".join(f"{mode.value:6} {text}" for mode, text in commands.MODES.items())
        problem = f"{name!r} is no permission mode. " if name else ""
        await self.transcript.note(f"{problem}The modes are:\n{modes}", "error" if name else "")

    async def _help(self) -> None:
        await self.transcript.note(commands.help_text())

    async def _answer(self, decision: Decision) -> None:
        approval = self.transcript.approval
        if approval is None:
            return
        self.composer.asked()
        await self.transcript.close_approval()
        self.runtime.approvals.answer(approval.request.id, decision)

    async def _show_notices(self) -> None:
        new = self._notices[self._noticed :]
        self._noticed += len(new)
        for notice in new:
            await self.transcript.note(notice)

    def _session_changed(self) -> None:
        texts = [sanitize(text).partition("\n")[0] for text in self.session.waiting]
        self.waiting.display = bool(texts)
        self.waiting.update("\n".join(f"waits: {text}" for text in texts))

    def _leave(self, status: int) -> None:
        self.session.cancel()
        self.exit(return_code=status)
