# SPDX-License-Identifier: Apache-2.0
"""
Hostile values, and messages made of them by their own tables of fields.

A case is plain data (dict, list, str, numbers), so that it can be printed, kept and sent to
another process. ``Long`` keeps what is huge short in print.
"""
from array import array
from functools import lru_cache
from importlib import import_module
import re
from zlib import crc32

from hypothesis import strategies as st
import numpy as np
from simulation_requests import fitting

NAN, INF = float('nan'), float('inf')
FLOATS = (NAN, NAN, NAN, INF, INF, -INF, -0.0, 0.0, 5e-324, -2.2e-308, 1e-9, 0.1, -0.3,
          1.0, -1.0, 1e9, 1e19, -1e150, 1e308, -1e308, 1.7976931348623157e308)
FLOATS_32 = (NAN, 0.0, -0.0, 1e-45, 0.5, -1.0, 3.4e38, -3.4e38)
CHARACTERS = ('a', '0', ' ', '.', '/', '\\', '%', '"', "'", '\n', '\r', '\t', '\x01', '\x1b[31m',
              '\x7f', '\x85', '\u202e', '\u2028', '\ufeff', '\uffff', '\U0010ffff', 'e\u0301',
              '\u0430', '{', '}', '[', ']', '(', ')', '*', '+', '?', '|', '$', '^', ':', '&', '~',
              '{0}', '%s', '%n', '${HOME}', '$(touch x)', '../', 'nan', 'None', '-1')
WORDS = ('', 'a', 'b', 'robot', 'world', 'odom', 'base_link', 'office', 'shoulder_pan_joint',
         'shoulder_lift_joint', 'elbow_joint', 'wrist_joint', 'gripper_joint',
         'Shoulder_Pan_Joint', ' shoulder_pan_joint', 'shoulder_pan_joint ', '__class__',
         'base.linear.x', '../../etc/passwd', '/dev/zero', 'file:///etc/passwd', 'navigation')
PATTERNS = ('(a*)*b', '(a+)+$', '((((((((((a?){9}){9}){9}){9}){9}){9}){9}){9}){9})', '(a|a)*c',
            'a{255}{255}{255}', '(' * 90 + ')' * 90, '[[:alpha:]]*', 'rob[^', '[z-a]', '\\1', '^$',
            '.*' * 90, '(?=a)', '[[=a=]]', 'a{,3}', 'a{99999999999}', '|' * 190, '(|)*',
            '(()*)*')

MAX_REPEATED = 3000
MAX_WEIGHT = 1_000_000  # bytes of a message


class LongText(str):
    """A long text whose ``repr`` is short: a unit, repeated."""

    def __new__(cls, unit, times):
        text = super().__new__(cls, unit * times)
        text.unit, text.times = unit, times
        return text

    def __repr__(self):
        return f'LongText({self.unit!r}, {self.times})'


class LongList(list):
    """A long list whose ``repr`` is short: a unit, repeated."""

    def __init__(self, unit, times):
        super().__init__(unit * times)
        self.unit, self.times = list(unit), times

    def __repr__(self):
        return f'LongList({self.unit!r}, {self.times})'


def plain(case):
    """Return a case as built-in types only, for ``marshal``."""
    if isinstance(case, dict):
        return {str(key): plain(value) for key, value in case.items()}
    if isinstance(case, (list, tuple)):
        return [plain(value) for value in case]
    return str.__str__(case) if isinstance(case, str) else case


def rarely(strategy, otherwise, one_in=20):
    """Draw from the first strategy now and then, else from the other."""
    return st.integers(1, one_in).flatmap(lambda n: strategy if n == one_in else otherwise)


