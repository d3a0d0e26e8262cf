"""The power mode of a Jetson, from the files that its tool `nvpmodel` keeps: nothing is run, root is not needed.

/var/lib/nvpmodel/status holds "pmode:0002"; /etc/nvpmodel.conf lists "< POWER_MODEL ID=2 NAME=MAXN_SUPER >" and the
mode of the first start, "< PM_CONFIG DEFAULT=1 >". Source: NVIDIA Jetson Linux Developer Guide, "nvpmodel".
"""

from __future__ import annotations

import re
from pathlib import Path

from gapcam_bench.telemetry.kernel_file import read_text


def power_mode(root: Path = Path("/")) -> str | None:
    """Its name, such as "15W"; "mode 7" for one without a name; None where nothing says."""
    listed = read_text(root / "etc/nvpmodel.conf") or ""
    found = re.search(r"pmode:(\d+)", read_text(root / "var/lib/nvpmodel/status") or "")
    found = found or re.search(r"^<\s*PM_CONFIG\s+DEFAULT=(\d+)", listed, re.MULTILINE)
    if found is None:
        return None
    number = int(found[1])
    name = re.search(rf"^<\s*POWER_MODEL\s+ID={number}\s+NAME=(\S+)", listed, re.MULTILINE)
    return name[1] if name else f"mode {number}"
