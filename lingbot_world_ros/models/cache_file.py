# SPDX-License-Identifier: Apache-2.0
"""Files that are slow to make and can be made again; several processes may share them."""
import hashlib
import os
from pathlib import Path
import tempfile
from typing import Optional

from lingbot_world_ros.paths import CACHE

DIGEST_BYTES = hashlib.sha256().digest_size


def read_checked(name: str) -> Optional[bytes]:
    """
    Read what ``write_checked`` kept.

    :param name: of the file, below ``paths.CACHE``
    :return: its content; None if it is not there or not what was written
    """
    try:
        kept = (Path(CACHE).expanduser() / name).read_bytes()
    except (OSError, RuntimeError):  # the latter: nobody knows where home is
        return None
    digest, content = kept[:DIGEST_BYTES], kept[DIGEST_BYTES:]
    return content if hashlib.sha256(content).digest() == digest else None


def write_checked(name: str, content: bytes) -> None:
    """
    Keep content with its checksum, where that can be: no home, or a full disk, is no error.

    :param name: of the file, below ``paths.CACHE``
    :param content: to keep
    """
    try:
        replace_file(Path(CACHE).expanduser() / name,
                     hashlib.sha256(content).digest() + content)
    except (OSError, RuntimeError):
        pass  # it is made again next time


def replace_file(path: Path, content: bytes) -> None:
    """
    Write a file that is there as a whole or not at all.

    :param path: of the file, whose folder is made
    :param content: to write
    :raises OSError: if the disk does not take it
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, suffix='.part')
    try:
        with os.fdopen(descriptor, 'wb') as file:
            file.write(content)
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
