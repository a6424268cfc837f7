"""How much memory a process of its own took."""

import re
import sys
from pathlib import Path


def peak() -> int:
    """The most memory that this process was resident in, in bytes.

    On Linux not from getrusage, which starts with the memory of the process that started it.
    """
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        assert found
        return int(found[1]) * 1024
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
