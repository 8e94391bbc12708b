"""The repository that the evaluations ask about: small, generated, the same every time.

A Python package with one bug that a test shows, data, a log, documentation with small faults, and
a git history of four commits by two authors with one change not committed.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

PRICES = '''"""Prices as people write them."""


def parse_price(text):
    """Return the price in cents: "12.50" is 1250."""
    whole, _, cents = text.strip().lstrip("$").partition(".")
    return int(whole) * 100 + int(cents or 0)


def total(prices):
    """Return the sum of prices in cents."""
    result = 0
    for price in prices:
        result = price
    return result
'''

FILES: Mapping[str, str] = {
    "README.md": """# Shopkeeper

Keeps the stock and the orders of a small shop. The colour of a label tells its age:
a red colour means that an article is older than a year.

Run the tests with `python3 -m unittest`.
""",
    "pyproject.toml": """[project]
name = "shopkeeper"
version = "2.4.1"
requires-python = ">=3.9"
dependencies = ["requests>=2.31", "rich"]
""",
    "config/settings.json": """{
  "currency": "EUR",
  "debug": true,
  "pageSize": 25
}
""",
    "docs/instal.md": """# Installing

Copy the folder and run `python3 -m shop.cli`.
""",
    "shop/__init__.py": '"""A small shop."""\n',
    "shop/prices.py": PRICES,
    "shop/stock.py": '''"""What is on the shelves."""

LOW_STOCK = 12


def needs_refill(count):
    """Tell whether an article must be ordered again."""
    return count < LOW_STOCK


def reserve(stock, article, count):
    """Take `count` of an article; raises KeyError for an unknown one."""
    # TODO: refuse negative counts
    stock[article] -= count
    return stock[article]
''',
    "shop/orders.py": '''"""Orders, as they come in."""

from shop.prices import parse_price


def read_orders(path):
    """Return (customer, cents) of each line in the file."""
    with open(path) as file:
        rows = [line.split(",") for line in file.read().splitlines()[1:]]
    return [(row[1], parse_price(row[3])) for row in rows]
''',
    "shop/cli.py": '''"""The command line."""

from shop.orders import read_orders


def main():
    """Print what was recieved."""
    for customer, cents in read_orders("data/orders.csv"):
        print(customer, cents)


if __name__ == "__main__":
    main()
''',
    "tests/__init__.py": "",
    "tests/test_prices.py": """import unittest

from shop.prices import parse_price, total


class Prices(unittest.TestCase):
    def test_parse(self):
        self.assertEqual(parse_price("$12.50"), 1250)

    def test_total(self):
        self.assertEqual(total([100, 250, 50]), 400)
""",
    "data/orders.csv": "number,customer,status,amount\n"
    + "".join(
        f"{1000 + n},{name},{status},{amount}\n"
        for n, (name, status, amount) in enumerate(
            [
                ("Ada", "paid", "12.50"),
                ("Grace", "cancelled", "8.00"),
                ("Alan", "paid", "99.90"),
                ("Edsger", "open", "5.25"),
                ("Barbara", "cancelled", "41.00"),
                ("Donald", "paid", "17.35"),
                ("Grace", "open", "3.00"),
                ("Ada", "cancelled", "20.00"),
                ("Leslie", "paid", "64.00"),
            ]
        )
    ),
    "logs/app.log": "".join(
        f"2024-03-0{day} 10:1{n}:00 {level} {text}\n"
        for day in (1, 2, 3)
        for n, (level, text) in enumerate(
            [
                ("INFO", "started"),
                ("ERROR", "TimeoutError: bank did not answer"),
                ("INFO", "order 1003 stored"),
                ("ERROR", "TimeoutError: bank did not answer"),
                ("WARNING", "label printer is slow"),
                *([("ERROR", "KeyError: 'ribbon'")] if day == 2 else []),
            ]
        )
    ),
}

# What each commit adds; the rest of a file's text is there from its first commit on.
_COMMITS = (
    ("Mara Lind", "Start with prices and stock", ("shop/__init__.py", "shop/prices.py")),
    ("Mara Lind", "Add stock and its low mark", ("shop/stock.py", "config/settings.json")),
    ("Tomas Berg", "Read orders from a CSV file", ("shop/orders.py", "data/orders.csv")),
    ("Tomas Berg", "Add the command line, tests and documentation", ()),
)


def build(folder: Path) -> Path:
    """Make the repository in `folder` (which must not exist) and return it."""
    folder.mkdir(parents=True)
    _git(folder, "init", "--quiet", "--initial-branch", "main")
    for number, (author, message, names) in enumerate(_COMMITS):
        for name in names or FILES:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(FILES[name], encoding="utf-8")
        _git(folder, "add", "--all")
        _git(folder, "commit", "--quiet", "--message", message, author=author, day=number + 1)
    stock = folder / "shop/stock.py"
    stock.write_text(
        FILES["shop/stock.py"].replace("LOW_STOCK = 12", "LOW_STOCK = 15"), encoding="utf-8"
    )
    return folder


def _git(folder: Path, *arguments: str, author: str = "Mara Lind", day: int = 1) -> None:
    when = f"2024-03-0{day}T09:00:00+00:00"
    who = {
        f"GIT_{kind}_{part}": value
        for kind in ("AUTHOR", "COMMITTER")
        for part, value in (("NAME", author), ("EMAIL", "shop@example.invalid"), ("DATE", when))
    }
    subprocess.run(
        ["git", "-c", "commit.gpgsign=false", *arguments],
        cwd=folder,
        env={**os.environ, **who},
        check=True,
    )
