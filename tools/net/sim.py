# SPDX-License-Identifier: Apache-2.0
"""Programs under test: started from a given source tree."""
import os
from pathlib import Path
import signal
import subprocess
import sys
import threading
import time

SOURCE_VARIABLE = 'LINGBOT_WORLD_ROS_SOURCE'  # tools/lingbot_world_ros_checkout.py reads it
END_PATIENCE_S = 20.0


def environment(tree: Path, work: Path, domain: int = None) -> dict:
    """
    Return the environment of a program under test.

    :param tree: checkout whose package is run
    :param work: folder for what it writes
    :param domain: ROS domain, None for programs without ROS
    """
    made = {key: value for key, value in os.environ.items()
            if not key.startswith(('ROS_', 'RMW_', 'PYTHONPATH', 'FASTDDS_', 'FASTRTPS_'))}
    made.update({SOURCE_VARIABLE: str(tree / 'lingbot_world_ros'), 'PYTHONUNBUFFERED': '1',
                 'OMP_NUM_THREADS': '1', 'MKL_NUM_THREADS': '1',
                 'COLUMNS': '100', 'LANG': 'C.UTF-8', 'NO_COLOR': '1',
                 'HOME': str(work / 'home'), 'ROS_LOG_DIR': str(work / 'log'),
                 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'})
    if domain is not None:
        made['ROS_DOMAIN_ID'] = str(domain)
    return made


def verb_command(*args: str) -> list:
    """Return the command of ``lingbot-world ARGS``."""
    return [sys.executable, '-m', 'lingbot_world_ros.cli', *args]


class Program:
    """A program that runs until it is asked to end; a context manager."""

    def __init__(self, command, env, cwd):
        """
        Start it.

        :param command: list of arguments
        :param env: its environment
        :param cwd: its folder
        """
        self._process = subprocess.Popen(command, env=env, cwd=cwd, text=True,
                                         stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, errors='replace')
        self.lines = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.end()

    def _read(self):
        for line in self._process.stdout:
            self.lines.append(line.rstrip('\n'))

    @property
    def code(self):
        """Exit code, None while it runs."""
        return self._process.poll()

    def end(self) -> int:
        """Interrupt it as Ctrl-C does and return its exit code."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        try:
            self._process.wait(END_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(END_PATIENCE_S)
        return self._process.returncode

    def wait(self, timeout_s: float) -> int:
        """Wait for its end; kill it after that time."""
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._reader.join(END_PATIENCE_S)
        return self._process.wait()

    def wait_for_line(self, text: str, timeout_s: float) -> str:
        """Return the first line that holds a text."""
        deadline_s, seen = time.monotonic() + timeout_s, 0
        while time.monotonic() < deadline_s:
            for line in self.lines[seen:]:
                seen += 1
                if text in line:
                    return line
            if self.code is not None and not self._reader.is_alive():
                break
            time.sleep(0.02)
        raise RuntimeError(f'it did not say {text!r}: {self.lines[-5:]}')


def run(command, env, cwd, timeout_s: float = 120.0):
    """
    Run a program to its end.

    :return: exit code, standard output, standard error
    """
    try:
        done = subprocess.run(command, env=env, cwd=cwd, text=True, stdin=subprocess.DEVNULL,
                              capture_output=True, errors='replace', timeout=timeout_s)
    except subprocess.TimeoutExpired:
        return None, '', f'not done within {timeout_s:g} s'
    return done.returncode, done.stdout, done.stderr
