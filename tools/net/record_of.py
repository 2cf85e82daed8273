# SPDX-License-Identifier: Apache-2.0
"""Messages and answers as flat tables of values that can be compared, told and kept as JSON."""
import array
import hashlib
import json

import numpy as np

LONG = 64  # numbers; of longer arrays the digest and the mean are kept
FEW = 8  # messages within a message; of longer lists the length, the digest and the last are kept
DIGITS = 12  # of a digest


def digest_of(content: bytes) -> str:
    """Return a short digest."""
    return hashlib.sha256(content).hexdigest()[:DIGITS]


def text_digest(text: str) -> str:
    """Return a short digest of a text."""
    return digest_of(text.encode())


class Flattener:
    """
    Turn messages into flat tables: path of a field -> number, text or list of numbers.

    Folders that differ between two runs are replaced by names, so that texts can be compared.
    """

    def __init__(self, folders=()):
        """
        Prepare.

        :param folders: pairs of a folder's path and the name that stands for it
        """
        self._folders = sorted(folders, key=lambda pair: -len(pair[0]))

    def text(self, text: str) -> str:
        """Return a text without the folders of this machine."""
        for folder, name in self._folders:
            text = text.replace(folder, name)
        return text

    def table(self, msg) -> dict:
        """
        Flatten a ROS message, a response or a goal.

        :param msg: anything with ``get_fields_and_field_types``
        :return: path -> value; stamps are nanoseconds
        """
        values = {}
        self._add(values, '', msg)
        return values

    def _add(self, values, path, value):
        if hasattr(value, 'get_fields_and_field_types'):
            fields = value.get_fields_and_field_types()
            if list(fields) == ['sec', 'nanosec']:
                values[path] = value.sec * 1_000_000_000 + value.nanosec
                return
            for name in fields:
                self._add(values, f'{path}.{name}' if path else name, getattr(value, name))
        elif isinstance(value, (str, bool, int, float)):
            values[path] = self._leaf(value)
        elif isinstance(value, bytes):
            values[path] = value.hex()
        elif isinstance(value, (array.array, np.ndarray)):
            values[path] = self._numbers(np.asarray(value))
        elif not len(value) or not hasattr(value[0], 'get_fields_and_field_types'):
            values[path] = [self._leaf(item) for item in value]
        else:
            self._add_list(values, path, value)

    def _add_list(self, values, path, messages):
        values[f'{path}.len'] = len(messages)
        first = 0
        if len(messages) > FEW:
            first = len(messages) - 1
            tables = [self.table(item) for item in messages]
            values[f'{path}.all'] = text_digest(json.dumps(tables))
        for index in range(first, len(messages)):
            name = f'{path}[{index}]' if len(messages) <= FEW else f'{path}[last]'
            self._add(values, name, messages[index])

    def _leaf(self, value):
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, float):
            return number(value)
        return value

    @staticmethod
    def _numbers(values):
        if values.size <= LONG:
            return [number(float(value)) if values.dtype.kind == 'f' else int(value)
                    for value in values.ravel()]
        finite = values[np.isfinite(values)] if values.dtype.kind == 'f' else values
        mean = float(finite.mean()) if finite.size else 0.0
        return f'{digest_of(values.tobytes())} n={values.size} mean={mean:.9g}'


def number(value: float):
    """Return a float as JSON has it; what JSON lacks becomes a text."""
    return value if np.isfinite(value) else str(value)


def changes(before: dict, after: dict) -> dict:
    """
    Return what differs between two tables.

    :return: path -> new value, None for what is gone
    """
    changed = {path: value for path, value in after.items()
               if path not in before or before[path] != value}
    changed.update({path: None for path in before if path not in after})
    return changed
