# SPDX-License-Identifier: Apache-2.0
"""Exporting graphs without warnings that look like failures and are none."""
from contextlib import contextmanager
from typing import Iterator
import warnings


@contextmanager
def quiet_export() -> Iterator[None]:
    """Silence what the exporter says of itself, and of slices that it leaves as they are."""
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', 'Constant folding', UserWarning)
        warnings.filterwarnings('ignore', 'You are using the legacy TorchScript-based ONNX export',
                                DeprecationWarning)
        yield
