# SPDX-License-Identifier: Apache-2.0
"""
The folder beside a world in which it is made: one process at a time, and nothing idle stays.

It is named like the world with ``.work`` behind. No PyTorch, so that much is refused at once.
"""
import fcntl
import os
from pathlib import Path
import shutil
from typing import Optional, Sequence, TextIO, Type

from lingbot_world_ros.errors import shown, SpecError

WORK, PART = '.work', '.part'  # beside the folder that is made
LOCK = 'lock'
REQUEST = 'request.json'  # whole once the recordings are aligned
TOOK_LONG = ('checkpoint.pt', 'poses.npy', 'run/checkpoint.pt')


def check_out(out: Path) -> None:
    """
    Refuse a folder that a world cannot be written to.

    :param out: folder of a world, new
    :raises SpecError: it is there already, or cannot be made where it is wanted
    """
    if os.path.lexists(out):
        kind = 'exists already' if out.is_dir() else 'is a file'
        raise SpecError(f'{shown(out)} {kind}; name another folder with -o, or delete it.')
    parent = Path(os.path.abspath(out)).parent
    while not os.path.lexists(parent):
        parent = parent.parent
    if not parent.is_dir():
        raise SpecError(f'{shown(out)} cannot be made: {shown(parent)} is no folder.')
    if not os.access(parent, os.W_OK | os.X_OK):
        raise SpecError(f'{shown(out)} cannot be made: {shown(parent)} cannot be written to.')


class WorkFolder:
    """A work folder held by this process; a context manager that lets go of it."""

    def __init__(self, out: Path) -> None:
        """
        Name it.

        :param out: folder of the world
        """
        self.out = out
        self.path = out.with_name(f'{out.name}{WORK}')
        self._lock: Optional[TextIO] = None

    def __enter__(self) -> 'WorkFolder':
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / LOCK).open('w')
        except OSError as error:
            raise SpecError(f'{shown(self.path)} cannot be written ({error.strerror}).') from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._lock.close()
            raise SpecError(f'{shown(self.out)} is being learned by another process; wait for it, '
                            'or name another folder with -o.') from error
        return self

    def __exit__(self, kind: Optional[Type[BaseException]], *_: object) -> None:
        is_refused = kind is not None and issubclass(kind, SpecError)
        if not _has_any(self.path, TOOK_LONG if is_refused else (REQUEST, *TOOK_LONG)):
            self.delete()
        if self._lock is not None:
            self._lock.close()

    def clear(self) -> None:
        """Delete what is in it, of other recordings for one."""
        for path in self.path.iterdir():
            if path.name != LOCK:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def delete(self) -> None:
        """Delete it."""
        shutil.rmtree(self.path, ignore_errors=True)


def has_results(out: Path) -> bool:
    """
    Tell whether an attempt left something to go on from.

    :param out: folder of the world
    :return: whether it did
    """
    return _has_any(out.with_name(f'{out.name}{WORK}'), (REQUEST, *TOOK_LONG))


def _has_any(folder: Path, names: Sequence[str]) -> bool:
    return any((folder / name).is_file() for name in names)
