"""Settings: what a person writes, where it comes from, and what is said when it is wrong."""

from enum import Enum
from pathlib import Path

import pytest
import tomli
from pydantic import BaseModel

from qwenterm import config as configuration
from qwenterm import config_commands
from qwenterm.config import ENVIRONMENT, Config, load, user_path
from qwenterm.core.errors import UsageError

ROOT = Path(__file__).resolve().parent.parent
EXAMPLE = ROOT / "config.example.toml"


@pytest.fixture
def file(tmp_path):
    """Write the user file and return its path."""

    def file(text):
        path = tmp_path / "config.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return file


def wrong(path, **options):
    """Return what is said about a configuration that does not load."""
    with pytest.raises(UsageError) as caught:
        load(path, **{"environ": {}, **options})
    message = str(caught.value)
    assert "\n" not in message
    return message


def settings(model=Config, prefix=""):
    """Yield every setting's dotted name and default, from the pydantic models."""
    for name, field in model.model_fields.items():
        default = field.get_default(call_default_factory=True)
        if isinstance(default, BaseModel):
            yield from settings(type(default), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", default.value if isinstance(default, Enum) else default


def at(values, dotted):
    for part in dotted.split("."):
        values = values[part]
    return values


# The example


@pytest.mark.parametrize(("name", "default"), list(settings()))
def test_the_example_lists_every_setting_with_its_default(name, default):
    """It is the one place where people look settings up."""
    value = at(tomli.loads(EXAMPLE.read_text(encoding="utf-8")), name)
    assert (tuple(value) if isinstance(value, list) else value) == default
    assert isinstance(value, bool) == isinstance(default, bool)


def test_the_example_loads_and_changes_nothing():
    assert load(EXAMPLE, environ={}) == Config()


def test_every_setting_of_the_example_has_one_line_on_why():
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    keys = [n for n, line in enumerate(lines) if line[:1].isalpha()]
    assert len(keys) == len(list(settings()))
    for number in keys:
        above, further = lines[number - 1], lines[number - 2]
        assert above.startswith("# ") and above.endswith("."), lines[number]
        assert not further.startswith("#"), f"{lines[number]}: one line is enough"


def test_the_page_names_every_section():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for name, field in Config.model_fields.items():
        if isinstance(field.default, BaseModel):
            assert f"`[{name}]`" in page


def test_the_page_names_every_environment_variable():
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    for variable in ENVIRONMENT:
        assert f"`{variable}`" in page


# Wrong files


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("# mine\nmodle = 'x'\n", 2, ["`modle`", "did you mean `model`"]),
        ("[agent]\n\nmax_step = 4\n", 3, ["`agent.max_step`", "did you mean `max_steps`"]),
        ("[agents]\nmax_steps = 4\n", 1, ["`agents`", "did you mean `agent`"]),
        ("model = 'x'\nagent.max_step = 4\n", 2, ["`agent.max_step`", "`max_steps`"]),
        ("\nagent = { max_step = 4 }\n", 2, ["`agent.max_step`", "`max_steps`"]),
        ("[ui]\nqqq = 1\n", 2, ["`ui.qqq`", "known here: theme"]),
        ("[agent]\nseed = 1\n[endpoint]\nseed = 1\n", 4, ["`endpoint.seed`"]),
    ],
)
def test_an_unknown_setting_is_named_with_line_and_suggestion(file, text, line, words):
    """A misspelt setting that is passed over is one that its owner believes in."""
    path = file(text)
    message = wrong(path)
    assert message.startswith(f"{path}:{line}: ")
    for word in words:
        assert word in message


@pytest.mark.parametrize(
    ("text", "line", "key"),
    [
        ("model = 5\n", 1, "model"),
        ("[agent]\nmax_steps = 'many'\n", 2, "agent.max_steps"),
        ("[agent]\nmax_steps = 0\n", 2, "agent.max_steps"),
        ("[agent]\ntop_p = 1.5\n", 2, "agent.top_p"),
        ("[agent]\nthinking = 'perhaps'\n", 2, "agent.thinking"),
        ("permission_mode = 'all'\n", 1, "permission_mode"),
        ("[models]\nsources = ['huggingface',\n 'elsewhere']\n", 2, "models.sources.1"),
        ("[sandbox]\nhidden = 'x'\n", 2, "sandbox.hidden"),
        ("agent = 5\n", 1, "agent"),
        ("[host]\nidle_minutes = nan\n", 2, "host.idle_minutes"),
    ],
)
def test_a_wrong_value_is_named_with_line_and_key(file, text, line, key):
    path = file(text)
    message = wrong(path)
    assert message.startswith(f"{path}:{line}: ") and f"`{key}`" in message


