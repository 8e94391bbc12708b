"""What a small model is kept from; a wrong guess here sends a user's request the wrong way."""

import pytest

from qwenterm.agent.guidance import Guide, about_here, announces, wants_change

ORDERS = [
    "Create notes.txt with the line hello",
    "Please rename docs/a.md to docs/b.md.",
    "A test in tests/test_prices.py fails. Find out why and correct the code.",
    "There is a spelling mistake in shop/cli.py: recieved. Correct it.",
    "Can you add a function is_empty to stock.py?",
    "In config.json, set debug to false.",
    "Delete the folder build",
]
QUESTIONS = [
    "Which value did I change since the last commit?",
    "What does the function add in math.py return?",
    "How many Python files are there?",
    "hello",
    "What would I have to change in app.py to get rid of the warning?",
    "Who made the last commit?",
]


@pytest.mark.parametrize("prompt", ORDERS)
def test_an_order_is_seen_as_one(prompt):
    assert wants_change(prompt)


@pytest.mark.parametrize("prompt", QUESTIONS)
def test_a_question_is_never_an_order(prompt):
    assert not wants_change(prompt)


@pytest.mark.parametrize(
    "prompt", ["Lege notes.txt mit dem Wort hallo an.", "notes.txt should hold the word hello"]
)
def test_an_order_in_other_words_keeps_all_tools(prompt):
    """Taken for a question, it could not be carried out at all."""
    assert {"write", "edit"} <= set(Guide(True, prompt).allowed(("read", "write", "edit")))


def test_piped_input_is_answered_about_and_changes_nothing():
    """Asked for a commit message for a piped diff, a small model edited the file."""
    guide = Guide(True, "Write a one-line commit message for this change.", attachment=True)
    assert guide.answers_input
    assert guide.allowed(("read", "write", "edit")) == ("read",)


def test_an_answer_about_the_input_is_never_asked_for_twice_in_the_same_way():
    """The same request gives the same plan again, five times over."""
    guide = Guide(True, "Which line is to blame?", attachment=True)
    ways = []
    for _ in range(3):
        ways.append((guide.answers_input, guide.demand))
        assert guide.sends_back("To find the line, you can use git blame.", whole=True)
    assert ways == [(True, False), (False, False), (False, True)]


def test_a_question_keeps_the_changing_tools_out():
    for prompt in ("Who made the last commit?", "List the files.", "Is there a TODO? Where?"):
        assert Guide(True, prompt).allowed(("read", "write", "edit")) == ("read",)


def test_what_is_to_be_written_from_piped_input_is_no_file():
    assert not wants_change("Write a one-line commit message for this change.", attachment=True)
    assert wants_change("Write this to notes.txt.", attachment=True)


@pytest.mark.parametrize("prompt", ["What is the capital of France?", "hi", "Thanks a lot!"])
def test_small_talk_and_knowledge_need_no_look(prompt):
    assert not about_here(prompt)
    assert not Guide(True, prompt).demand


@pytest.mark.parametrize(
    "text",
    [
        "To find the file, I'll use the `search` function with",
        "You can use the following command",
        "Run it:\n```bash\nls\n```",
        "Let me check the log.",
        "To switch debug off in `config/settings.json`, you need to edit the file",
    ],
)
def test_an_announcement_is_no_answer(text):
    assert announces(text)


@pytest.mark.parametrize(
    "text",
    [
        "There are 5 Python files in the shop folder.",
        "The function is in shop/stock.py, line 6.",
        "Tomas Berg made the last commit.",
        "Done: debug is off.",
        "Today it is Tuesday.",
    ],
)
def test_an_answer_is_no_announcement(text):
    assert not announces(text)


def test_who_asks_how_may_be_told_a_command():
    guide = Guide(True, "How do I list hidden files?")
    assert not guide.sends_back("You can use the following command: ls -a", whole=True)


def test_demands_come_to_an_end():
    """A model that cannot do it must be allowed to say so."""
    guide = Guide(True, "Fix the bug in app.py.")
    sent_back = [guide.sends_back("It cannot be done.", whole=True) for _ in range(20)]
    assert True in sent_back
    assert sent_back[-1] is False


def test_after_a_refusal_nothing_more_is_demanded():
    guide = Guide(True, "Create notes.txt.")
    said = guide.after_result(
        "write", "{}", "the user said no", error=True, done=False, denied=True
    )
    assert said == ""
    assert not guide.demand
    assert not guide.sends_back("It was not allowed.", whole=True)


def test_a_look_by_shell_is_no_change():
    guide = Guide(True, "Delete old.txt.")
    guide.after_result("shell", "ls", "old.txt", error=False, done=True)
    assert guide.pending
    guide.after_result("shell", "rm old.txt", "(no output)", error=False, done=True)
    assert not guide.pending


def test_a_large_model_is_left_alone():
    guide = Guide(False, "Fix the bug in app.py.")
    assert guide.allowed(("read", "write")) == ("read", "write")
    assert not guide.demand
    assert not guide.sends_back("You can use sed.", whole=True)
    assert guide.after_result("read", "", "x", error=False, done=False) == ""
