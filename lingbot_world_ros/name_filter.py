# SPDX-License-Identifier: Apache-2.0
"""
POSIX extended regular expressions over names, in time linear in the name.

Python's own ``re`` backtracks: one hostile pattern would hold the whole process. Here a pattern
becomes a small machine that is in many states at once (Thompson's construction), so the worst
case is its size times the length of the name; both are limited. No back-references, no groups.
"""
from typing import Tuple

from lingbot_world_ros.errors import SpecError

MAX_PATTERN = 200  # characters
MAX_REPEAT = 255  # RE_DUP_MAX
MAX_PROGRAM = 500  # instructions
ANY = ((0, 0x10FFFF),)

CLASSES = {
    'alpha': 'AZaz', 'digit': '09', 'alnum': 'AZaz09', 'upper': 'AZ', 'lower': 'az',
    'space': '\t\r  ', 'blank': '\t\t  ', 'punct': '!/:@[`{~', 'print': ' ~', 'graph': '!~',
    'cntrl': '\x00\x1f\x7f\x7f', 'xdigit': '09AFaf'}


class NameFilter:
    """A compiled pattern; it matches anywhere in a name unless anchored with ^ and $."""

    def __init__(self, pattern: str):
        """
        Compile.

        :param pattern: POSIX extended regular expression
        :raises SpecError: not one, or too large
        """
        if len(pattern) > MAX_PATTERN:
            raise SpecError(f'The filter has {len(pattern)} characters; at most {MAX_PATTERN} '
                            'are allowed.')
        self._program, self._num_emitted = [], 0
        self._emit(_Parser(pattern).parse())
        self._program.append(('match',))

    def matches(self, name: str) -> bool:
        """Say whether a name fits."""
        states = set()
        for at in range(len(name) + 1):
            self._enter(0, at, len(name), states)
            if len(self._program) - 1 in states:
                return True
            if at < len(name):
                code, following = ord(name[at]), set()
                for state in states:
                    op, *args = self._program[state]
                    if op == 'chars' and _contains(*args, code):
                        self._enter(state + 1, at + 1, len(name), following)
                states = following
        return False

    def _enter(self, state, at, end, states):
        """Add a state and all that are reached from it without reading."""
        todo = [state]
        while todo:
            state = todo.pop()
            if state in states:
                continue
            states.add(state)
            op, *args = self._program[state]
            if op == 'fork':
                todo += args
            elif (op == 'begin' and at == 0) or (op == 'end' and at == end):
                todo.append(state + 1)

    def _emit(self, node):
        """Append the instructions of a node of the syntax tree."""
        self._num_emitted += 1  # of nothing, too: what is empty can be repeated for ever
        if len(self._program) > MAX_PROGRAM or self._num_emitted > 8 * MAX_PROGRAM:
            raise SpecError('The filter repeats too much; write it shorter.')
        kind, *args = node
        if kind == 'all':
            for part in args:
                self._emit(part)
        elif kind == 'either':
            self._emit_either(*args)
        elif kind == 'repeat':
            self._emit_repeat(*args)
        else:
            self._program.append(node)

    def _emit_either(self, left, right):
        fork = self._reserve()
        self._emit(left)
        skip = self._reserve()
        self._program[fork] = ('fork', fork + 1, len(self._program))
        self._emit(right)
        self._program[skip] = ('fork', len(self._program))

    def _emit_repeat(self, part, low, high):
        for _ in range(low):
            self._emit(part)
        if high is None:
            fork = self._reserve()
            self._emit(part)
            self._program.append(('fork', fork))
            self._program[fork] = ('fork', fork + 1, len(self._program))
            return
        forks = []
        for _ in range(high - low):
            forks.append(self._reserve())
            self._emit(part)
        for fork in forks:
            self._program[fork] = ('fork', fork + 1, len(self._program))

    def _reserve(self):
        self._program.append(None)
        return len(self._program) - 1


