# SPDX-License-Identifier: Apache-2.0
"""The attacked process seen from outside: requests, findings, memory, threads, log."""
from dataclasses import dataclass
import marshal
import os
from pathlib import Path
import re
import select
import struct
import subprocess
import sys
import time

from fuzz.texts import make_traps, SECRET
from fuzz.values import plain

TEST = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 120.0  # guards against hanging
ANSWER_TIMEOUT_S = 60.0
MAX_CASE = 700  # characters of a reproduction that are printed
MAX_ERROR = 600  # characters of what is told about a refusal
CHATTER = ('[rcl_lifecycle]', 'Unable to start transition', 'use_sim_time', 'unknown or expired')
LINES_PER_S = 5.0
MAX_LINE = 700  # characters of a line of the log, with time, node and place


@dataclass(frozen=True)
class Finding:
    """Something that must not be: which case did it, and what."""

    target: str
    case: object
    problem: str

    @property
    def kind(self):
        """What two findings of the same defect have in common, more or less."""
        return self.target, re.sub(r'[\d.]+|/\S+', '#', self.problem)[:30]

    def __str__(self):
        case = repr(self.case)
        if len(case) > MAX_CASE:
            case = f'{case[:MAX_CASE]} ... ({len(case)} characters)'
        return f'{self.problem[:2000]}\n    ({self.target!r}, {case}),'


class Died(Exception):
    """The attacked process ended or does not answer any more."""


