# SPDX-License-Identifier: Apache-2.0
"""POSIX extended expressions: agree with Python's where both mean the same, and never hang."""
import random
import re
import sys

from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.messages.name_filter import NameFilter
import pytest
from waiting import no_hang

pytest.importorskip('re2')


@pytest.mark.parametrize('pattern, fits, fits_not', [
    ('robot', ['robot', 'my_robot_2'], ['robo', 'Robot']),
    ('^robot$', ['robot'], ['robots', 'a robot']),
    ('^(robot|toy_box)_?[[:digit:]]+$', ['robot1', 'toy_box_22'], ['robot', 'toy_box_x']),
    ('^[^a-c]*$', ['xyz', ''], ['xaz']),
    ('a{2,3}b', ['aab', 'aaab', 'aaaab'], ['ab']),
    ('^a{2}$', ['aa'], ['a', 'aaa']),
    ('^a{2,}$', ['aa', 'aaaa'], ['a']),
    ('^x?(ab)+c*$', ['ab', 'xababcc'], ['x', 'aba']),
    (r'\.', ['a.b'], ['ab']),
    ('[]x]', [']', 'x'], ['a']),
    ('[a-]', ['-', 'a'], ['b']),
    ('^(|a)$', ['', 'a'], ['b']),
    ('^.[^a].$', ['äöü', 'b\nc'], ['bac', 'ö']),
    ('^a.b$', ['a\ud800b', 'a\0b'], ['ab']),
])
def test_pattern_means_what_posix_says(pattern, fits, fits_not):
    """Names that fit and names that do not."""
    compiled = NameFilter(pattern)
    assert [name for name in fits if not compiled.matches(name)] == []
    assert [name for name in fits_not if compiled.matches(name)] == []


@pytest.mark.parametrize('pattern, fits, fits_not', [
    ('^a{,2}$', ['a{,2}'], ['a', 'aa']),
    ('^a{x}$', ['a{x}'], ['a']),
    ('^a{256}$', ['a' * 256], ['a' * 255]),
    (r'^[\]a]$', [']', 'a'], ['\\']),
    ('^[[.a.]]$', ['a]', '.]'], ['a']),
])
def test_pattern_that_posix_leaves_open_or_reads_otherwise(pattern, fits, fits_not):
    """What RE2 makes of bounds that are none, of more than RE_DUP_MAX, and of brackets."""
    test_pattern_means_what_posix_says(pattern, fits, fits_not)


def random_pattern(rng, depth=0):
    """Make a pattern that means the same to Python."""
    roll = rng.random()
    if depth > 3 or roll < 0.35:
        return rng.choice(['a', 'b', 'c', '.', '[ab]', '[^a]', '[a-c]', r'\.', '^', '$', '_'])
    if roll < 0.55:
        return random_pattern(rng, depth + 1) + random_pattern(rng, depth + 1)
    if roll < 0.7:
        return f'({random_pattern(rng, depth + 1)}|{random_pattern(rng, depth + 1)})'
    repeat = rng.choice(['*', '+', '?', '{2}', '{1,3}', '{0,2}', '{1,}'])
    return f'({random_pattern(rng, depth + 1)}){repeat}'


def test_random_patterns_agree_with_re():
    """The machine and Python's backtracking find the same."""
    rng, compared = random.Random(0), 0
    for _ in range(1000):
        pattern = random_pattern(rng)
        try:
            compiled = NameFilter(pattern)
        except SpecError:
            continue  # too much of it
        for _ in range(3):
            name = ''.join(rng.choice('abc._') for _ in range(rng.randrange(7)))
            expected = re.search(pattern.replace('$', r'\Z'), name) is not None
            assert compiled.matches(name) == expected, (pattern, name)
            compared += 1
    assert compared > 2000


@pytest.mark.parametrize('pattern', [
    '[', '(', 'a)', 'a{3,1}', 'a{1001}', '*a', '+', '{2}', '[]', '[b-a]', '[[:vowel:]]', r'\d',
    r'[\d]', r'\bx', '(?i)a', r'(a)\1', '\\', '(' * 150, '((a{255}){255}){255}',
    '(' * 20 + ')' + '{255})' * 19, '[^a]{1000}' * 20, 'a' * 300])
def test_pattern_that_cannot_be_used_is_refused(pattern):
    """Refused in words, at once."""
    with pytest.raises(SpecError, match='The filter') as refused:
        NameFilter(pattern)
    assert "b'" not in str(refused.value) and len(str(refused.value)) < 400


@pytest.mark.parametrize('pattern', ['(a*)*b', '(a|a)*b', '(a|aa)+$', '(.*)(.*)(.*)(.*)(.*)b',
                                     'a?' * 40 + 'a{40}'])
def test_hostile_pattern_ends(pattern):
    """Patterns on which a backtracking matcher takes years."""
    with no_hang():
        NameFilter(pattern).matches('a' * 64 + 'c')


def test_missing_package_is_named_with_its_install_line(monkeypatch):
    """Who filters names where RE2 is not installed is told what to install."""
    monkeypatch.setitem(sys.modules, 're2', None)
    with pytest.raises(SpecError, match='filter of names needs .* install google-re2'):
        NameFilter('robot')
