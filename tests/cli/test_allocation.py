import subprocess
import sys

import pytest

from detr.cli.allocation import keep_freed_memory

PROGRAM = """
import resource
from concurrent.futures import ThreadPoolExecutor
import numpy as np
from detr.cli.allocation import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        several = [np.ones(3 << 20) for _ in range(5)]  # 24 MB each
        del several
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def in_a_thread():
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(faults).result()

before = faults()
print(keep_freed_memory(), before, faults(), in_a_thread())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="of Linux's C library")
def test_memory_that_was_freed_is_not_taken_anew():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    said, before, *after = done.stdout.split()
    if said == "False":
        pytest.skip("another C library than glibc")
    assert all(int(faults) < int(before) / 2 for faults in after)


def test_the_users_own_settings_count_for_more(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert not keep_freed_memory()
