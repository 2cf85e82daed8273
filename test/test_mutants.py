# SPDX-License-Identifier: Apache-2.0
"""Tests of the mutation run: what it changes, what it leaves, and that it sees a weak test."""
import ast
import importlib.util
from importlib.util import find_spec
from pathlib import Path
import subprocess
import sys

import pytest
from waiting import START_PATIENCE_S as PATIENCE_S

PATH = Path(__file__).resolve().parent.parent / 'tools' / 'mutants.py'
spec = importlib.util.spec_from_file_location('mutants', PATH)
mutants = importlib.util.module_from_spec(spec)
spec.loader.exec_module(mutants)


def changes(code):
    """Return before -> after of every change of a function's body."""
    mutator = mutants.Mutator('some/file.py')
    mutator.visit_module(ast.parse(f'def f(a, b):\n    {code}\n'))
    return {(m.before, m.after) for m in mutator.found}


@pytest.mark.parametrize('code, before, after', [
    ('return a - b', 'a - b', 'a + b'), ('return a * b', 'a * b', 'a / b'),
    ('return -a', '-a', 'a'), ('return a < b', 'a < b', 'a >= b'),
    ('return a is None', 'a is None', 'a is not None'),
    ('return a and b', 'a and b', 'a or b'), ('return not a', 'not a', 'a'),
    ('return min(a, b)', 'min(a, b)', 'max(a, b)'), ('return np.sin(a)', 'np.sin(a)', 'np.cos(a)'),
    ('return a if b else 1', 'a if b else 1', 'a if not b else 1'), ('a += b', 'a += b', 'a -= b'),
    ('return 2.5', '2.5', '3.5'), ('return 1e3', '1000.0', '2000.0'),
    ('return True', 'True', 'False')])
def test_a_change_of_each_kind_is_made(code, before, after):
    """Signs, operators, comparisons, conditions, bounds and numbers."""
    assert (before, after) in changes(code)


@pytest.mark.parametrize('code', [
    "raise ValueError(f'{a - b} is too much')", "return f'{a + 1}'", "return 'x' + a",
    'return a'])
def test_words_of_messages_are_left_alone(code):
    """What is said to people is no arithmetic."""
    assert not changes(code)


def test_one_wanted_change_is_made_and_no_other():
    """The n-th change of a file, as the list of all has it."""
    code = 'def f(a, b):\n    return a + b * 2\n'
    found = mutants.Mutator('x.py')
    found.visit_module(ast.parse(code))
    made = {ast.unparse(mutants.Mutator('x.py', m.index).visit_module(ast.parse(code)))
            for m in found.found}
    assert made == {'def f(a, b):\n    return a - b * 2', 'def f(a, b):\n    return a + b / 2',
                    'def f(a, b):\n    return a + b * 3'}


END_TO_END = """
import sys
sys.path.insert(0, 'tools')
from pathlib import Path
import subprocess
import sys
import mutants
mutants.NOTES = Path(sys.argv[1])
names = [name for name in mutants.unit_tests()['session/pacing.py'] if 'pacing' in name]
notes = mutants.notes_of(names)
sign = next(m for m in mutants.mutants_of('session/pacing.py')
            if m.where == 'ChunkPacer._due_ns' and '+' in m.before)
tests = mutants.tests_of(sign, notes)
assert tests and not mutants.run(None, tests)
assert mutants.run(sign, tests)
assert notes == mutants.notes_of(names)  # from the file
"""


def test_a_change_is_noticed_by_the_tests_of_its_function(tmp_path):
    """End to end for one sign: the tests that run it fail with it and pass without."""
    root = PATH.parents[1]
    if root not in Path(find_spec('lingbot_world_ros').origin).parents:
        pytest.skip('what is installed runs here, and the sources are what is changed')
    # A process of its own, because it forks: no thread of another test may be in it.
    done = subprocess.run([sys.executable, '-c', END_TO_END, tmp_path / 'mutants.json'], cwd=root,
                          capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stdout + done.stderr
