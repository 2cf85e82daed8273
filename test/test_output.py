# SPDX-License-Identifier: Apache-2.0
"""Full disks, closed pipes and closed terminals under what a process prints."""
import os
from pathlib import Path
import pty
import subprocess
import sys

from lingbot_world_ros.cli import layout
from lingbot_world_ros.cli.main import main
from lingbot_world_ros.output import CLOSED_PIPE, UNWRITABLE
import pytest
from waiting import PATIENCE_S

COMMAND = [sys.executable, '-m', 'lingbot_world_ros.cli']
FULL = '/dev/full'
PRINT = ('import sys; from lingbot_world_ros.output import begin_output, OutputLost\n'
         'begin_output({is_needed})\n'
         'try:\n'
         '    for number in range(30000):\n'
         '        print("a line", number)\n'
         '    sys.stdout.flush()\n'
         'except OutputLost as lost:\n'
         '    print(lost, lost.is_closed_pipe, file=sys.stderr)\n')
REASONS = {'full': 'No space left on device False', 'pipe': 'Broken pipe True', 'closed': None}

pytestmark = pytest.mark.skipif(not os.path.exists(FULL), reason='/dev/full is a Linux thing')


def run(command, stdout, stderr=subprocess.PIPE, environment=()):
    """Run a command whose output goes nowhere: 'full', a 'pipe' without a reader, or 'closed'."""
    if stdout == 'closed':
        command = ['sh', '-c', 'exec "$@" >&- <&-', 'sh', *command]
    reader, writer = os.pipe()
    os.close(reader)
    full = os.open(FULL, os.O_WRONLY)
    try:
        done = subprocess.run(
            command, stdout={'full': full, 'pipe': writer}.get(stdout), text=True,
            stderr=full if stderr == 'full' else stderr, timeout=PATIENCE_S,
            env={**os.environ, **dict(environment)})
    finally:
        os.close(writer)
        os.close(full)
    return done.returncode, done.stderr


@pytest.mark.parametrize('unbuffered', ['', '1'])
@pytest.mark.parametrize('stdout', REASONS)
def test_what_only_prints_is_told_once_and_what_does_not_goes_on(stdout, unbuffered):
    environment = {'PYTHONUNBUFFERED': unbuffered}.items()
    command = [sys.executable, '-c', PRINT.format(is_needed=True)]
    reason = REASONS[stdout]
    told = '' if reason is None else f'standard output cannot be written: {reason}\n'
    assert run(command, stdout, environment=environment) == (0, told)
    command[-1] = PRINT.format(is_needed=False)
    assert run(command, stdout, environment=environment) == (0, '')
    assert run(command, stdout, 'full', environment=environment) == (0, None)


def test_a_terminal_that_is_closed_ends_nothing():
    ours, theirs = pty.openpty()
    code = ('import sys; from lingbot_world_ros.output import begin_output\n'
            'begin_output(is_needed=False)\nprint("up", sys.stdout.isatty(), flush=True)\n'
            'sys.stdin.readline()\nfor _ in range(100): print("a line", flush=True)\n')
    with subprocess.Popen([sys.executable, '-c', code], stdin=subprocess.PIPE, stdout=theirs,
                          stderr=theirs) as process:
        os.close(theirs)
        said = b''
        while not said.endswith(b'\n'):  # it may come in pieces
            said += os.read(ours, 1000)
        assert said.strip() == b'up True'
        os.close(ours)
        process.communicate(b'\n', timeout=PATIENCE_S)
    assert process.returncode == 0


def test_characters_that_an_encoding_lacks_are_spelled_out():
    code = ('from lingbot_world_ros.output import begin_output\nbegin_output()\n'
            'print("caf\\u00e9 \\U0001f642")')
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True,
                          env={**os.environ, 'PYTHONIOENCODING': 'ascii'}, timeout=PATIENCE_S)
    assert (done.stdout, done.stderr) == ('caf\\xe9 \\U0001f642\n', '')


@pytest.mark.parametrize('arguments', [['layout', 'rviz'], ['--help'], ['--version'],
                                       ['sim', '--help'], ['doctor']])
def test_a_command_that_only_prints_ends_with_its_output(arguments):
    assert run([*COMMAND, *arguments], 'pipe') == (CLOSED_PIPE, '')
    assert run([*COMMAND, *arguments], 'full') == (
        UNWRITABLE, 'error: standard output cannot be written: No space left on device\n')


def test_a_full_disk_is_one_sentence_whatever_is_written(monkeypatch, capsys):
    monkeypatch.setattr(layout, 'run', lambda args: Path(FULL).write_text('x' * 100_000))
    assert main(['layout', 'rviz']) == 2
    assert capsys.readouterr().err == 'error: a file cannot be written: No space left on device.\n'


def test_a_file_is_written_whether_it_can_be_told_or_not(tmp_path):
    for number, stdout in enumerate(REASONS):
        path = tmp_path / f'{number}.rviz'
        assert run([*COMMAND, 'layout', 'rviz', '-o', str(path)], stdout) == (0, '')
        assert path.stat().st_size > 1000
