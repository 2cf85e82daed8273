# SPDX-License-Identifier: Apache-2.0
"""
Several processes as one: their lines with a name before them, one end for all.

And what a child that talks to its parent by pickled messages needs.
"""
from contextlib import suppress
import ctypes
import os
import pickle
import queue
import selectors
import signal
import subprocess
import sys
import threading
import time
from typing import Dict, List, Optional, Sequence, TextIO, Tuple

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.output import begin_output

PARENT = 'LINGBOT_WORLD_PARENT'  # environment: process id of who started this one, to end with
PR_SET_PDEATHSIG = 1
CHECK_PERIOD_S = 0.1
GRACE_S = 15.0  # for ending, before a process is killed
PARENT_CHECK_S = 1.0


def ending_signals() -> Tuple[signal.Signals, ...]:
    """
    Return what asks a process to end: Ctrl-C, SIGTERM, and a terminal that is closed.

    The last one not where it is ignored, as ``nohup`` has it.
    """
    asking = signal.SIGINT, signal.SIGTERM
    is_ignored = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return asking if is_ignored else (*asking, signal.SIGHUP)


def run_together(commands: Dict[str, Sequence[str]]) -> int:
    """
    Run commands until one of them ends or this process is asked to; then end all.

    :param commands: name -> arguments
    :return: exit code of the one that ended first, 0 after one of ``ending_signals``
    """
    group = _Group()
    before = {number: signal.signal(number, group.stop) for number in ending_signals()}
    try:
        for name, command in commands.items():
            group.start(name, command)
        return group.run()
    finally:
        group.kill()
        for number, handler in before.items():
            signal.signal(number, handler)


class _Group:
    """The running processes and their pipes."""

    def __init__(self) -> None:
        self._processes: List['subprocess.Popen[bytes]'] = []
        self._selector = selectors.DefaultSelector()
        self._stopped = False
        self._code: Optional[int] = None
        self._killed_at_s = 0.0  # once there is a code

    def start(self, name: str, command: Sequence[str]) -> None:
        # In a session of its own: Ctrl-C comes here only, and is passed on in order.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True,
                                   env={**os.environ, PARENT: str(os.getpid())})
        self._processes.append(process)
        for pipe, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            assert pipe is not None  # it was asked for
            self._selector.register(pipe, selectors.EVENT_READ, _Lines(f'[{name}] ', target))

    def stop(self, *_: object) -> None:
        self._stopped = True

    def run(self) -> int:
        while self._selector.get_map():
            for key, _ in self._selector.select(CHECK_PERIOD_S):
                data = os.read(key.fd, 65536)
                key.data.show(data)
                if not data:
                    self._selector.unregister(key.fileobj)
            self._end_if_due()
        return 0 if self._code is None else self._code

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            for pipe in (process.stdout, process.stderr):
                assert pipe is not None
                pipe.close()
        self._selector.close()

    def _end_if_due(self) -> None:
        if self._code is None:
            codes = [code for p in self._processes if (code := p.poll()) is not None]
            if not codes and not self._stopped:
                return
            code = 0 if self._stopped else codes[0]
            self._code = 128 - code if code < 0 else code  # by a signal: as shells tell it
            self._killed_at_s = time.monotonic() + GRACE_S
            for process in self._processes:
                process.terminate()
        elif time.monotonic() > self._killed_at_s:
            for process in self._processes:
                process.kill()


class _Lines:
    """Shows whole lines only, so that those of several processes do not mix."""

    def __init__(self, prefix: str, target: TextIO) -> None:
        self._prefix, self._target, self._rest = prefix, target, ''

    def show(self, data: bytes) -> None:
        """Take what was read; nothing means the end."""
        *lines, self._rest = (self._rest + data.decode(errors='replace')).split('\n')
        if not data and self._rest:
            lines, self._rest = [self._rest], ''
        for line in lines:
            print(f'{self._prefix}{line}', file=self._target, flush=True)


class Companions:
    """Processes that run beside this one and end with it; a context manager."""

    def __init__(self, commands: Dict[str, Sequence[str]]) -> None:
        """
        Start them.

        :param commands: name -> arguments; their standard output is kept for ``first_line``
        """
        self._processes: Dict[str, 'subprocess.Popen[str]'] = {}
        self._lines: Dict[str, 'queue.Queue[str]'] = {}
        environment = {**os.environ, PARENT: str(os.getpid())}
        for name, command in commands.items():
            # In a session of its own: Ctrl-C comes to this process, which ends them in order.
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, text=True,
                                       stdout=subprocess.PIPE, env=environment,
                                       start_new_session=True, errors='replace')
            self._processes[name], self._lines[name] = process, queue.Queue(1)
            threading.Thread(target=_read, args=(process.stdout, self._lines[name]), name=name,
                             daemon=True).start()

    def __enter__(self) -> 'Companions':
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.terminate()
        end_s = time.monotonic() + GRACE_S
        for process in self._processes.values():
            try:
                process.wait(max(0.0, end_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    @property
    def names(self) -> List[str]:
        """Names of all that run."""
        return list(self._processes)

    def first_line(self, name: str, timeout_s: float) -> str:
        """
        Wait for the first line that one of them prints.

        :param name: of the process
        :param timeout_s: for how long
        :raises SpecError: it ended before, or said nothing
        """
        try:
            line = self._lines[name].get(timeout=timeout_s)
        except queue.Empty:
            line = ''
        if not line:
            with suppress(subprocess.TimeoutExpired):  # its output ends a moment before it does
                self._processes[name].wait(1.0)
            why = '' if self._processes[name].poll() is None else ', see above'
            raise SpecError(f'The {name} did not start{why}.')
        return line.rstrip()

    def ended(self) -> List[Tuple[str, int]]:
        """Return (name, exit code) of those that have ended, each once."""
        codes = {name: process.poll() for name, process in self._processes.items()}
        ended = [(name, code) for name, code in codes.items() if code is not None]
        for name, _ in ended:
            del self._processes[name]
        return ended


def _read(pipe: TextIO, first: 'queue.Queue[str]') -> None:
    """Keep the first line, and let the rest go; an end without one is an empty line."""
    first.put(pipe.readline())
    for _ in pipe:
        pass


def end_with_parent() -> None:
    """Let this process end with the one that started it as a companion, however that ends."""
    parent = os.environ.pop(PARENT, '')
    if not parent:
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):  # it ended before
        raise SystemExit(0)


def begin_as_child() -> None:
    """Let this process, made by multiprocessing, end with its parent; the terminal is not its."""
    begin_output(is_needed=False)
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the parent ends this process
    from multiprocessing import parent_process  # who calls this has imported it
    parent = parent_process()
    # Not asked of the system: it may have ended before this process began.
    pid = os.getppid() if parent is None or parent.pid is None else parent.pid
    threading.Thread(target=_end_with, args=(pid,), daemon=True).start()


def _end_with(parent: int) -> None:
    """A killed parent closes no pipe that a hanging engine would look at."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)


def exit_text(code: Optional[int]) -> str:
    """Say how a process ended, by the exit code that multiprocessing tells."""
    if code is None:
        return 'its pipe closed'
    if code < 0:
        name = signal.Signals(-code).name
        return f'{name}, possibly out of memory' if name == 'SIGKILL' else name
    return f'exit code {code}'


def portable(error: BaseException) -> BaseException:
    """Return the error itself if it survives a pipe, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a foreign class does when pickled
        return RuntimeError(f'{type(error).__name__}: {error}')
    return error
