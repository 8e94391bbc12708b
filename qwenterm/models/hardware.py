"""What this machine has: memory, cores and GPUs, as far as this process may use them.

Owns the reading of those facts (psutil, the NVIDIA driver's library, cgroup files); what follows
from them is in `fit`. A missing driver or an unreadable file means "none of that", never an error.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

_GPU_BACKENDS = ("cuda", "hip", "vulkan", "metal", "sycl", "musa", "cann", "opencl")


@dataclass(frozen=True)
class Gpu:
    """One NVIDIA GPU; `total` and `free` are bytes of its memory."""

    name: str
    total: int
    free: int


@dataclass(frozen=True)
class Hardware:
    """Memory in bytes; `offload` says whether the installed llama.cpp can use a GPU at all."""

    ram_bytes: int
    available_bytes: int
    gpus: tuple[Gpu, ...]
    cpu_count: int
    offload: bool = True


def detect(root: Path = Path("/")) -> Hardware:
    """Return the facts of this machine, lowered to this process's cgroup limits.

    `root` is where `proc` and `sys` are.
    """
    memory = psutil.virtual_memory()
    total, available = memory.total, memory.available
    for limit, used in _memory_limits(root):
        total = min(total, limit)
        available = min(available, max(limit - used, 0))
    return Hardware(
        ram_bytes=total,
        available_bytes=available,
        gpus=_nvidia_gpus(),
        cpu_count=_cpu_count(root),
        offload=_offload(),
    )


def _nvidia_gpus() -> tuple[Gpu, ...]:
    # The driver's device, also under WSL: without it the library need not be imported (20 ms).
    if not any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg")):
        return ()
    import pynvml  # noqa: PLC0415

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:  # no driver on this machine
        return ()
    found: list[Gpu] = []
    try:
        for index in range(pynvml.nvmlDeviceGetCount()):
            found.append(_gpu(index))
    except pynvml.NVMLError:  # a GPU that does not answer is no GPU to us
        pass
    finally:
        pynvml.nvmlShutdown()
    return tuple(found)


def _gpu(index: int) -> Gpu:
    nvml: Any = importlib.import_module("pynvml")  # the library has no types
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return Gpu(str(nvml.nvmlDeviceGetName(handle)), int(memory.total), int(memory.free))


def _offload() -> bool:
    """Whether the installed llama.cpp was built with a GPU backend: told by its library files.

    Importing it would start the native library in a process that has no business with it.
    """
    spec = importlib.util.find_spec("llama_cpp")
    folders = spec.submodule_search_locations if spec else None
    files = (
        file.name for folder in folders or () for file in (Path(folder) / "lib").glob("*ggml*")
    )
    return any(backend in name for name in files for backend in _GPU_BACKENDS)


def _cpu_count(root: Path) -> int:
    try:
        count = len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        count = os.cpu_count() or 1
    for folder, version in _cgroup_folders(root, "cpu"):
        quota: str | int | None
        if version == 2:
            quota, _, period = (_read(folder / "cpu.max") or "max").partition(" ")
        else:
            quota, period = _read(folder / "cpu.cfs_quota_us"), _read(folder / "cpu.cfs_period_us")
        allowed, unit = _number(quota), _number(period)
        if allowed and unit:
            count = min(count, math.ceil(allowed / unit))
    return max(count, 1)


def _memory_limits(root: Path) -> Iterator[tuple[int, int]]:
    """Yield limit and use in bytes of every cgroup from this process's own up to the root."""
    for folder, version in _cgroup_folders(root, "memory"):
        limit_name, usage_name = (
            ("memory.max", "memory.current")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        limit = _number(_read(folder / limit_name))
        if limit:
            used = _number(_read(folder / usage_name)) or 0
            yield limit, max(used - _page_cache(folder), 0)


def _page_cache(folder: Path) -> int:
    """Return the bytes of file cache that the kernel can take back from a cgroup."""
    for line in (_read(folder / "memory.stat") or "").splitlines():
        key, _, value = line.partition(" ")
        if key in ("inactive_file", "total_inactive_file"):
            return _number(value) or 0
    return 0


def _cgroup_folders(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Yield folder and cgroup version for every level of this process that has `controller`.

    In a container the path may be the host's and absent here; its parents, up to the mount,
    are tried in any case.
    """
    mount = root / "sys/fs/cgroup"
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            base, version = mount, 2
        elif controller in controllers.split(","):
            base, version = mount / controllers, 1
            base = base if base.is_dir() else mount / controller
        else:
            continue
        folder = base / path.lstrip("/")
        while True:
            if folder.is_dir():
                yield folder, version
            if folder == base or base not in folder.parents:
                break
            folder = folder.parent


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None


def _number(text: str | None) -> int | None:
    """Return a positive number, None for `max`, -1 and anything else that is no limit."""
    return int(text) if text and text.isdecimal() and int(text) > 0 else None