def test_a_wrong_mode_lists_the_right_ones(file):
    message = wrong(file("permission_mode = 'all'\n"))
    assert all(mode in message for mode in ("ask", "edits", "auto", "plan"))


def test_a_file_that_is_no_toml_is_named_with_its_line(file):
    path = file("model = 'x'\nthis is no toml\n")
    message = wrong(path)
    assert message.startswith(f"{path}: not valid TOML") and "line 2" in message


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    folder = tmp_path / "config.toml"
    folder.mkdir()
    message = wrong(folder)
    assert message.startswith(f"{folder}: cannot be read") and message.count(str(folder)) == 1
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"model = '\xff'\n")
    assert wrong(binary).startswith(f"{binary}: cannot be read")


def test_a_byte_order_mark_is_no_error(tmp_path):
    """Some editors write one, and nobody can see it."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfmodel = 'x'\n")
    assert load(path, environ={}).model == "x"


def test_no_file_is_the_defaults(tmp_path):
    assert load(tmp_path / "none.toml", environ={}) == Config()


# Layers

LAYERED = {
    "QWENTERM_MODEL": ("model", "of-environment", "of-flag"),
    "QWENTERM_PERMISSION_MODE": ("permission_mode", "plan", "auto"),
    "QWENTERM_BASE_URL": ("endpoint.base_url", "http://e/v1", "http://f/v1"),
    "QWENTERM_MODELS_DIR": ("models.directory", "/of/environment", "/of/flag"),
    "QWENTERM_SEED": ("agent.seed", "2", "3"),
}


def test_every_variable_is_tried_here():
    assert {name: layers[0] for name, layers in LAYERED.items()} == ENVIRONMENT


@pytest.mark.parametrize("variable", LAYERED)
def test_flags_win_over_the_environment_over_the_file(file, variable):
    key, environment, flag = LAYERED[variable]
    here = "1" if key == "agent.seed" else "edits"
    path = file(f"{key} = '{here}'\n")
    none = {key: None}
    read = {
        "file": load(path, environ={}, flags=none),
        "empty": load(path, environ={variable: ""}, flags=none),
        "environment": load(path, environ={variable: environment}, flags=none),
        "flag": load(path, environ={variable: environment}, flags={key: flag}),
    }
    values = {layer: at(config.model_dump(), key) for layer, config in read.items()}
    got = {layer: str(getattr(value, "value", value)) for layer, value in values.items()}
    assert got == {"file": here, "empty": here, "environment": environment, "flag": flag}


def test_other_settings_of_a_section_stay(file):
    path = file("[endpoint]\nbase_url = 'http://f/v1'\nmodel = 'mine'\n")
    config = load(path, environ={"QWENTERM_BASE_URL": "http://e/v1"})
    assert (config.endpoint.base_url, config.endpoint.model) == ("http://e/v1", "mine")


def test_a_wrong_variable_or_flag_is_named_itself(tmp_path):
    """The file is right: sending its owner there would be a wild-goose chase."""
    none = tmp_path / "none.toml"
    message = wrong(none, environ={"QWENTERM_PERMISSION_MODE": "all"})
    assert "environment variable QWENTERM_PERMISSION_MODE" in message and str(none) not in message
    assert "flag for permission_mode" in wrong(none, flags={"permission_mode": "all"})


def test_places_follow_the_variables_of_the_desktop(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    assert user_path({}) == Path("/h/.config/qwenterm/config.toml")
    assert user_path({"XDG_CONFIG_HOME": "/c"}) == Path("/c/qwenterm/config.toml")
    assert configuration.state_directory({}) == Path("/h/.local/state/qwenterm")
    assert configuration.state_directory({"XDG_STATE_HOME": "/s"}) == Path("/s/qwenterm")
    config = load(Path("/none"), environ={"QWENTERM_MODELS_DIR": "~/m"})
    assert configuration.models_directory(config) == Path("/h/m")
    assert configuration.models_directory(Config(), {}) == Path("/h/.local/share/qwenterm/models")
    elsewhere = configuration.models_directory(Config(), {"XDG_DATA_HOME": "/d"})
    assert elsewhere == Path("/d/qwenterm/models")


# config set

WRITTEN = """\
# What I changed, and why.
model = "auto"  # the large one is slow

