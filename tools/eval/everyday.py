"""Twenty everyday requests and how to tell, by script, whether each ended right.

A check gets the folder as it is afterwards and the answer, and returns what is wrong, or an empty
string. `right` and `wrong` are outcomes that the self-test feeds to the check: one that must pass
and those that must not.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tools.eval.workspace import FILES, PRICES

Check = Callable[[Path, str], str]


@dataclass(frozen=True)
class Outcome:
    """An answer, and files as they are written before the check looks (None: removed)."""

    answer: str = ""
    files: dict[str, str | None] = field(default_factory=dict[str, str | None])


@dataclass(frozen=True)
class Task:
    """A request, in the words of a person; `stdin` is piped in, `mode` is --permission-mode."""

    name: str
    prompt: str
    check: Check
    right: Outcome
    wrong: tuple[Outcome, ...]
    stdin: str = ""
    mode: str = "auto"


def says(*patterns: str, never: str = "") -> Check:
    """Every pattern is in the answer, `never` is not; nothing in the folder changed."""

    def check(folder: Path, answer: str) -> str:
        missing = [pattern for pattern in patterns if not re.search(pattern, answer, re.I)]
        if missing:
            return f"the answer lacks {missing[0]!r}"
        if never and re.search(never, answer, re.I):
            return f"the answer has {never!r}"
        return changed_files(folder, but=())

    return check


def changed_files(folder: Path, *, but: tuple[str, ...]) -> str:
    """Return what is wrong if a file outside of `but` is not as the generator left it."""
    expected = {name for name in FILES if name not in but}
    for name in sorted(expected):
        text = FILES[name]
        if name == "shop/stock.py":
            text = text.replace("LOW_STOCK = 12", "LOW_STOCK = 15")
        path = folder / name
        if not path.is_file():
            return f"{name} is gone"
        if path.read_text(encoding="utf-8") != text:
            return f"{name} was changed"
    for path in folder.rglob("*"):
        name = path.relative_to(folder).as_posix()
        if path.is_dir() or name.startswith(".git/") or "__pycache__" in name or name in but:
            continue
        if name not in FILES:
            return f"{name} was left behind"
    return ""


def holds(name: str, wanted: str) -> Check:
    """The file `name` has exactly this text (but for white space at its end)."""

    def check(folder: Path, _answer: str) -> str:
        path = folder / name
        if not path.is_file():
            return f"{name} is not there"
        if path.read_text(encoding="utf-8").rstrip() != wanted.rstrip():
            return f"{name} has another content"
        return changed_files(folder, but=(name,))

    return check


def runs(code: str, *, but: tuple[str, ...]) -> Check:
    """The Python `code` ends without an error in the folder; only the files `but` changed."""

    def check(folder: Path, _answer: str) -> str:
        done = subprocess.run(
            [sys.executable, "-B", "-c", code],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=60,
        )
        if done.returncode:
            return (done.stderr.strip().splitlines() or ["failed"])[-1][:200]
        return changed_files(folder, but=but)

    return check


def moved(folder: Path, _answer: str) -> str:
    """The misspelt page has its right name."""
    new = folder / "docs/install.md"
    if (folder / "docs/instal.md").exists():
        return "docs/instal.md is still there"
    if not new.is_file() or new.read_text(encoding="utf-8") != FILES["docs/instal.md"]:
        return "docs/install.md is not the page"
    return changed_files(folder, but=("docs/instal.md", "docs/install.md"))


def settings(folder: Path, _answer: str) -> str:
    """Debugging is off, the other settings are as they were."""
    try:
        values = json.loads((folder / "config/settings.json").read_text(encoding="utf-8"))
    except ValueError:
        return "config/settings.json is no JSON any more"
    if values != {"currency": "EUR", "debug": False, "pageSize": 25}:
        return f"the settings are {values}"
    return changed_files(folder, but=("config/settings.json",))


def one_sentence(*patterns: str) -> Check:
    """A short answer about the right things."""

    def check(folder: Path, answer: str) -> str:
        words = answer.split()
        if not 4 <= len(words) <= 60:
            return f"{len(words)} words"
        if len(re.findall(r"[.!?](?:\s|$)", answer.strip())) > 2:
            return "more than one sentence"
        return says(*patterns)(folder, answer)

    return check


_TYPO = FILES["shop/cli.py"].replace("recieved", "received")
_FIXED = PRICES.replace("result = price", "result += price")
_TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/app.py", line 88, in <module>
    main()
  File "/srv/shop/app.py", line 61, in main
    send_invoice(order)
  File "/srv/shop/billing.py", line 42, in send_invoice
    amount = order["amount"] / order["count"]
ZeroDivisionError: division by zero
"""
_DIFF = """diff --git a/shop/cli.py b/shop/cli.py
@@ -6,3 +6,7 @@
-TIMEOUT = 5
+TIMEOUT = 30
"""