def long_texts(megabytes=1.0):
    """Texts of some kilobytes, sometimes up to ``megabytes``."""
    sizes = rarely(st.just(int(megabytes * 1e6)), st.integers(200, 20_000), 8)
    return st.builds(lambda unit, size: LongText(unit, max(size // len(unit), 1)),
                     st.sampled_from([c for c in CHARACTERS if c.strip()]), sizes)


texts = rarely(long_texts(), st.one_of(
    st.sampled_from(WORDS), st.sampled_from(PATTERNS),
    st.lists(st.sampled_from(CHARACTERS), max_size=12).map(''.join),
    st.text(st.characters(exclude_characters='\0', exclude_categories=['Cs']), max_size=20)))
floats = st.one_of(st.sampled_from(FLOATS), st.sampled_from(FLOATS), st.floats(),
                   st.floats(-2.0, 2.0))
floats_32 = st.one_of(st.sampled_from(FLOATS_32), st.floats(width=32, allow_infinity=False))


def integers(bits, signed):
    """Integers of a width, most of them near an end of it or near zero."""
    low, high = (-2 ** (bits - 1), 2 ** (bits - 1) - 1) if signed else (0, 2 ** bits - 1)
    ends = [n for n in (low, low + 1, -1, 0, 1, 2, 3, 4, 5, 7, 8, 100, 255, high // 2, high - 1,
                        high, 999_999_999, 1_000_000_000) if low <= n <= high]
    return st.one_of(st.sampled_from(ends), st.integers(low, high))


SCALARS = {'boolean': st.booleans(), 'double': floats, 'float': floats_32, 'string': texts,
           'wstring': texts, 'octet': integers(8, False), 'byte': integers(8, False),
           'char': integers(8, False),
           **{f'{"" if signed else "u"}int{bits}': integers(bits, signed)
              for bits in (8, 16, 32, 64) for signed in (True, False)}}


@lru_cache(None)
def message_type(name):
    """Return a type by its name: ``geometry_msgs/Twist``, ``pkg/srv/Name.Request``."""
    package, *_, name = name.split('/')
    name = name.replace('.', '_')  # X.Request is X_Request, parts of actions likewise
    for kind in ('msg', 'srv', 'action'):
        try:
            module = import_module(f'{package}.{kind}')
        except ModuleNotFoundError:
            continue
        if hasattr(module, name):
            return getattr(module, name)
        inner = re.sub('(?<!^)([A-Z])', r'_\1', name.partition('_')[0]).lower()
        try:
            return getattr(import_module(f'{package}.{kind}._{inner}'), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    raise LookupError(name)


@lru_cache(None)
def fields(name):
    """Return field -> (element type, 'one' | 'list' | fixed length) of a type."""
    table = {}
    for field, kind in message_type(name).get_fields_and_field_types().items():
        sequence = re.fullmatch(r'sequence<(.+?)(?:, \d+)?>', kind)
        fixed = re.fullmatch(r'(.+)\[(\d+)\]', kind)
        element = (sequence or fixed or [None, kind])[1]
        table[field] = (re.sub(r'<\d+>', '', element),
                        'list' if sequence else int(fixed[2]) if fixed else 'one')
    return table


@lru_cache(None)
def of_type(kind):
    """Anything a field type can hold."""
    return SCALARS[kind] if kind in SCALARS else st.fixed_dictionaries(
        {}, optional={name: of_field(*entry) for name, entry in fields(kind).items()})


@lru_cache(None)
def of_field(kind, count):
    """Anything a field can hold; lists are short but for a few."""
    one = of_type(kind)
    if count == 'one':
        return one
    if isinstance(count, int):
        return st.lists(one, min_size=count, max_size=count)
    small = st.lists(one, max_size=8)
    if kind == 'string':
        huge = st.builds(LongList, st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
                         st.sampled_from([100, 3000]))
    elif kind in SCALARS:
        huge = st.builds(LongList, st.lists(one, min_size=1, max_size=3),
                         rarely(st.just(300_000), st.sampled_from([100, 5000]), 8))
    else:
        huge = st.builds(LongList, st.lists(one, min_size=1, max_size=2),
                         st.sampled_from([50, 1000]))
    return rarely(huge, small, 25)


@st.composite
def mutated(draw, kind, valid):
    """
    Valid messages with one to three fields changed: what gets past the first check.

    :param kind: name of the type
    :param valid: strategy of plain data that makes valid ones, all fields of interest filled in
    """
    case = fitting(fields(kind), draw(valid))
    for _ in range(draw(st.sampled_from([0, 1, 1, 2, 2, 3, 4]))):
        case = _changed(draw, kind, case)
    return case


def _changed(draw, kind, case):
    table = fields(kind)
    if not table:
        return case
    # What is filled in matters more than what is not.
    name = draw(st.sampled_from([*table, *case, *case]))
    element, count = table[name]
    value = case.get(name)
    if value is None or draw(st.integers(0, 9)) == 0:
        value = draw(of_field(element, count))
    elif count == 'one':
        value = draw(of_type(element)) if element in SCALARS else _changed(draw, element, value)
    elif value:
        value = _changed_list(draw, element, count, list(value))
    else:
        value = draw(of_field(element, count))
    return {**case, name: value}


def _changed_list(draw, element, count, values):
    at = draw(st.integers(0, len(values) - 1))
    how = draw(st.sampled_from(('value', 'value', 'drop', 'double', 'swap', 'cut', 'repeat')))
    if how == 'value' or isinstance(count, int):
        one = (draw(of_type(element)) if element in SCALARS else
               _changed(draw, element, values[at]))
        values[at] = one
    elif how == 'drop':
        del values[at]
    elif how == 'double':
        values.insert(at, values[at])
    elif how == 'swap':
        values[0], values[at] = values[at], values[0]
    elif how == 'cut':
        del values[at:]
    else:
        times = draw(st.sampled_from([2, 3, 50, 700]))
        return LongList(values, max(min(times, MAX_REPEATED // len(values)), 1))
    return values


def weight(case):
    """Return about how many bytes plain data takes."""
    if isinstance(case, str):
        return len(case.encode(errors='replace')) if len(case) < 2 * MAX_WEIGHT else len(case)
    if isinstance(case, LongList):
        return weight(case.unit) * case.times
    if isinstance(case, dict):
        return sum(map(weight, case.values()))
    return sum(map(weight, case)) if isinstance(case, (list, tuple)) else 8


def heavy(kind, limit):
    """Return the heaviest case of a type that ``limit`` allows: one long text or list."""
    for name, (element, count) in fields(kind).items():
        if element == 'string':
            text = LongText('x', limit - 4096)
            return {name: text if count == 'one' else [text]}
        if element in TYPECODES and count == 'list':
            return {name: LongList([0], limit // 8 - 512)}
        if element not in SCALARS:
            inner = heavy(element, limit)
            if inner:
                return {name: inner if count == 'one' else [inner]}
    return {}


TYPECODES = {'double': 'd', 'float': 'f', 'int8': 'b', 'uint8': 'B', 'int16': 'h', 'uint16': 'H',
             'int32': 'i', 'uint32': 'I', 'int64': 'q', 'uint64': 'Q'}
NUMPY = {'double': np.float64, 'float': np.float32}


def message(kind, case):
    """
    Build a message.

    :param kind: name of the type
    :param case: plain data; what it leaves out keeps its default
    :return: the message
    """
    out = message_type(kind)()
    for name, value in fitting(fields(kind), case).items():
        element, count = fields(kind)[name]
        setattr(out, name, _value(element, count, value))
    return out


def checksum(msg):
    """Return a number that tells messages apart; serialized ones are padded with anything."""
    return crc32(repr(msg).encode(errors='replace'))


def _value(element, count, value):
    if count == 'one':
        if element in ('octet', 'byte'):
            return bytes([value])
        if element == 'string':
            return value.encode(errors='replace').decode()
        return value if element in SCALARS else message(element, value)
    if isinstance(count, int) and element in TYPECODES:
        return np.array(value, NUMPY.get(element, element))
    if element in TYPECODES:
        return array(TYPECODES[element], value)
    if element in ('octet', 'byte'):
        return [bytes([v]) for v in value]
    return list(value) if element in SCALARS else [message(element, v) for v in value]


def all_finite(case):
    """Say whether every number in plain data is finite."""
    if isinstance(case, dict):
        return all(map(all_finite, case.values()))
    if isinstance(case, (list, tuple)):
        return all(map(all_finite, case.unit if isinstance(case, LongList) else case))
    return not isinstance(case, float) or -INF < case < INF
