"""The picture for the documentation can be drawn anew, and fetches nothing from anywhere."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_picture_shows_the_interface_and_refers_to_nothing(tmp_path):
    drawn = tmp_path / "tui.svg"
    command = [sys.executable, str(ROOT / "tools" / "screenshot"), str(drawn)]
    subprocess.run(command, check=True, timeout=60)
    for picture in (drawn, ROOT / "docs" / "tui.svg"):
        svg = picture.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\"' )]*", svg)) == {"http://www.w3.org/2000/svg"}
        assert "@font-face" not in svg
        shown = re.sub(r"<[^>]*>", "", svg).replace("&#160;", " ")
        assert "if values else 0" in shown
        assert "yes, once" in shown
