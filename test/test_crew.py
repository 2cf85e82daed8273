# SPDX-License-Identifier: Apache-2.0
"""Workers in other processes: answers, errors, and that they get lost."""
import os
import signal
import subprocess
import sys

from lingbot_world_ros.crew import open_crew, WorkerLost
from lingbot_world_ros.errors import SpecError
import pytest

PLACES = [None, 'local']


@pytest.fixture(params=PLACES, ids=['processes', 'ray'])
def crew(request):
    """Open a crew of each kind."""
    if request.param is not None:
        pytest.importorskip('ray')
    with open_crew(2, request.param) as crew:
        yield crew


def test_a_worker_holds_an_object_and_answers(crew):
    worker = crew.hire(dict, a=1)
    worker.ask('update', b=2)
    assert worker.answer() is None
    worker.ask('get', 'b')
    assert crew.wait([worker]) == [worker] and worker.answer() == 2
    worker.ask('get', 'c', 3)
    assert worker.answer() == 3


def test_what_is_raised_there_is_raised_here(crew):
    worker = crew.hire(dict)
    worker.ask('pop', 'nothing')
    with pytest.raises(KeyError, match='nothing'):
        worker.answer()
    worker.ask('setdefault', 'it', 'goes on')
    assert worker.answer() == 'goes on'
    failing = crew.hire(int, 'no number')
    for _ in range(2):
        failing.ask('bit_length')
        with pytest.raises(ValueError, match='no number'):
            failing.answer()


def test_a_worker_that_is_killed_is_told_and_another_one_takes_over(crew):
    workers = [crew.hire(__import__, 'os') for _ in range(2)]
    for worker in workers:
        worker.ask('getpid')
    first, second = (worker.answer() for worker in workers)
    assert first != second and os.getpid() not in (first, second)
    workers[0].ask('kill', first, signal.SIGKILL)
    workers[1].ask('getpid')
    with pytest.raises(WorkerLost):
        workers[0].answer()
    assert workers[1].answer() == second
    workers[0].ask('getpid')  # asked when it is long gone
    with pytest.raises(WorkerLost):
        workers[0].answer()
    workers[0].kill()
    third = crew.hire(__import__, 'os')
    third.ask('getpid')
    assert third.answer() not in (first, second)


def test_the_main_module_is_not_imported_again():
    done = subprocess.run([sys.executable, '-'], input='\n'.join((
        'from lingbot_world_ros.crew import open_crew', 'crew = open_crew(1)',
        'worker = crew.hire(int, "7")', 'worker.ask("bit_length")', 'print(worker.answer())')),
        capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ('3\n', '')


def test_what_cannot_be_a_crew_is_refused_in_words():
    from importlib.util import find_spec
    with pytest.raises(SpecError, match='workers=0 must be at least 1'):
        open_crew(0)
    if find_spec('ray') is None:
        with pytest.raises(SpecError, match='needs the Python package ray'):
            open_crew(1, 'local')
