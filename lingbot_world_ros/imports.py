# SPDX-License-Identifier: Apache-2.0
"""Import a package without a large part of it that a running world does not need."""
from importlib import import_module
import sys
from types import ModuleType


def import_without(package: str, part: str) -> ModuleType:
    """
    Import a package that catches it when one of its modules cannot be imported.

    The part can still be imported afterwards, by its own name.

    :param package: name of the package
    :param part: full name of the module to leave out; one that is there already stays
    :return: the package, whole where it does not get on without the part
    :raises ImportError: there is no such package
    """
    if package in sys.modules or part in sys.modules:
        return import_module(package)
    sys.modules[part] = None  # type: ignore[assignment]  # how Python marks what is not there
    try:
        return import_module(package)
    except ImportError:
        del sys.modules[part]
        return import_module(package)
    finally:
        if sys.modules.get(part, part) is None:
            del sys.modules[part]