def _contains(ranges, inverted, code):
    return any(low <= code <= high for low, high in ranges) != inverted


class _Parser:
    """Recursive descent over a pattern; the result is nested tuples."""

    def __init__(self, pattern):
        self._pattern, self._at = pattern, 0

    def parse(self) -> Tuple:
        """Return the syntax tree of the whole."""
        tree = self._either()
        if self._peek():
            raise self._wrong('")" closes nothing')
        return tree

    def _either(self):
        tree = self._all()
        if self._peek() == '|':
            self._next()
            return ('either', tree, self._either())
        return tree

    def _all(self):
        parts = []
        while self._peek() not in ('', '|', ')'):
            parts.append(self._repeated(self._atom()))
        return ('all', *parts)

    def _repeated(self, part):
        while self._peek() and self._peek() in '*+?{':
            char = self._next()
            low, high = {'*': (0, None), '+': (1, None), '?': (0, 1)}.get(char) or self._bounds()
            part = ('repeat', part, low, high)
        return part

    def _bounds(self):
        text = self._until('}', '"{" is never closed')
        low, comma, high = text.partition(',')
        if not all(n.isascii() and n.isdigit() and int(n) <= MAX_REPEAT
                   for n in (low, *([high] if high else []))):
            raise self._wrong(f'{{{text}}} is not {{m}}, {{m,}} or {{m,n}} up to {MAX_REPEAT}')
        least = int(low)
        most = int(high) if high else None if comma else least
        if most is not None and most < least:
            raise self._wrong(f'{{{text}}} ends before it begins')
        return least, most

    def _atom(self):
        char = self._next()
        if char == '(':
            tree = self._either()
            if self._next() != ')':
                raise self._wrong('"(" is never closed')
            return tree
        if char == '[':
            return self._bracket()
        if char in '*+?{':
            raise self._wrong(f'{char!r} repeats nothing')
        if char == '\\':
            char = self._next()
            if not char or char.isalnum():
                raise self._wrong('a backslash takes the meaning of a special character only; '
                                  'for a class write for example [[:digit:]]')
            return _one(char)
        return {'.': ('chars', ANY, False), '^': ('begin',), '$': ('end',)}.get(char) or _one(char)

    def _bracket(self):
        inverted = self._peek() == '^'
        if inverted:
            self._next()
        ranges, first = [], True
        while first or self._peek() != ']':
            first, char = False, self._next()
            if not char:
                raise self._wrong('"[" is never closed')
            if char == '[' and self._peek() and self._peek() in ':.=':
                ranges += self._class()
            elif self._peek() == '-' and self._pattern[self._at + 1:self._at + 2] not in ('', ']'):
                self._next()
                last = self._next()
                if last < char:
                    raise self._wrong(f'the range {char}-{last} ends before it begins')
                ranges.append((ord(char), ord(last)))
            else:
                ranges.append((ord(char), ord(char)))
        self._next()
        return ('chars', tuple(ranges), inverted)

    def _class(self):
        kind = self._next()
        name = self._until(f'{kind}]', f'"[{kind}" is never closed')
        if kind != ':' or name not in CLASSES:
            raise self._wrong(f'[{kind}{name}{kind}] is none of [:{":], [:".join(CLASSES)}:]')
        ends = CLASSES[name]
        return [(ord(a), ord(b)) for a, b in zip(ends[::2], ends[1::2])]

    def _until(self, closing, problem):
        end = self._pattern.find(closing, self._at)
        if end < 0:
            raise self._wrong(problem)
        text, self._at = self._pattern[self._at:end], end + len(closing)
        return text

    def _peek(self):
        return self._pattern[self._at:self._at + 1]

    def _next(self):
        char = self._peek()
        self._at += len(char)
        return char

    def _wrong(self, problem) -> SpecError:
        return SpecError(f'The filter {self._pattern!r} is no POSIX extended regular expression: '
                         f'{problem}.')


def _one(char):
    return ('chars', ((ord(char), ord(char)),), False)
