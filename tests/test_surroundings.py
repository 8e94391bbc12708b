"""Facts about the folder: a wrong or confusing one sends every question the wrong way."""

from qwenterm.surroundings import describe


def test_the_folder_is_named_and_its_content_told(tmp_path):
    project = tmp_path / "project"
    (project / "src").mkdir(parents=True)
    (project / "README.md").write_text("x")
    facts = describe(project)
    assert facts.startswith("folder project; ")
    assert "contains README.md, src/" in facts
    assert str(tmp_path) not in facts


def test_a_folder_that_holds_one_of_its_own_name_is_not_named(tmp_path):
    """Asked about "this repository", a small model counted the inner folder only."""
    (tmp_path / "shop" / "shop").mkdir(parents=True)
    assert "folder shop" not in describe(tmp_path / "shop")


def test_names_that_could_break_the_line_are_left_out(tmp_path):
    project = tmp_path / "a\nb"
    project.mkdir()
    (project / "x\ny").write_text("")
    (project / "ok").write_text("")
    facts = describe(project)
    assert "\n" not in facts and "contains ok" in facts
