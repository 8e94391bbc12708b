"""What a small model needs beyond its prompt: when it must call, what it may call, what to resend.

Owns no loop. `Guide` is asked by the loop before each request and after each result; a model that
is not small gets `Guide(active=False)`, which never interferes. Measured on a 1.5B model: left
alone it announces steps instead of taking them, answers from imagination, forgets the question
behind a long result, and edits files that it was only asked about.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

from qwenterm.core.types import Message

# Two messages in the constant beginning: without them a small model lists files for "hello".
EXAMPLE = (Message("user", "hi"), Message("assistant", "Hello! What can I do for you?"))

CHANGING_TOOLS = frozenset({"write", "edit"})
_MOST_PUSHES = 5
_MOST_BLOCKED = 3
_MOST_NAMED = 2
_SMALL_FILE = 6000
_LONGEST_ECHO = 400

_CHANGE_VERBS = (
    r"(?:add|append|change|convert|copy|correct|create|delete|edit|fill|fix|format|implement|insert"
    r"|make|mend|move|put|refactor|remove|rename|repair|replace|rewrite|set|sort|switch|turn|undo"
    r"|update|write)"
)
# An order stands at the beginning of a sentence or after "and", not inside a question.
_ORDER = re.compile(
    rf"(?:^|[:;,]\s+|\b(?:and|then|please|you|to)\s+)(?:please\s+|now\s+)?{_CHANGE_VERBS}\b", re.I
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_QUESTION = re.compile(
    r"^\s*(?:who|what|which|where|when|why|how|is|are|does|do|did|has|have)\b", re.I
)
# Only who clearly asks to look is kept from changing: an order may be put in any words or language.
_LOOK = re.compile(
    r"^\s*(?:please\s+)?(?:count|describe|explain|find|list|print|show|summari[sz]e|tell)\b", re.I
)
_WORDS_ABOUT_HERE = re.compile(
    r"\b(?:files?|folders?|director(?:y|ies)|repo(?:sitory)?|project|commit(?:s|ted)?|branch(?:es)?"
    r"|tests?|logs?|todo|code(?:base)?|lines?|readme|config(?:uration)?|settings?|changes?|diff"
    r"|workspace|package|module|machine|disk|memory|packages|dependenc(?:y|ies))\b",
    re.I,
)
_NAMES_FROM_HERE = re.compile(r"[\w-]+/[\w./-]*|\b\w+\.[a-z]{1,5}\b|\b\w+\(\)|`[^`]+`|\b\w+_\w+\b")
_WORDS_ABOUT_GIT = re.compile(
    r"\b(?:git|commit\w*|uncommitted|branch\w*|merg\w+|diffs?|stage\w*|histor\w+|blame|authors?|who"
    r"|revert\w*|undo|change[ds]?|versions?|push\w*|tags?|releases?|stash\w*|since|last)\b",
    re.I,
)
# Here the content is of no use, and leads a small model to edit it.
_WHOLE_FILES = re.compile(r"\b(?:renam|mov|delet|remov|cop)(?:e|y|ing)?\b", re.I)
_FILE_NAME = re.compile(r"[\w][\w./-]*\.\w+")
_WANTS_ADVICE = re.compile(
    r"^\s*(?:how (?:do|can|would|should) (?:i|you)|how to|what|which) ?"
    r"(?:command|do i|can i|to)?\b.*\bcommand\b|^\s*how (?:do|can) i\b",
    re.I,
)

_COMMAND_BLOCK = re.compile(r"```(?:bash|sh|shell|console|zsh)\b")
_ANNOUNCED = re.compile(
    r"^\W*(?:to\b|first\b|sure\b|certainly\b|let(?:'s| me| us)\b"
    r"|i(?:'ll| will| need| can| should)\b"
    r"|you (?:can|need|should|could|will)\b|we (?:can|need|should)\b|please\b|based on\b)"
    r"(?:[^.!?\n]|[.!?](?=\S)){0,160}?"
    r"\b(?:use|run|call|execute|need to|look|check|search|read|edit|open|follow)\b",
    re.I,
)
_ADVISED = re.compile(
    r"\b(?:you can (?:use|run|execute|try)|run the following|use the following command"
    r"|following (?:command|steps|code)|using the `\w+` (?:tool|function|command))",
    re.I,
)
_IGNORANT = re.compile(
    r"\b(?:i'?m sorry|don'?t have (?:the ability|access|enough|any)|as an ai"
    r"|(?:can'?t|cannot|unable to|not able to) (?:access|determine|read|see|find|view|run|tell)"
    r"|(?:not|isn'?t|is not) (?:known|provided|available|specified|given|mentioned|defined) in the "
    r"(?:given|provided|current))",
    re.I,
)
_WRITING_COMMAND = re.compile(
    r"(?:^|[;&|]\s*)(?:mv|cp|rm|mkdir|rmdir|touch|tee|ln|truncate|patch|install)\b"
    r"|\bsed\s+(?:-\w+\s+)*-\w*i|>|\bgit\s+(?:add|commit|checkout|restore|mv|rm|revert|stash|switch)\b"
)
_EMPTY_RESULT = re.compile(r"^(?:nothing matches|no file matches|\(nothing\)|\(no output\)$)")


def wants_change(prompt: str, *, attachment: bool = False) -> bool:
    """Tell whether the user orders a change of files (of something here, not of piped input)."""
    for sentence in _SENTENCE_END.split(prompt):
        order = None if _QUESTION.match(sentence) else _ORDER.search(sentence)
        if order is None:
            continue
        named = _NAMES_FROM_HERE.search(prompt)
        if named or (not attachment and _WORDS_ABOUT_HERE.search(sentence[order.start() :])):
            return True
    return False


def asks_to_look(prompt: str) -> bool:
    """Tell whether every sentence is a question or asks to be shown something."""
    sentences = _SENTENCE_END.split(prompt.strip())
    return all(
        _QUESTION.match(text) or _LOOK.match(text) or text.endswith("?") for text in sentences
    )


def about_here(prompt: str) -> bool:
    """Tell whether only a look at this folder or machine can answer."""
    return bool(_NAMES_FROM_HERE.search(prompt) or _WORDS_ABOUT_HERE.search(prompt))


def announces(text: str) -> bool:
    """Tell whether an answer leaves to the user, or announces, what a tool could do."""
    return bool(_COMMAND_BLOCK.search(text) or _ANNOUNCED.search(text) or _ADVISED.search(text))


@dataclass
class Guide:
    """How one turn of a small model is going.

    `pushes` counts the times that a call was demanded which the model did not choose to make; the
    demands end after a few, so that a turn always ends.
    """

    active: bool
    prompt: str = ""
    attachment: bool = False
    pushes: int = 0
    changed: bool = False
    demand: bool = False
    kept_out: set[str] = field(default_factory=set[str])
    blocked: set[str] = field(default_factory=set[str])
    wants: bool = field(init=False)
    asks: bool = field(init=False)
    answers_input: bool = field(init=False)

    def __post_init__(self) -> None:
        self.wants = self.active and wants_change(self.prompt, attachment=self.attachment)
        # Piped input is there to be answered about, unless something here is named.
        named = bool(_NAMES_FROM_HERE.search(self.prompt))
        self.answers_input = self.active and self.attachment and not (self.wants or named)
        self.asks = not self.wants and (self.answers_input or asks_to_look(self.prompt))
        known = self.attachment and not self.wants
        self.demand = self.active and not known and (self.wants or about_here(self.prompt))

    @property
    def pending(self) -> bool:
        """Return whether an ordered change has not been made yet."""
        return self.wants and not self.changed

    def named_files(self, workspace: Path) -> list[str]:
        """Return the small files that an ordered change names: it begins with a look at them."""
        if not self.wants or _WHOLE_FILES.search(self.prompt):
            return []
        found: list[str] = []
        for match in _FILE_NAME.finditer(self.prompt):
            name = match.group().strip(".")
            path = workspace / name
            # Only a look at the directory: whether it may be read is for the policy.
            if path.is_file() and path.stat().st_size <= _SMALL_FILE and name not in found:
                found.append(name)
        if found:
            # What is there is edited: written anew from memory, it loses lines.
            self.kept_out.add("write")
        return found[:_MOST_NAMED]

    def allowed(self, tools: tuple[str, ...]) -> tuple[str, ...]:
        """Return which of the tools may be called now.

        A question changes nothing, git knows nothing of what has no word about git in it, and a
        tool that was called twice with the same arguments had its chance.
        """
        if not self.active:
            return tools
        out = self.blocked | self.kept_out
        if self.asks:
            out |= CHANGING_TOOLS
        if not _WORDS_ABOUT_GIT.search(self.prompt):
            out.add("git")
        return tuple(name for name in tools if name not in out)

    def repeated(self, name: str) -> None:
        """Note that a call was made again: the next one must be of another tool."""
        if len(self.blocked) < _MOST_BLOCKED:
            self.blocked.add(name)

    def sends_back(self, text: str, *, whole: bool) -> bool:
        """Tell whether a (partial or `whole`) answer must not end the turn, and demand a call."""
        if not self.active or self.pushes >= _MOST_PUSHES:
            return False
        wrong = not _WANTS_ADVICE.search(self.prompt) and announces(text)
        wrong = wrong or (not self.attachment and bool(_IGNORANT.search(text)))
        if whole:
            wrong = wrong or self.pending
        if wrong:
            self.pushes += 1
            # First with the tools at all, then with one of them: never the same request again.
            self.demand = not self.answers_input
            self.answers_input = False
        return wrong

    def after_result(
        self,
        name: str,
        command: str,
        text: str,
        *,
        error: bool,
        done: bool,
        denied: bool = False,
    ) -> str:
        """Note a result and return what is said to the model after it; empty if not active.

        `done`: the workspace was changed, as far as dispatch can tell. `command` is what a shell
        call ran: run with write access, it need not have changed anything.
        """
        if not self.active:
            return ""
        self.demand = False
        self.blocked.clear()
        if denied:
            # The result itself says what to do: tell the user.
            self.wants = False
            return ""
        if name == "shell":
            done = done and not error and bool(_WRITING_COMMAND.search(command))
        self.changed = self.changed or (done and not error)
        request = self.prompt.strip()
        if len(request) > _LONGEST_ECHO:
            request = request[:_LONGEST_ECHO] + " ..."
        said = f"\n\nMy request: {request}\n"
        failed = error or bool(_EMPTY_RESULT.match(text) and not done)
        if (failed or self.pending) and self.pushes < _MOST_PUSHES:
            self.pushes += 1
            self.demand = True
            if failed:
                return said + "That did not help. Make a different call."
            return said + "It is not done yet. Make the next call."
        if self.wants:
            return said + "If it is done now, say so in one sentence. If not, make the next call."
        return said + (
            "Answer it in one or two sentences if you know the answer now. "
            "If not, make the next call."
        )
