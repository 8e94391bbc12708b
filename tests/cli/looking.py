"""Constants and looks that the command line's tests share."""

WRITE = {"path": "new.txt", "content": "made\n"}
QUICK_SECONDS = 5


def one_line(text):
    return text.count("\n") == 1 and text.startswith("qwenterm: ") and "Traceback" not in text


def seen_by(server):
    """The text of the last user message that the server got."""
    users = [m for m in server.chats[-1]["messages"] if m["role"] == "user"]
    return users[-1]["content"]
