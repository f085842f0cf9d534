"""What a process asks of the machine before torch is there; ranks inherit it by the environment."""

import ctypes
import os

MALLOPT = {  # options of glibc's mallopt and their values in bytes, by the variable that glibc reads when it starts
    "MALLOC_MMAP_THRESHOLD_": (-3, 2**25),  # the most that every glibc takes
    "MALLOC_TRIM_THRESHOLD_": (-1, 2**30),
}


def share_cores() -> None:
    """Let waiting threads spin briefly, then sleep, unless the user has chosen; read when torch is imported.

    Without any spinning a thread sleeps between every two operations, which halves the speed of an idle machine; with
    OpenMP's own long spinning it takes a shared machine's cores (docs/benchmarks/threads.md).
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & set(os.environ):
        os.environ.update(OMP_WAIT_POLICY="passive", GOMP_SPINCOUNT="10000")


def keep_memory() -> None:
    """Keep up to a GiB that tensors have freed, unless the user has chosen; other C libraries do not know the question.

    By itself glibc gives large tensors back to the system and asks for them again in every operation, which then waits
    for the system to clear their pages (docs/benchmarks/memory.md).
    """
    if set(MALLOPT) & set(os.environ):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for name, (option, size) in MALLOPT.items():
        os.environ[name] = str(size)  # of processes that this one starts
        if mallopt is not None:
            mallopt(option, size)
