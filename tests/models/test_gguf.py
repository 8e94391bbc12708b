"""A damaged model file is refused with a name and a remedy, not by a crash of native code."""

import struct
import time

import pytest
from gguf_writer import pair, settings, text, write_gguf
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qwenterm.core.errors import UnavailableError
from qwenterm.models.catalog import find
from qwenterm.models.gguf import check_file

TOY = pair("general.architecture", "toy")


def head(tensors: int, pairs: int, body: bytes = b"") -> bytes:
    return b"GGUF" + struct.pack("<IQQ", 3, tensors, pairs) + body


def cut_copy(source, path, keep: int, size: int):
    """The first `keep` bytes of `source` and a hole up to `size`: no 491 MB are copied."""
    with source.open("rb") as file, path.open("wb") as copy:
        copy.write(file.read(keep))
        copy.truncate(size)
    return path


def test_the_real_file_tells_what_it_is(tiny_model):
    facts = check_file(tiny_model)
    assert facts.architecture == "qwen2"
    assert facts.context_length == 32768
    assert facts.block_count == 24
    assert facts.tensor_count == 291
    assert facts.kv_bytes_per_token == 24 * 2 * 64 * 2 * 2


def test_the_check_costs_no_noticeable_start_up_time(tiny_model):
    """300,000 strings are stepped over; building Python lists of them takes ten times as long."""
    best = 1.0
    for _ in range(5):
        start = time.process_time()
        check_file(tiny_model)
        best = min(best, time.process_time() - start)
    assert best < 0.1


def test_a_cut_file_is_refused_by_name_and_size(tiny_model, tmp_path):
    path = cut_copy(tiny_model, tmp_path / tiny_model.name, 12_000_000, 400_000_000)
    with pytest.raises(UnavailableError) as caught:
        check_file(path)
    message = str(caught.value)
    assert str(path) in message
    assert "400,000,000 bytes instead of 491,400,064" in message
    assert "`qwenterm models pull tiny`" in message


def test_a_file_cut_in_its_head_still_tells_the_size_it_should_have(tiny_model, tmp_path):
    path = cut_copy(tiny_model, tmp_path / tiny_model.name, 1_000_000, 1_000_000)
    with pytest.raises(UnavailableError, match=r"1,000,000 bytes instead of 491,400,064"):
        check_file(path)
    other = path.rename(tmp_path / "mine.gguf")
    with pytest.raises(UnavailableError, match=r"less than its own head announces; fetch it again"):
        check_file(other)


def test_one_byte_less_is_noticed(tmp_path):
    path = write_gguf(tmp_path / "toy.gguf", settings())
    size = check_file(path).size
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UnavailableError, match=f"{size - 1:,} bytes instead of {size:,}"):
        check_file(path)


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(UnavailableError, match=r"does not exist; `qwenterm models list`"):
        check_file(tmp_path / "no.gguf")
    with pytest.raises(UnavailableError, match=r"does not exist; `qwenterm models pull starter`"):
        check_file(tmp_path / find("starter").file)
    with pytest.raises(UnavailableError, match="is not a file"):
        check_file(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "does not begin as a GGUF file"),
        (b"<html>404</html>", "does not begin as a GGUF file"),
        (b"GGUF", "cut short"),
        (b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1"),
        (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "version 0"),
        (head(1 << 60, 0), "announces"),
        (head(0, 1 << 60), "announces"),
        (head(0, 1, struct.pack("<Q", 1 << 63)), "cut short"),
        (head(0, 1, text("k") + struct.pack("<IIQ", 9, 4, 1 << 62)), "cut short"),
        (head(0, 1, text("k") + struct.pack("<IIQ", 9, 8, 1 << 62)), "announces a list"),
        (head(0, 1, text("k") + struct.pack("<IIQQ", 9, 8, 3, (1 << 64) - 1)), "cut short"),
        (head(0, 1, text("k") + struct.pack("<IIQ", 9, 9, 1)), "unknown type 9"),
        (head(0, 1, text("k") + struct.pack("<I", 77)), "unknown type 77"),
        (head(1, 1, TOY + text("t") + struct.pack("<I", 9)), "9 dimensions"),
        (
            head(1, 1, TOY + text("t") + struct.pack("<IQQQQIQ", 4, *[1 << 63] * 4, 0, 0)),
            "cut short",
        ),
        (head(1, 2, TOY + pair("general.alignment", 0)), "alignment of 0"),
        (head(0, 1, TOY), "holds no weights"),
        (head(1, 0), "names no architecture"),
    ],
    ids=range(18),
)
def test_hostile_bytes_are_refused_at_once(tmp_path, content, message):
    path = tmp_path / "bad.gguf"
    path.write_bytes(content)
    start = time.process_time()
    with pytest.raises(UnavailableError, match=message):
        check_file(path)
    assert time.process_time() - start < 0.5


@hypothesis_settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_no_damage_leads_to_another_error(tmp_path, data):
    """The host shows `UnavailableError` as one line; anything else would be a traceback."""
    whole = write_gguf(tmp_path / "toy.gguf", settings()).read_bytes()
    damaged = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(whole) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damaged[: data.draw(st.integers(0, len(whole)))])
    try:
        facts = check_file(path)
    except UnavailableError as error:
        assert str(path) in str(error)
    else:
        assert facts.kv_bytes_per_token >= 0


def test_hybrid_models_count_only_the_layers_that_attend(tmp_path):
    """Otherwise a Qwen3.5 would be given a quarter of the context that fits."""
    changes = {
        "toy__block_count": 33,
        "toy__full_attention_interval": 4,
        "toy__attention__key_length": 256,
        "toy__attention__value_length": 256,
        "toy__attention__head_count_kv": 4,
    }
    path = write_gguf(tmp_path / "hybrid.gguf", settings(**changes))
    assert check_file(path).kv_bytes_per_token == find("qwen3.5-9b").kv_bytes_per_token
    per_layer = settings(toy__attention__head_count_kv=[0, 2, 0, 2])
    path = write_gguf(tmp_path / "list.gguf", per_layer)
    assert check_file(path).kv_bytes_per_token == 4 * (16 + 16) * 2


def test_a_name_cannot_send_codes_to_the_terminal(tmp_path):
    path = write_gguf(tmp_path / "toy.gguf", settings(general__name="\x1b[2Jboo\n"))
    assert check_file(path).name == "[2Jboo"