[agent]
# Long tasks.
max_steps = 30
"""


def change(path, key, value):
    config_commands.change(path, key, value)
    return path.read_text(encoding="utf-8")


def test_set_changes_one_value_and_nothing_else(file):
    path = file(WRITTEN)
    assert change(path, "agent.max_steps", "40") == WRITTEN.replace("30", "40")
    changed = change(path, "model", "/models/my model.gguf")
    assert '"/models/my model.gguf"  # the large one is slow' in changed


@pytest.mark.parametrize(
    "before", ["", WRITTEN, "[agent]\nseed = 1\n", "agent = { seed = 1 }\n", "agent.seed = 1\n"]
)
@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("permission_mode", "edits", "edits"),
        ("endpoint.base_url", "http://localhost:8000/v1", "http://localhost:8000/v1"),
        ("endpoint.model", "7", "7"),
        ("model", "true", "true"),
        ("host.n_gpu_layers", "-1", -1),
        ("agent.thinking", "off", "off"),
        ("agent.top_p", "0.5", 0.5),
        ("models.sources", "['wheels']", ["wheels"]),
        ("agent.seed", "7", 7),
    ],
)
def test_set_adds_what_was_not_there(file, before, key, text, value):
    path = file(before)
    change(path, key, text)
    assert at(load(path, environ={}).model_dump(mode="json"), key) == value
    if before is WRITTEN:
        assert load(path, environ={}).agent.max_steps == 30


def test_set_makes_the_file_and_its_folder(tmp_path):
    path = tmp_path / "a" / "b" / "config.toml"
    change(path, "agent.max_steps", "4")
    assert load(path, environ={}).agent.max_steps == 4


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("agent.max_steps", "many", "`agent.max_steps`"),
        ("agent.max_steps", "0", "greater than or equal to 1"),
        ("agent.max_step", "4", "did you mean `max_steps`"),
        ("agnet.max_steps", "4", "did you mean `agent`"),
        ("model.name", "x", "`model` is a value"),
        ("agent", "4", "`agent`"),
        ("", "4", "unknown setting"),
    ],
)
def test_set_refuses_what_would_not_load_and_leaves_the_file(file, key, value, words):
    path = file(WRITTEN)
    with pytest.raises(UsageError) as caught:
        change(path, key, value)
    message = str(caught.value)
    assert words in message and "/tmp" not in message
    assert path.read_text(encoding="utf-8") == WRITTEN
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("broken", ["this is no toml\n", "[agent]\nmax_stepz = 3\n"])
def test_set_names_what_is_wrong_in_the_file_already(file, broken):
    path = file(broken)
    with pytest.raises(UsageError) as caught:
        change(path, "model", "x")
    assert str(caught.value).startswith(str(path))
    assert path.read_text(encoding="utf-8") == broken


def test_set_can_mend_the_value_that_is_wrong(file):
    path = file("[agent]\nmax_steps = 0\n")
    change(path, "agent.max_steps", "4")
    assert load(path, environ={}).agent.max_steps == 4


def test_set_writes_through_a_link(tmp_path):
    """Many keep their settings in a repository and link to them."""
    real = tmp_path / "dotfiles.toml"
    real.write_text(WRITTEN, encoding="utf-8")
    real.chmod(0o640)
    link = tmp_path / "config.toml"
    link.symlink_to(real)
    change(link, "agent.max_steps", "40")
    assert link.is_symlink() and "40" in real.read_text(encoding="utf-8")
    assert real.stat().st_mode & 0o777 == 0o640


# config show and path


@pytest.fixture
def user_file(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    for name in ENVIRONMENT:
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "qwenterm" / "config.toml"
    path.parent.mkdir()
    path.write_text(WRITTEN, encoding="utf-8")
    return path


def test_show_prints_what_is_in_force_as_toml(user_file, capsys, monkeypatch):
    monkeypatch.setenv("QWENTERM_MODEL", "of-environment")
    assert config_commands.main(["show"]) == 0
    shown = tomli.loads(capsys.readouterr().out)
    assert (shown["model"], shown["agent"]["max_steps"]) == ("of-environment", 30)
    for name, _default in settings():
        at(shown, name)


def test_what_show_prints_can_be_a_file(user_file, capsys):
    config_commands.main(["show"])
    user_file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert load(user_file, environ={}).agent.max_steps == 30


def test_path_prints_where_the_file_is_even_when_it_is_wrong(user_file, capsys):
    """That is when one needs it."""
    user_file.write_text("nonsense", encoding="utf-8")
    assert config_commands.main(["path"]) == 0
    assert capsys.readouterr().out == f"{user_file}\n"
