"""What a process sets before torch is there."""

import subprocess
import sys

import pytest

START = "import os, resource, sys, onex_distill.settings\n"
THREADS = 'print(*(os.environ.get(name) for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")), "torch" in sys.modules)'
FAULTS = """import numpy as np
def pages():
    for _ in range(20):
        np.ones(1_000_000)  # 8 MB, written and freed
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
first = pages()
print(pages() - first)"""


def run(code: str, chosen: dict[str, str]) -> str:
    env = {"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **chosen}
    result = subprocess.run([sys.executable, "-c", START + code], env=env, capture_output=True, text=True, check=True)
    return result.stdout.strip()


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [
        ({}, "passive 10000 False"),
        ({"OMP_WAIT_POLICY": "active"}, "active None False"),
        ({"GOMP_SPINCOUNT": "5"}, "None 5 False"),
    ],
)
def test_threads_spin_briefly_before_torch_is_there_unless_the_user_chose(chosen, expected):
    assert run(THREADS, chosen) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_freed_memory_is_kept_in_this_process_and_in_those_it_starts_unless_the_user_chose():
    started = (
        f"import subprocess; print(subprocess.check_output([sys.executable, '-c', {START + FAULTS!r}], text=True))"
    )
    chosen = {"MALLOC_TRIM_THRESHOLD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072"}
    assert int(run(FAULTS, {})) < 100
    assert int(run(started, {})) < 100
    assert int(run(FAULTS, chosen)) > 1_000
