# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""
from contextlib import suppress

# Triton crashes when it is loaded behind the software renderer of MuJoCo, which brings another
# LLVM. Most tests load it late or not at all; in one process the order must not matter.
with suppress(ImportError):
    import triton  # noqa: F401
