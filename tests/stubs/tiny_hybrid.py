"""Writes a tiny model of the Qwen3.5 architecture: random weights, real vocabulary and template.

Three of its four layers are recurrent, so llama.cpp refuses to cut its state, as it does for the
real one of 5.7 GB. Keys and tensors are those that llama.cpp reads for `qwen35`.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from tests.models.gguf_writer import pair, text

WIDTH, LAYERS, HEADS, KV_HEADS, HEAD = 64, 4, 2, 1, 32
STATE, GROUPS, RANK, KERNEL, FEED = 16, 2, 4, 4, 128
F32, F16 = 0, 1
SCALARS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
STRING, ARRAY = 8, 9


def write_tiny_hybrid(path: Path, vocab: Path, template: str, *, seed: int = 0) -> Path:
    """Write a loadable GGUF file of about 20 MB; `vocab` is a GGUF file without weights."""
    tokenizer, tokens = _tokenizer_pairs(vocab.read_bytes())
    arch = "qwen35"
    pairs = [
        pair("general.architecture", arch),
        pair("general.name", "tiny hybrid"),
        pair(f"{arch}.block_count", LAYERS),
        pair(f"{arch}.context_length", 32768),
        pair(f"{arch}.embedding_length", WIDTH),
        pair(f"{arch}.feed_forward_length", FEED),
        pair(f"{arch}.attention.head_count", HEADS),
        pair(f"{arch}.attention.head_count_kv", KV_HEADS),
        pair(f"{arch}.attention.key_length", HEAD),
        pair(f"{arch}.attention.value_length", HEAD),
        pair(f"{arch}.rope.dimension_count", 16),
        pair(f"{arch}.rope.dimension_sections", [4, 2, 2, 0]),
        pair(f"{arch}.full_attention_interval", 4),
        pair(f"{arch}.ssm.conv_kernel", KERNEL),
        pair(f"{arch}.ssm.inner_size", STATE * RANK),
        pair(f"{arch}.ssm.state_size", STATE),
        pair(f"{arch}.ssm.time_step_rank", RANK),
        pair(f"{arch}.ssm.group_count", GROUPS),
        _float(f"{arch}.attention.layer_norm_rms_epsilon", 1e-6),
        _float(f"{arch}.rope.freq_base", 1e7),
        pair("tokenizer.chat_template", template),
        *tokenizer,
    ]
    tensors = _tensors(tokens, np.random.default_rng(seed))
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs)
    offset = 0
    for name, values in tensors.items():
        kind = F16 if values.dtype == np.float16 else F32
        shape = values.shape[::-1]  # ggml counts the fastest dimension first
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)
        offset += -(-values.nbytes // 32) * 32
    with path.open("wb") as file:
        file.write(head + b"\0" * (-len(head) % 32))
        for values in tensors.values():
            file.write(values.tobytes() + b"\0" * (-values.nbytes % 32))
    return path


def _float(key: str, value: float) -> bytes:
    return text(key) + struct.pack("<If", 6, value)


def _tensors(tokens: int, random: np.random.Generator) -> dict[str, np.ndarray]:
    def weight(*shape: int, scale: float = 0.2) -> np.ndarray:
        return (random.standard_normal(shape) * scale).astype(np.float32)

    ones = np.ones(WIDTH, np.float32)
    keys, values = STATE * GROUPS, STATE * RANK
    tensors = {
        "token_embd.weight": weight(tokens, WIDTH).astype(np.float16),
        "output_norm.weight": ones,
    }
    for layer in range(LAYERS):
        block = {
            "attn_norm.weight": ones,
            "post_attention_norm.weight": ones,
            "ffn_gate.weight": weight(FEED, WIDTH),
            "ffn_up.weight": weight(FEED, WIDTH),
            "ffn_down.weight": weight(WIDTH, FEED),
        }
        if (layer + 1) % 4 == 0:
            block |= {
                "attn_q.weight": weight(HEAD * HEADS * 2, WIDTH),
                "attn_k.weight": weight(HEAD * KV_HEADS, WIDTH),
                "attn_v.weight": weight(HEAD * KV_HEADS, WIDTH),
                "attn_output.weight": weight(WIDTH, HEAD * HEADS),
                "attn_q_norm.weight": np.ones(HEAD, np.float32),
                "attn_k_norm.weight": np.ones(HEAD, np.float32),
            }
        else:
            block |= {
                "attn_qkv.weight": weight(2 * keys + values, WIDTH),
                "attn_gate.weight": weight(values, WIDTH),
                "ssm_conv1d.weight": weight(2 * keys + values, KERNEL, scale=0.5),
                "ssm_dt.bias": weight(RANK),
                "ssm_a": -np.abs(weight(RANK, scale=0.5)),
                "ssm_beta.weight": weight(RANK, WIDTH),
                "ssm_alpha.weight": weight(RANK, WIDTH),
                "ssm_norm.weight": np.ones(STATE, np.float32),
                "ssm_out.weight": weight(WIDTH, values),
            }
        tensors |= {f"blk.{layer}.{name}": values_ for name, values_ in block.items()}
    return tensors


def _tokenizer_pairs(data: bytes) -> tuple[list[bytes], int]:
    """Return the `tokenizer.` pairs of a GGUF file, byte for byte, and the number of tokens."""
    _, count = struct.unpack_from("<QQ", data, 8)
    place, found, tokens = 24, [], 0
    for _ in range(count):
        start = place
        (length,) = struct.unpack_from("<Q", data, place)
        key = data[place + 8 : place + 8 + length].decode()
        (kind,) = struct.unpack_from("<I", data, place + 8 + length)
        value = place + 12 + length
        place = _skip(data, kind, value)
        if key == "tokenizer.ggml.tokens":
            (tokens,) = struct.unpack_from("<Q", data, value + 4)
        if key.startswith("tokenizer.") and key != "tokenizer.chat_template":
            found.append(data[start:place])
    return found, tokens


def _skip(data: bytes, kind: int, place: int) -> int:
    if kind == STRING:
        return place + 8 + struct.unpack_from("<Q", data, place)[0]
    if kind != ARRAY:
        return place + SCALARS[kind]
    inner, count = struct.unpack_from("<IQ", data, place)
    place += 12
    if inner in SCALARS:
        return place + count * SCALARS[inner]
    for _ in range(count):
        place = _skip(data, inner, place)
    return place
