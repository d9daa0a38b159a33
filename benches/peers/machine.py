"""Where a figure was measured."""

import os
import platform
from pathlib import Path


def load_average() -> float:
    return os.getloadavg()[0]


def describe(threads: int, load_before: float) -> str:
    """One line about the processor and who else wanted it."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0] if names else cpu
    return f"{threads} threads of {os.cpu_count()} cores ({cpu}); load average {load_before:.1f} before, {load_average():.1f} after."
