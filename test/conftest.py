# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""
from contextlib import suppress
import os

# One thread per process: tests run side by side, and two threads of torch wait for each other
# as soon as something else runs. What a test starts inherits it.
for name in ('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'):
    os.environ.setdefault(name, '1')

# Triton crashes when it is loaded behind the software renderer of MuJoCo, which brings another
# LLVM. Most tests load it late or not at all; in one process the order must not matter.
with suppress(ImportError):
    import triton  # noqa: F401

# Files that take longest, in seconds of a 2-core machine; they begin first, so that none is left
# running alone at the end.
LONG = {}


def pytest_collection_modifyitems(items):
    """Put long files first."""
    items.sort(key=lambda item: -LONG.get(item.path.stem, 0))  # stable: others stay in order
