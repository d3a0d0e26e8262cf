"""Which readers a machine has."""

from __future__ import annotations

from pathlib import Path

from gapcam_bench.telemetry.cpu import cpu
from gapcam_bench.telemetry.jetson_stats import jetson_stats
from gapcam_bench.telemetry.jetson_sysfs import jetson_sysfs
from gapcam_bench.telemetry.kernel_file import read_text
from gapcam_bench.telemetry.nvml import nvml
from gapcam_bench.telemetry.rapl import PSYS, rapl
from gapcam_bench.telemetry.reading import Reader
from gapcam_bench.telemetry.thermal import thermal

_THIS_MACHINE = Path("/")
_TEGRA = ("nvidia,tegra", "nvidia,jetson")


def open_readers(root: Path = _THIS_MACHINE) -> list[Reader]:
    """Readers of all that this machine shows; what it does not show is in their `lacking`.

    Args:
        root: the folder in which /sys and /proc lie. Libraries (NVML, jetson-stats) are asked of this machine only.
    """
    here = root == _THIS_MACHINE
    stats = jetson_stats(root) if here and is_jetson(root) else None
    files = jetson_sysfs(root) if is_jetson(root) else rapl(root)
    board = stats if stats is not None and stats.channels else files
    readers: list[Reader] = [cpu(root), thermal(root), board]
    if stats is not None and stats is not board:  # it says why
        readers.append(stats)
    if here:
        readers.append(nvml(containing_gpus(root, board)))
    return readers


def containing_gpus(root: Path, board: Reader) -> str | None:
    """The channel of a board that contains the power of the GPUs that NVML shows, too; None for cards of their own.

    On a Jetson it is the whole board's rail, or else the one with GPU in its name; on a machine with a battery the
    platform's counter, which measures all that runs from it.
    """
    if is_jetson(root):
        rails = [channel for channel in board.channels if channel.quantity == "power" and "GPU" in channel.name]
        return next((rail.part_of or rail.name for rail in rails), None)
    has_psys = any(channel.name == PSYS for channel in board.channels)
    return PSYS if has_psys and _has_battery(root) else None


def is_jetson(root: Path) -> bool:
    """Whether it is one of NVIDIA's boards, by its device tree or the file of Jetson Linux."""
    compatible = read_text(root / "proc/device-tree/compatible") or ""
    return any(name in compatible for name in _TEGRA) or (root / "etc/nv_tegra_release").exists()


def _has_battery(root: Path) -> bool:
    """Of its own: a wireless mouse's is of the scope Device (Documentation/ABI/testing/sysfs-class-power)."""
    return any(
        read_text(at / "type") == "Battery" and read_text(at / "scope") != "Device"
        for at in root.glob("sys/class/power_supply/*")
    )
