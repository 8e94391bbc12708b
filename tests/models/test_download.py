"""Pulling from a hub: a gigabyte on a slow line must survive kills, lies and full disks."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import hub_server
import pytest
from model_source import content, model

from qwenterm.core.errors import UnavailableError
from qwenterm.models.download import SourcesFailedError, pull

PULL = Path(__file__).with_name("pull_process.py")


@pytest.fixture
def hub():
    with hub_server.serve(content()) as server:
        yield server


@pytest.fixture
def lines():
    return []


def environ(hub, **more):
    return {"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": "http://127.0.0.1:1", **more}


def pull_process(entry, folder, hub, **more):
    return subprocess.Popen(
        [
            sys.executable,
            str(PULL),
            json.dumps(dataclasses.asdict(entry)),
            str(folder),
            "huggingface",
        ],
        env={**os.environ, **environ(hub), **more},
        stdout=subprocess.PIPE,
        text=True,
    )


def until(condition, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.01)


def size(path):
    return path.stat().st_size if path.exists() else 0


def test_a_pull_fetches_checks_and_leaves_nothing_else(hub, tmp_path, lines):
    steps = []
    path = pull(
        model(hub.content),
        tmp_path / "models",
        progress=lambda done, total: steps.append((done, total)),
        say=lines.append,
        environ=environ(hub),
    )
    assert path.read_bytes() == hub.content
    assert {file.name for file in path.parent.iterdir()} == {"small.gguf", ".small.gguf.lock"}
    assert steps == sorted(steps) and steps[-1] == (len(hub.content), len(hub.content))
    assert hub.paths[0] == "/some/repo/resolve/abc123/small.gguf"
    assert lines == ["checking the SHA-256 of small.gguf"]


def test_a_second_pull_asks_nobody(hub, tmp_path):
    entry = model(hub.content)
    pull(entry, tmp_path, environ=environ(hub))
    asked = len(hub.paths)
    assert pull(entry, tmp_path, environ=environ(hub)) == tmp_path / "small.gguf"
    assert len(hub.paths) == asked


def test_a_pull_that_was_killed_half_way_goes_on_from_there(hub, tmp_path):
    half = len(hub.content) // 2
    hub.hold_at = half
    part = tmp_path / "small.gguf.part"
    process = pull_process(model(hub.content), tmp_path, hub)
    until(lambda: size(part) >= half)
    process.kill()
    process.wait()
    process.stdout.close()
    hub.hold_at = None
    hub.starts.clear()
    kept = size(part)
    path = pull(model(hub.content), tmp_path, environ=environ(hub))
    assert path.read_bytes() == hub.content
    assert hub.starts == [kept]


def test_two_pulls_at_once_fetch_the_file_once(hub, tmp_path):
    hub.hold_at = 500_000
    first = pull_process(model(hub.content), tmp_path, hub)
    until(lambda: size(tmp_path / "small.gguf.part") >= 500_000)
    second = pull_process(model(hub.content), tmp_path, hub)
    assert second.stdout.readline() == "another process is pulling small: waiting for it\n"
    hub.released.set()
    first_out, _ = first.communicate(timeout=30)
    second_out, _ = second.communicate(timeout=30)
    assert (first.returncode, second.returncode) == (0, 0)
    assert first_out.endswith("done\n") and second_out == "done\n"
    assert hub.starts == [0]
    assert {path.removeprefix("/storage") for path in hub.paths} == {
        "/some/repo/resolve/abc123/small.gguf"
    }
    assert (tmp_path / "small.gguf").read_bytes() == hub.content


def test_a_lost_connection_is_renewed_where_it_broke(hub, tmp_path, lines):
    hub.drops = 3
    path = pull(model(hub.content), tmp_path, say=lines.append, environ=environ(hub))
    assert path.read_bytes() == hub.content
    assert hub.starts == [0, 100_000, 200_000, 300_000]
    assert not any("passed over" in line for line in lines)


def test_a_server_without_ranges_is_read_from_the_beginning(hub, tmp_path):
    hub.ranges = False
    (tmp_path / "small.gguf.part").write_bytes(b"x" * 1000)
    path = pull(model(hub.content), tmp_path, environ=environ(hub))
    assert path.read_bytes() == hub.content


def test_a_silent_hub_is_passed_over_in_time_with_one_line(hub, tmp_path, lines):
    with hub_server.silent_server() as silent:
        start = time.monotonic()
        path = pull(
            model(hub.content),
            tmp_path,
            connect_seconds=0.5,
            say=lines.append,
            environ={"HF_ENDPOINT": silent, "MODELSCOPE_ENDPOINT": hub.url},
        )
        assert time.monotonic() - start < 5
    assert path.read_bytes() == hub.content
    assert lines[0] == "huggingface is passed over: no answer within 0.5 seconds"
    assert len(lines) == 2
    assert hub.paths[0] == "/models/other/repo/resolve/def456/small.gguf"


def test_a_name_that_cannot_be_looked_up_in_time_is_passed_over(hub, tmp_path, lines, monkeypatch):
    """A resolver can hang for half a minute, and no time-out of a socket covers it."""
    import socket

    real = socket.getaddrinfo

    def hanging(host, *rest, **more):
        if "invalid" in str(host):
            time.sleep(8)
            raise socket.gaierror("no such name")
        return real(host, *rest, **more)

    monkeypatch.setattr(socket, "getaddrinfo", hanging)
    start = time.monotonic()
    pull(
        model(hub.content),
        tmp_path,
        connect_seconds=0.5,
        say=lines.append,
        environ={"HF_ENDPOINT": "http://hub.invalid", "MODELSCOPE_ENDPOINT": hub.url},
    )
    assert time.monotonic() - start < 5
    assert lines[0].startswith("huggingface is passed over: no answer within 0.5 seconds")


def test_when_no_source_delivers_each_reason_is_named(hub, tmp_path, lines):
    hub.status = 404
    with (
        hub_server.closed_port() as closed,
        pytest.raises(SourcesFailedError) as caught,
    ):
        pull(
            model(hub.content, wheels=None),
            tmp_path,
            say=lines.append,
            environ={"HF_ENDPOINT": hub.url, "MODELSCOPE_ENDPOINT": closed},
        )
    assert "huggingface: answered 404" in str(caught.value)
    assert "modelscope: not reachable" in str(caught.value)
    assert len(lines) == 2
    assert caught.value.status == 3


def test_offline_mode_keeps_hugging_face_out(hub, tmp_path, lines):
    with pytest.raises(SourcesFailedError, match="HF_HUB_OFFLINE is set"):
        pull(
            model(hub.content),
            tmp_path,
            ["huggingface"],
            say=lines.append,
            environ=environ(hub, HF_HUB_OFFLINE="1"),
        )
    assert hub.paths == []


def test_a_wrong_content_is_removed_and_named(hub, tmp_path):
    entry = model(hub.content, sha256="0" * 64)
    with pytest.raises(UnavailableError, match=r"wrong content: its SHA-256 is .* should be 0000"):
        pull(entry, tmp_path, environ=environ(hub))
    assert [file.name for file in tmp_path.iterdir()] == [".small.gguf.lock"]


def test_a_hub_with_another_file_is_passed_over_and_what_arrived_stays(hub, tmp_path):
    entry = model(hub.content + b"more", wheels=None)
    (tmp_path / "small.gguf.part").write_bytes(hub.content[:1000])
    with pytest.raises(SourcesFailedError, match=r"has a file of 1,000,000 bytes instead of"):
        pull(entry, tmp_path, ["huggingface"], environ=environ(hub))
    assert size(tmp_path / "small.gguf.part") == 1000


def test_too_little_room_is_said_before_anything_is_fetched(hub, tmp_path):
    with pytest.raises(
        UnavailableError, match=r"not enough room .* 68,108,864 bytes needed, 5,000"
    ):
        pull(
            model(hub.content, bytes=1_000_000, wheels=None),
            tmp_path,
            environ=environ(hub),
            free=lambda _folder: 5000,
        )
    assert hub.paths == []


def test_what_is_there_already_needs_no_room(hub, tmp_path):
    (tmp_path / "small.gguf.part").write_bytes(hub.content[:900_000])
    with pytest.raises(UnavailableError, match=r" 67,208,864 bytes needed"):
        pull(
            model(hub.content, wheels=None),
            tmp_path,
            environ=environ(hub),
            free=lambda _folder: 0,
        )


def test_a_disk_that_fills_up_on_the_way_is_named(hub, tmp_path):
    """/dev/full refuses every byte with the kernel's own "no space left on device"."""
    (tmp_path / "small.gguf.part").symlink_to("/dev/full")
    with pytest.raises(UnavailableError, match=r"no room left in .*is kept, make room and pull"):
        pull(model(hub.content), tmp_path, environ=environ(hub))
    assert (tmp_path / "small.gguf.part").is_symlink()


