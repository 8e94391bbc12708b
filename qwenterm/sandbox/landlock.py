"""Landlock and seccomp through their system calls, for machines that close user namespaces.

Applied by the launcher to itself before it becomes the command, with no way back. Landlock can
only add rights, so a hidden path is left out by granting its siblings one by one. Numbers and
structures are those of the kernel's `linux/landlock.h`, `linux/seccomp.h` and `linux/filter.h`.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_RULE_PATH_BENEATH = 1
_PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS, _SECCOMP_FILTER = 22, 38, 2

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1, 2, 4, 8
_MAKE_SYM, _REFER, _TRUNCATE, _IOCTL_DEV = 1 << 12, 1 << 13, 1 << 14, 1 << 15
READ = _EXECUTE | _READ_FILE | _READ_DIR
_FILE_RIGHTS = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEV
_NET_TCP = 3  # bind and connect
_SCOPES = 3  # abstract sockets and signals


def abi() -> int:
    """Return the kernel's Landlock version, 0 when it has none."""
    version = _libc().syscall(_CREATE, None, ctypes.c_size_t(0), ctypes.c_uint32(1))
    return max(0, int(version))


def restrict(readable: Sequence[Path], writable: Sequence[Path]) -> None:
    """Confine the calling process for good to reading and writing beneath these paths.

    No TCP and no signals outward where the kernel knows how. Raises OSError when any step fails.
    """
    version = abi()
    if version < 1:
        raise OSError(errno.ENOSYS, "the kernel has no Landlock")
    handled = (1 << 13) - 1
    handled |= _REFER if version >= 2 else 0
    handled |= _TRUNCATE if version >= 3 else 0
    handled |= _IOCTL_DEV if version >= 5 else 0
    attributes = struct.pack("QQQ", handled, _NET_TCP if version >= 4 else 0, _scopes(version))
    size = 24 if version >= 6 else 16 if version >= 4 else 8
    ruleset = _checked(_libc().syscall(_CREATE, attributes, ctypes.c_size_t(size), 0))
    for path in readable:
        _grant(ruleset, path, READ & handled)
    for path in writable:
        # No device nodes may be made; everything else that is handled is granted.
        _grant(ruleset, path, handled & ~(1 << 6) & ~(1 << 11))
    _checked(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc().syscall(_RESTRICT, ruleset, 0))
    os.close(ruleset)


def siblings(hidden: Sequence[Path], folder: Path = Path("/")) -> Iterator[Path]:
    """Yield the paths that together cover `folder` without any of `hidden` (all resolved)."""
    if folder in hidden:
        return
    if not any(folder in path.parents for path in hidden):
        yield folder
        return
    try:
        children = sorted(folder.iterdir())
    except OSError:
        return
    for child in children:
        # A link's target is judged where it lies, so the link itself needs no right.
        if not child.is_symlink():
            yield from siblings(hidden, child)


def forbid_sockets() -> None:
    """Forbid making sockets of any family, io_uring and ptrace; a pair of pipes still works."""
    numbers = {
        "x86_64": (0xC000003E, (41, 425, 101, 310, 311)),
        "aarch64": (0xC00000B7, (198, 425, 117, 270, 271)),
    }.get(platform.machine())
    if numbers is None:
        raise OSError(errno.ENOSYS, f"no list of system calls for {platform.machine()}")
    architecture, calls = numbers
    program = [_filter(0x20, 0, 0, 4), _filter(0x15, 1, 0, architecture), _filter(0x06, 0, 0, 0)]
    program.append(_filter(0x20, 0, 0, 0))
    # x86-64 kernels also answer to the numbers of the x32 ABI: all above this bit.
    program += [_filter(0x35, 0, 1, 0x40000000), _filter(0x06, 0, 0, 0x50000 | errno.EPERM)]
    for call in calls:
        program += [_filter(0x15, 0, 1, call), _filter(0x06, 0, 0, 0x50000 | errno.EACCES)]
    program.append(_filter(0x06, 0, 0, 0x7FFF0000))
    code = ctypes.create_string_buffer(b"".join(program))
    pointer = ctypes.create_string_buffer(
        struct.pack("HxxxxxxP", len(program), ctypes.addressof(code))
    )
    _checked(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
    _checked(_libc().prctl(_PR_SET_SECCOMP, _SECCOMP_FILTER, pointer, 0, 0))


def _filter(code: int, yes: int, no: int, value: int) -> bytes:
    return struct.pack("HBBI", code, yes, no, value)


def _scopes(version: int) -> int:
    return _SCOPES if version >= 6 else 0


def _grant(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except (FileNotFoundError, PermissionError):
        return  # gone meanwhile, or closed to this user anyway
    try:
        if not path.is_dir():
            rights &= _FILE_RIGHTS
        rule = struct.pack("=Qi", rights, descriptor)
        _checked(_libc().syscall(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0))
    finally:
        os.close(descriptor)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(value: int) -> int:
    if value < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return value
