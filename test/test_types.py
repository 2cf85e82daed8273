# SPDX-License-Identifier: Apache-2.0
"""What the package says of its types is true, as far as a checker can tell."""
from importlib.util import find_spec
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parent.parent
# The checker, and the libraries whose own types the package is held against.
NEEDED = ('mypy', 'jinja2', 'matplotlib', 'rclpy', 'torch')


def test_types_fit():
    """The checker finds nothing; setup.cfg says how it looks."""
    missing = [name for name in NEEDED if find_spec(name) is None]
    if missing:
        pytest.skip(f'needs {", ".join(missing)}')
    from rclpy.publisher import Publisher
    if not hasattr(Publisher, '__class_getitem__'):
        pytest.skip('needs rclpy of Kilted: before, messages and services have no types there')
    # NumPy for newer Pythons has types in a syntax that the oldest one, of setup.cfg, lacks.
    newer = f'--python-version=3.{sys.version_info.minor}' if sys.version_info >= (3, 12) else ''
    done = subprocess.run(
        [sys.executable, '-m', 'mypy', '--no-error-summary', *filter(None, [newer])], cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f'\n{done.stdout}'