TASKS: tuple[Task, ...] = (
    Task(
        "count-files",
        "How many Python files are in the shop folder?",
        says(r"\b(5|five)\b"),
        Outcome("There are 5 Python files in shop."),
        (Outcome("There are 7 Python files."), Outcome("You can use find to count them.")),
    ),
    Task(
        "find-definition",
        "In which file is the function needs_refill defined?",
        says(r"stock\.py"),
        Outcome("It is in shop/stock.py."),
        (Outcome("It is in shop/prices.py."),),
    ),
    Task(
        "explain-function",
        "What does reserve() do when the article is not known?",
        says(r"KeyError|key error"),
        Outcome("It raises a KeyError."),
        (Outcome("It returns None."),),
    ),
    Task(
        "todo",
        "Is there a TODO left in the code? What does it say?",
        says(r"negative"),
        Outcome("Yes, in shop/stock.py: refuse negative counts."),
        (Outcome("No, there are none."),),
    ),
    Task(
        "dependencies",
        "Which packages does this project depend on?",
        says(r"requests", r"rich", never="numpy|flask|pytest"),
        Outcome("requests and rich"),
        (Outcome("It depends on requests."),),
    ),
    Task(
        "largest-order",
        "Who placed the largest order in data/orders.csv?",
        says(r"Alan", never="Leslie|Barbara"),
        Outcome("Alan, with 99.90."),
        (Outcome("Leslie placed the largest order."),),
    ),
    Task(
        "count-rows",
        "How many orders in data/orders.csv are cancelled?",
        says(r"\b(3|three)\b"),
        Outcome("3 orders are cancelled."),
        (Outcome("There are 9 orders."),),
    ),
    Task(
        "log-errors",
        "Which error is the most frequent one in logs/app.log?",
        says(r"Timeout"),
        Outcome("TimeoutError, six times."),
        (Outcome("KeyError"),),
    ),
    Task(
        "disk-usage",
        "What is the biggest file below the folder logs, and how many bytes has it?",
        says(r"app\.log", str(len(FILES["logs/app.log"]))),
        Outcome(f"logs/app.log has {len(FILES['logs/app.log'])} bytes."),
        (Outcome("logs/app.log has 4096 bytes."),),
    ),
    Task(
        "last-commit",
        "Who made the last commit?",
        says(r"Tomas Berg", never="Mara"),
        Outcome("Tomas Berg made it."),
        (Outcome("Mara Lind made it."),),
    ),
    Task(
        "uncommitted",
        "Which value did I change since the last commit?",
        says(r"LOW_STOCK|low stock", r"\b15\b"),
        Outcome("LOW_STOCK in shop/stock.py went from 12 to 15."),
        (Outcome("Nothing was changed."),),
    ),
    Task(
        "create-file",
        "Make a file docs/contact.txt that contains the line mail@example.org",
        holds("docs/contact.txt", "mail@example.org"),
        Outcome(files={"docs/contact.txt": "mail@example.org\n"}),
        (Outcome("I made it."), Outcome(files={"contact.txt": "mail@example.org\n"})),
    ),
    Task(
        "rename-file",
        "The file docs/instal.md is misspelt. Rename it to docs/install.md.",
        moved,
        Outcome(files={"docs/instal.md": None, "docs/install.md": FILES["docs/instal.md"]}),
        (Outcome("Done."), Outcome(files={"docs/install.md": FILES["docs/instal.md"]})),
    ),
    Task(
        "change-setting",
        "Switch debug off in config/settings.json.",
        settings,
        Outcome(files={"config/settings.json": '{"currency":"EUR","debug":false,"pageSize":25}'}),
        (Outcome("Done."), Outcome(files={"config/settings.json": '{"debug": false}'})),
    ),
    Task(
        "replace-word",
        "Replace colour by color everywhere in README.md.",
        holds("README.md", FILES["README.md"].replace("colour", "color")),
        Outcome(files={"README.md": FILES["README.md"].replace("colour", "color")}),
        (Outcome("Done."), Outcome(files={"README.md": FILES["README.md"].upper()})),
    ),
    Task(
        "fix-bug",
        "A test in tests/test_prices.py fails. Find out why and correct the code.",
        runs(
            "from shop.prices import *\n"
            "assert total([1, 2, 3]) == 6 and total([]) == 0 and parse_price('$12.50') == 1250",
            but=("shop/prices.py",),
        ),
        Outcome(files={"shop/prices.py": _FIXED}),
        (Outcome("Fixed."), Outcome(files={"tests/test_prices.py": ""})),
    ),
    Task(
        "add-function",
        "Add a function is_empty(stock, article) to shop/stock.py that returns True when the "
        "count of that article is 0.",
        runs(
            "from shop.stock import *\n"
            "assert is_empty({'a': 0}, 'a') is True and is_empty({'a': 2}, 'a') is False\n"
            "assert needs_refill(3) and reserve({'a': 5}, 'a', 2) == 3 and LOW_STOCK == 15",
            but=("shop/stock.py",),
        ),
        Outcome(
            files={
                "shop/stock.py": FILES["shop/stock.py"].replace("= 12", "= 15")
                + "\n\ndef is_empty(stock, article):\n    return stock[article] == 0\n"
            }
        ),
        (
            Outcome("Done."),
            Outcome(files={"shop/stock.py": "def is_empty(stock, article):\n    return True\n"}),
        ),
    ),
    Task(
        "fix-typo",
        "There is a spelling mistake in shop/cli.py: recieved. Correct it.",
        holds("shop/cli.py", _TYPO),
        Outcome(files={"shop/cli.py": _TYPO}),
        (Outcome("Done."),),
    ),
    Task(
        "piped-traceback",
        "Which file and line is to blame?",
        says(r"billing\.py", r"\b42\b", never=r"\b88\b"),
        Outcome("billing.py, line 42: it divides by zero."),
        (Outcome("app.py line 88"),),
        stdin=_TRACEBACK,
    ),
    Task(
        "piped-diff",
        "Write a one-line commit message for this change.",
        one_sentence(r"timeout"),
        Outcome("Raise the timeout from 5 to 30 seconds"),
        (Outcome("Update file."), Outcome("word " * 80)),
        stdin=_DIFF,
    ),
)