def test_a_file_system_with_a_limit_on_files_is_named_and_the_part_is_kept(hub, tmp_path):
    """FAT holds no file past 4 GiB; a limit of the process gives the same error."""
    script = (
        "import resource, runpy, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, 600_000))\n"
        "sys.argv = sys.argv[1:]\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    arguments = [json.dumps(dataclasses.asdict(model(hub.content))), str(tmp_path), "huggingface"]
    done = subprocess.run(
        [sys.executable, "-B", "-c", script, str(PULL), *arguments],
        env={**os.environ, **environ(hub)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert "cannot hold a file of 1,000,000 bytes" in done.stdout
    assert size(tmp_path / "small.gguf.part") == 600_000


def test_a_cut_file_in_place_is_completed(hub, tmp_path):
    """`models pull` is the remedy that the check of a cut file names."""
    (tmp_path / "small.gguf").write_bytes(hub.content[:700_000])
    path = pull(model(hub.content), tmp_path, environ=environ(hub))
    assert path.read_bytes() == hub.content
    assert hub.starts == [700_000]


def test_a_damaged_file_of_the_right_size_is_fetched_again(hub, tmp_path):
    (tmp_path / "small.gguf").write_bytes(b"x" * len(hub.content))
    assert pull(model(hub.content), tmp_path, environ=environ(hub)).read_bytes() == hub.content


def test_a_folder_that_cannot_be_made_is_named(hub, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UnavailableError, match="file"):
        pull(model(hub.content), tmp_path / "file" / "models", environ=environ(hub))


def test_a_token_goes_to_hugging_face_and_not_to_where_it_redirects(hub, tmp_path):
    """Mirrors may need it; the storage behind a hub is somebody else."""
    with hub_server.serve(hub.content) as storage, contextlib.suppress(UnavailableError):
        storage.redirect = False
        front, hub.url = hub.url, storage.url
        pull(
            model(hub.content, wheels=None),
            tmp_path,
            ["huggingface"],
            environ={"HF_ENDPOINT": front, "HF_TOKEN": "hf_secret"},
        )
        assert [headers["authorization"] for headers in hub.headers] == ["Bearer hf_secret"] * 2
        assert storage.starts == [0]
        assert "authorization" not in storage.headers[0]
