# SPDX-License-Identifier: Apache-2.0
"""Several processes as one: their lines with a name before them, one end for all."""
import os
import selectors
import signal
import subprocess
import sys
import time
from typing import Dict, Sequence

CHECK_PERIOD_S = 0.1
GRACE_S = 15.0  # for ending, before a process is killed


def run_together(commands: Dict[str, Sequence[str]]) -> int:
    """
    Run commands until one of them ends or this process is asked to; then end all.

    :param commands: name -> arguments
    :return: exit code of the one that ended first, 0 after Ctrl-C or SIGTERM
    """
    group = _Group()
    before = {number: signal.signal(number, group.stop)
              for number in (signal.SIGINT, signal.SIGTERM)}
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

    def __init__(self):
        self._processes, self._selector = [], selectors.DefaultSelector()
        self._stopped = False
        self._code = self._killed_at_s = None

    def start(self, name, command):
        # In a session of its own: Ctrl-C comes here only, and is passed on in order.
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, start_new_session=True)
        self._processes.append(process)
        for pipe, target in ((process.stdout, sys.stdout), (process.stderr, sys.stderr)):
            self._selector.register(pipe, selectors.EVENT_READ, _Lines(f'[{name}] ', target))

    def stop(self, *_):
        self._stopped = True

    def run(self) -> int:
        while self._selector.get_map():
            for key, _ in self._selector.select(CHECK_PERIOD_S):
                data = os.read(key.fd, 65536)
                key.data.show(data)
                if not data:
                    self._selector.unregister(key.fileobj)
            self._end_if_due()
        return self._code

    def kill(self):
        for process in self._processes:
            process.kill()
            process.wait()
            process.stdout.close()
            process.stderr.close()
        self._selector.close()

    def _end_if_due(self):
        if self._code is None:
            codes = [p.poll() for p in self._processes if p.poll() is not None]
            if not codes and not self._stopped:
                return
            self._code = 0 if self._stopped else codes[0]
            if self._code < 0:  # by a signal; as shells tell it
                self._code = 128 - self._code
            self._killed_at_s = time.monotonic() + GRACE_S
            for process in self._processes:
                process.terminate()
        elif time.monotonic() > self._killed_at_s:
            for process in self._processes:
                process.kill()


class _Lines:
    """Shows whole lines only, so that those of several processes do not mix."""

    def __init__(self, prefix, target):
        self._prefix, self._target, self._rest = prefix, target, ''

    def show(self, data: bytes):
        """Take what was read; nothing means the end."""
        *lines, self._rest = (self._rest + data.decode(errors='replace')).split('\n')
        if not data and self._rest:
            lines, self._rest = [self._rest], ''
        for line in lines:
            print(f'{self._prefix}{line}', file=self._target, flush=True)