class System:
    """
    One attacked process.

    A context manager; ``call`` asks it through its side door, and returns what is wrong.
    """

    def __init__(self, root: Path, graph='', ros_args=(), domain=0, state='paused',
                 slow_s=ANSWER_TIMEOUT_S):
        """
        Start it.

        :param root: empty folder for traps and logs
        :param graph: '' for no ROS, else what ``AttackedGraph`` takes
        :param ros_args: for both nodes
        :param domain: ROS domain
        :param state: in which the world begins
        :param slow_s: a request that takes longer is a finding
        """
        self._slow_s = slow_s
        root.mkdir(parents=True, exist_ok=True)
        self.folders = make_traps(root)
        self._log_path = root / 'log.txt'
        self._log_at = self._num_lines = 0
        self._started_s, self._has_ros = time.monotonic(), bool(graph)
        path = os.pathsep.join(filter(None, (str(TEST), os.environ.get('PYTHONPATH'))))
        environment = {**os.environ, 'ROS_LOG_DIR': str(root / 'ros'), 'PYTHONPATH': path,
                       'MALLOC_ARENA_MAX': '1', 'ROS_DOMAIN_ID': str(domain),
                       'RCUTILS_COLORIZED_OUTPUT': '0'}
        with self._log_path.open('wb') as log:
            self._process = subprocess.Popen(
                [sys.executable, '-m', 'fuzz.child'], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=log, env=environment, cwd=root)
        try:
            self._send({'graph': graph, 'ros_args': list(ros_args), 'state': state,
                        'folders': self.folders})
            self.pid = self._receive(START_TIMEOUT_S)['pid']
        except Died as error:
            self.close()
            raise Died(f'{error}\n{self.log_tail()}') from error

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End it."""
        try:
            self._process.stdin.close()
            self._process.wait(5.0)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def call(self, target, case):
        """
        Ask through the side door.

        :param target: name of a method there
        :param case: plain data
        :return: the answer, and what is wrong with it ('' if nothing)
        :raises Died: no answer
        """
        self._send([target, self.filled_in(plain(case))])
        answer = self._receive(ANSWER_TIMEOUT_S)
        return answer, self._wrong_with(answer)

    def filled_in(self, case):
        """Put the real folders into plain data."""
        if isinstance(case, str):
            for name, folder in self.folders.items():
                case = case.replace(name, folder)
        elif isinstance(case, dict):
            case = {key: self.filled_in(value) for key, value in case.items()}
        elif isinstance(case, list):
            case = [self.filled_in(value) for value in case] if len(case) < 1000 else case
        return case

    def _wrong_with(self, answer) -> str:
        text = answer.get('text', '')
        if answer.get('outcome') in ('failed', 'broken'):
            return f'{answer["outcome"]}: {text}\n{answer.get("traceback", "")}'
        if answer.get('trespasses'):
            return f'touched {"; ".join(answer["trespasses"])}'
        if answer.get('seconds', 0.0) > self._slow_s:
            return f'took {answer["seconds"]:.1f} s'
        if answer.get('outcome') == 'refused':
            return self.wrong_text(text)
        if SECRET in str(text) or 'root:x:' in str(text):
            return f'told what is in a file that may not be read: {text[:300]}'
        return self.touched()

    def wrong_text(self, text) -> str:
        """Say what is wrong with an error message."""
        if SECRET in text or 'root:x:' in text:
            return f'told what is in a file that may not be read: {text[:300]}'
        if len(text) > MAX_ERROR:
            return f'an error of {len(text)} characters: {text[:100]} ...'
        if any(c in text for c in '\n\r\x1b') or not text.strip():
            return f'an error that is not one line: {text[:300]!r}'
        return ''

    def touched(self) -> str:
        """Say whether something was executed that makes a file."""
        marker = Path(self.folders['{outside}']) / 'touched'
        return f'{marker} was made: something was executed' if marker.exists() else ''

    def wrong_log(self) -> str:
        """Say what is wrong with what was logged since the last call."""
        with self._log_path.open('rb') as file:
            file.seek(self._log_at)
            new = file.read()
        self._log_at += len(new)
        text = new.decode(errors='replace')
        if 'Traceback' in text:
            at = text.index('Traceback')
            return f'a traceback in the log:\n{text[max(at - 500, 0):at + 3000]}'
        # Parts of ROS itself log what they were sent, as often as they are sent it.
        lines = [line for line in text.split('\n') if not any(word in line for word in CHATTER)]
        longest = max(map(len, lines))
        self._num_lines += len(lines) - 1
        elapsed_s = time.monotonic() - self._started_s
        if self._has_ros and self._num_lines > LINES_PER_S * (elapsed_s + 10.0):
            return f'{self._num_lines} lines in the log after {elapsed_s:.0f} s: {text[-1000:]}'
        if longest > MAX_LINE:
            return f'a line of {longest} characters in the log: {text[:300]!r}'
        if SECRET in text:
            return 'the log tells what is in a file that may not be read'
        return ''

    def log_tail(self) -> str:
        """Return the end of the log."""
        return self._log_path.read_text(errors='replace')[-3000:]

    def usage(self) -> dict:
        """Return resident memory [MB], number of threads and of open files."""
        proc = Path(f'/proc/{self.pid}')
        pages = int((proc / 'statm').read_text().split()[1])
        return {'rss_mb': pages * os.sysconf('SC_PAGE_SIZE') / 1e6,
                'threads': len(list((proc / 'task').iterdir())),
                'files': len(list((proc / 'fd').iterdir()))}

    def _send(self, data):
        content = marshal.dumps(data)
        try:
            self._process.stdin.write(struct.pack('I', len(content)) + content)
            self._process.stdin.flush()
        except OSError as error:
            raise Died(self._epitaph()) from error

    def _receive(self, timeout_s):
        self._deadline_s = time.monotonic() + timeout_s
        return marshal.loads(self._read(struct.unpack('I', self._read(4))[0]))

    def _read(self, size):
        content = b''
        while len(content) < size:
            left_s = max(self._deadline_s - time.monotonic(), 0.0)
            if not select.select([self._process.stdout], [], [], left_s)[0]:
                raise Died('no answer: it hangs')
            piece = os.read(self._process.stdout.fileno(), size - len(content))
            if not piece:
                raise Died(self._epitaph())
            content += piece
        return content

    def _epitaph(self):
        try:
            code = self._process.wait(5.0)
        except subprocess.TimeoutExpired:
            code = 'unknown'
        return f'the process ended (exit code {code})'
