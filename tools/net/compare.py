# SPDX-License-Identifier: Apache-2.0
"""Two recordings beside each other: what differs, and whether that is meant."""
from dataclasses import dataclass
import difflib
import fnmatch
from pathlib import Path

SHOWN = 160  # characters of a value
MOST = 12  # differences that are told of one scenario, unless all are asked for
LINES = 40  # of a text


@dataclass(frozen=True)
class Difference:
    """Where something differs, in a path that rules can match, and how."""

    place: str
    text: str

    def __str__(self):
        return f'{self.place}: {self.text}'


@dataclass
class Rule:
    """A difference that is meant: patterns of place and text, and why."""

    place: str
    text: str
    reason: str
    uses: int = 0

    def fits(self, difference) -> bool:
        """Return whether a difference is this one."""
        return (fnmatch.fnmatchcase(difference.place, self.place)
                and fnmatch.fnmatchcase(difference.text, self.text))


def read_rules(path: Path) -> list:
    """
    Read a list of differences that are meant.

    :param path: file with lines ``place | text | reason``; the first two are patterns with ``*``
        and ``?``. Empty lines and lines that begin with ``#`` are left out
    :return: the rules
    """
    rules = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if not line.strip() or line.lstrip().startswith('#'):
            continue
        parts = [part.strip() for part in line.split(' | ')]
        if len(parts) != 3 or not all(parts):
            raise SystemExit(f'error: {path}, line {number}: expected "place | text | reason".')
        rules.append(Rule(*(part.replace('[', '[[]') for part in parts[:2]), parts[2]))
    return rules


def report(before: dict, after: dict, allow=(), tell_all=False) -> int:
    """
    Tell what differs between two recordings.

    :param before: recording
    :param after: recording
    :param allow: files of differences that are meant
    :param tell_all: print every difference
    :return: exit code: 1 if anything differs that is not meant
    """
    rules = [rule for path in allow for rule in read_rules(path)]
    if before['about'].get('packages') != after['about'].get('packages'):
        print(f'note: recorded with {before["about"]} and {after["about"]}.')
    num_bad = num_same = 0
    names = list(dict.fromkeys([*before['scenarios'], *after['scenarios']]))
    for name in names:
        pair = before['scenarios'].get(name), after['scenarios'].get(name)
        if None in pair:
            found = [Difference(name, f'recorded only {"after" if pair[0] is None else "before"}')]
        else:
            found = list(differences(name, *pair))
        bad = []
        for difference in found:
            rule = next((rule for rule in rules if rule.fits(difference)), None)
            if rule is None:
                bad.append(difference)
            else:
                rule.uses += 1
        num_same += not found
        num_bad += len(bad)
        if bad:
            print(f'{name}: {len(bad)} differences')
            for difference in bad if tell_all else bad[:MOST]:
                print(f'  {difference}')
            if len(bad) > MOST and not tell_all:
                print(f'  ... and {len(bad) - MOST} more (--all)')
    for rule in rules:
        print(f'meant ({rule.uses} times): {rule.place} | {rule.text} | {rule.reason}')
    print(f'{num_same} of {len(names)} scenarios are the same; '
          f'{num_bad} differences that are not meant.')
    return 1 if num_bad else 0


def differences(place: str, before: dict, after: dict):
    """
    Yield what differs between two records of a scenario.

    :param place: begins the place of each difference
    :param before: record
    :param after: record
    """
    for name, record in (('before', before), ('after', after)):
        if 'error' in record:
            yield Difference(f'{place}/error', f'{name}: {record["error"][-1500:]}')
    for name in dict.fromkeys([*before.get('parts', {}), *after.get('parts', {})]):
        yield from differences(f'{place}/{name}', before['parts'].get(name, {}),
                               after.get('parts', {}).get(name, {}))
    for kind in ('start', 'topics'):
        for key in dict.fromkeys([*before.get(kind, {}), *after.get(kind, {})]):
            pair = before.get(kind, {}).get(key, []), after.get(kind, {}).get(key, [])
            yield from of_messages(f'{place}/{kind}/{key}', *pair)
    yield from of_answers(f'{place}/answers', before.get('answers', []), after.get('answers', []))
    for name in dict.fromkeys([*before.get('texts', {}), *after.get('texts', {})]):
        pair = before.get('texts', {}).get(name, []), after.get('texts', {}).get(name, [])
        yield from of_texts(f'{place}/texts/{name}', *pair)
    for kind in ('values', 'exit code'):
        yield from of_values(f'{place}/{kind}', before.get(kind), after.get(kind))


def of_messages(place, before, after):
    """Yield what differs between the messages of a topic, field by field."""
    if before == after:
        return
    if before and isinstance(before[0], int) or after and isinstance(after[0], int):
        yield Difference(f'{place}/count', f'{before} -> {after}')
        return
    if len(before) != len(after):
        yield Difference(f'{place}/count', f'{len(before)} -> {len(after)} messages')
    num_common, found, tables = min(len(before), len(after)), {}, ({}, {})
    for index in range(num_common):
        for table, records in zip(tables, (before, after)):
            _apply(table, records[index][1])
        for path in dict.fromkeys([*tables[0], *tables[1]]):
            pair = tables[0].get(path), tables[1].get(path)
            if pair[0] != pair[1]:
                first = found.setdefault(path, [0, index, _stamp(tables[0]), *pair])
                first[0] += 1
    for path, (count, index, stamp, one, other) in found.items():
        yield Difference(f'{place}/{path}', f'{_short(one)} -> {_short(other)} in message {index}'
                         f'{stamp}, and differs in {count} of {num_common}')


def of_answers(place, before, after):
    """Yield what differs between the answers of services."""
    for index in range(max(len(before), len(after))):
        one, other = (answers[index] if index < len(answers) else None
                      for answers in (before, after))
        if one is None or other is None or one[0] != other[0]:
            yield Difference(f'{place}/{index}', f'{_short(one and one[0])} -> '
                             f'{_short(other and other[0])}')
            return
        yield from of_values(f'{place}/{index} {one[0][:60]}', one[1], other[1])


def of_texts(place, before, after):
    """Yield the lines that differ."""
    if before == after:
        return
    lines = [line for line in difflib.unified_diff(before, after, lineterm='', n=0)
             if not line.startswith(('---', '+++', '@@'))]
    for line in lines[:LINES]:
        yield Difference(place, line)
    if len(lines) > LINES:
        yield Difference(place, f'... and {len(lines) - LINES} more lines')


def of_values(place, before, after):
    """Yield what differs between nested dictionaries."""
    if isinstance(before, dict) and isinstance(after, dict):
        for key in dict.fromkeys([*before, *after]):
            yield from of_values(f'{place}/{key}', before.get(key), after.get(key))
    elif before != after:
        yield Difference(place, f'{_short(before)} -> {_short(after)}')


def _apply(table, changed):
    for path, value in changed.items():
        if value is None:
            table.pop(path, None)
        else:
            table[path] = value


def _stamp(table):
    for path in ('header.stamp', 'clock', 'transforms[0].header.stamp'):
        if path in table:
            return f' at {table[path] * 1e-9:.3f} s'
    return ''


def _short(value):
    text = str(value)
    return text if len(text) <= SHOWN else f'{text[:SHOWN]}...'
