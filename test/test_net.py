# SPDX-License-Identifier: Apache-2.0
"""``tools/net``: what two recordings differ in is told by place, what is meant passes."""
import array
from copy import deepcopy
import json
from pathlib import Path
import subprocess
import sys

import pytest

NET = Path(__file__).resolve().parent.parent / 'tools' / 'net'


@pytest.fixture
def modules(monkeypatch):
    """Return the modules of the program that need no ROS."""
    monkeypatch.syspath_prepend(str(NET))
    import compare
    import record_of
    return compare, record_of


class Point:
    """As much of a ROS message as is looked at."""

    def __init__(self, x, data=(), points=()):
        self.x, self.data, self.points = x, data, points

    def get_fields_and_field_types(self):
        return {'x': 'double', 'data': 'sequence<uint8>', 'points': 'sequence<p/Point>'}


def recording(x=0.1, answer=1, line='a'):
    first, second = {'header.stamp': 0, 'x': 0.0, 'y': 2.0}, {'header.stamp': 500_000_000, 'x': x}
    return {'about': {}, 'scenarios': {'room/drive': {
        'topics': {'odom': [['d0', first], [f'd{x}', second]]},
        'answers': [['step {}', {'result': answer}]], 'texts': {'help': ['-', line]},
        'values': {'speed': {'default': 1.0}}, 'exit code': 0}}}


def write(tmp_path, name, content):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def compared(tmp_path, before, after, *arguments):
    """Compare two recordings; return exit code and what is printed."""
    paths = [write(tmp_path, name, content) for name, content in (('a', before), ('b', after))]
    done = subprocess.run([sys.executable, str(NET), 'compare', *paths, *arguments],
                          capture_output=True, text=True, timeout=60)
    assert not done.stderr, done.stderr
    return done.returncode, done.stdout


def test_the_same_twice_is_no_difference(tmp_path):
    assert compared(tmp_path, recording(), recording()) == (
        0, '1 of 1 scenarios are the same; 0 differences that are not meant.\n')


def test_field_message_stamp_and_values_are_told(tmp_path):
    code, told = compared(tmp_path, recording(), recording(x=0.2, answer=4, line='b'))
    assert code == 1
    assert ('room/drive/topics/odom/x: 0.1 -> 0.2 in message 1 at 0.500 s, and differs in 1 of 2'
            in told)
    assert 'room/drive/answers/0 step {}/result: 1 -> 4' in told
    assert 'texts/help: -a' in told and 'texts/help: +b' in told
    assert '/y' not in told and 'header.stamp:' not in told


def test_what_is_lost_added_or_failed_is_told(tmp_path):
    after = deepcopy(recording())
    scenario = after['scenarios']['room/drive']
    scenario['topics']['odom'].pop()
    scenario['answers'].append(['stop {}', {}])
    scenario['error'] = 'waited in vain'
    del scenario['values']['speed']
    after['scenarios']['room/new'] = {}
    code, told = compared(tmp_path, recording(), after)
    assert code == 1
    for words in ('odom/count: 2 -> 1 messages', 'answers/1: None -> stop', 'waited in vain',
                  'values/speed', 'room/new: recorded only after'):
        assert words in told, told


def test_only_what_the_list_names_passes(tmp_path):
    rules = write(tmp_path, 'rules', '# why\n\nroom/*/odom/x | 0.1 -> * | the wheel was mended\n')
    arguments = '--allow', rules
    code, told = compared(tmp_path, recording(), recording(x=0.2), *arguments)
    assert code == 0 and 'meant (1 times)' in told and 'mended' in told
    assert compared(tmp_path, recording(), recording(x=0.2, line='b'), *arguments)[0] == 1
    assert compared(tmp_path, recording(x=0.3), recording(x=0.2), *arguments)[0] == 1


def test_a_rule_without_a_reason_is_refused(modules, tmp_path):
    compare, _ = modules
    with pytest.raises(SystemExit, match='line 1'):
        compare.read_rules(Path(write(tmp_path, 'rules', 'room/* | *\n')))


def test_tables_hold_values_of_short_fields_and_digests_of_long_ones(modules):
    _, record_of = modules
    flat = record_of.Flattener([('/tmp/x', '<work>'), ('/tmp', '<tmp>')])
    table = flat.table(Point(float('nan'), array.array('B', [1, 2]), [Point(1.5), Point(2.5)]))
    assert table == {'x': 'nan', 'data': [1, 2], 'points.len': 2, 'points[0].x': 1.5,
                     'points[0].data': [], 'points[0].points': [], 'points[1].x': 2.5,
                     'points[1].data': [], 'points[1].points': []}
    long, other = (flat.table(Point(0.0, array.array('B', [value] * 100)))['data']
                   for value in (7, 8))
    assert 'n=100 mean=7' in long and long != other
    many, changed = (flat.table(Point(0.0, (), [Point(float(n)) for n in numbers]))
                     for numbers in (range(20), (*range(9), 5, *range(10, 20))))
    assert many['points[last].x'] == 19.0 and many['points.all'] != changed['points.all']
    assert flat.text('in /tmp/x/a and /tmp/b') == 'in <work>/a and <tmp>/b'


def test_tiny_networks_have_a_shape_for_each_tensor(modules):
    import networks
    parts = networks.read_shapes()
    assert set(parts) == {'network', 'autoencoder', 'text encoder', 'tiny decoder'}
    assert parts['network']['blocks.1.ffn.2.weight'] == (128, 192)
