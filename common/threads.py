"""One thread per worker: processes that compute at once should not crowd each other's cores."""

import os

from threadpoolctl import threadpool_limits

# Read when a process first computes: by OpenMP and BLAS, by TensorFlow, and by JAX.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "NPROC"), "1"
)


def use_one_thread() -> None:
    """Let this process, a worker that was just started, compute with one thread."""
    os.environ.update(ONE_THREAD)
    threadpool_limits(1)  # of what was loaded before
