"""Wrong facts of the machine choose a model that is killed for memory, or one far too small."""

import psutil
import pytest

from qwenterm.models.hardware import detect

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path):
    """A root with `proc` and `sys` of our own: limits cannot be set without privileges."""

    def build(cgroup: str, files: dict[str, str]):
        (tmp_path / "proc/self").mkdir(parents=True)
        (tmp_path / "proc/self/cgroup").write_text(cgroup)
        for name, content in files.items():
            path = tmp_path / "sys/fs/cgroup" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content + "\n")
        return detect(tmp_path)

    return build


def test_this_machine():
    hardware = detect()
    assert GIB // 4 < hardware.ram_bytes <= psutil.virtual_memory().total
    assert 0 < hardware.available_bytes <= hardware.ram_bytes
    assert hardware.cpu_count >= 1
    for gpu in hardware.gpus:
        assert 0 <= gpu.free <= gpu.total


def test_a_limit_of_cgroup_v2_counts_wherever_it_is_set(machine):
    hardware = machine(
        "0::/user.slice/app.scope\n",
        {
            "user.slice/app.scope/memory.max": "max",
            "user.slice/app.scope/cpu.max": "max 100000",
            "user.slice/memory.max": str(GIB),
            "user.slice/memory.current": str(GIB // 2),
            "user.slice/memory.stat": f"anon 5\ninactive_file {GIB // 4}\n",
            "user.slice/cpu.max": "100000 100000",
        },
    )
    assert hardware.ram_bytes == GIB
    assert hardware.available_bytes == GIB - GIB // 4
    assert hardware.cpu_count == 1


def test_a_limit_of_cgroup_v1_counts(machine):
    hardware = machine(
        "5:cpu,cpuacct:/job\n4:memory:/job\n0::/\n",
        {
            "memory/job/memory.limit_in_bytes": str(GIB),
            "memory/job/memory.usage_in_bytes": str(GIB // 8),
            "memory/memory.limit_in_bytes": "9223372036854771712",
            "cpu,cpuacct/job/cpu.cfs_quota_us": "50000",
            "cpu,cpuacct/job/cpu.cfs_period_us": "100000",
        },
    )
    assert hardware.ram_bytes == GIB
    assert hardware.available_bytes == GIB - GIB // 8
    assert hardware.cpu_count == 1


def test_in_a_container_the_path_is_the_hosts_and_the_limit_is_at_the_mount(machine):
    hardware = machine("0::/docker/abc\n", {"memory.max": str(GIB), "memory.current": "0"})
    assert hardware.ram_bytes == GIB


def test_no_limit_and_no_cgroups_mean_the_whole_machine(machine):
    hardware = machine("garbage\n0::/\n", {"memory.max": "max", "cpu.max": "max 100000"})
    assert hardware.ram_bytes == psutil.virtual_memory().total
