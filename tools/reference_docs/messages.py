# SPDX-License-Identifier: Apache-2.0
"""Page about the messages of this package, from the comments in ``msg/``."""
from pathlib import Path

from md import code, page, prose, table

FOLDER = Path(__file__).resolve().parent.parent.parent / 'msg'
INTRO = """
The messages of this package, from their files; `ros2 interface show
lingbot_world_ros/msg/WorldStatus` prints the same text. Axes and units follow REP 103."""


def pages() -> dict:
    """
    Make the page.

    :return: file name -> Markdown
    """
    blocks = [INTRO]
    for path in sorted(FOLDER.glob('*.msg')):
        blocks += _message(path.stem, path.read_text(encoding='utf-8'))
    return {'messages.md': page('Messages', *blocks)}


def _message(name, text):
    head, entries = read(text)
    constants = [entry for entry in entries if '=' in entry[1]]
    fields = [entry for entry in entries if '=' not in entry[1]]
    blocks = [f'## {name}', prose(head),
              table(('field', 'type', 'unit and meaning'),
                    [(code(field), code(kind), prose(told)) for kind, field, told in fields])]
    if constants:
        rows = [(code(constant.split('=')[0]), constant.split('=')[1], prose(told))
                for _, constant, told in constants]
        blocks.append(table(('constant', 'value', 'meaning'), rows))
    return blocks


def read(text: str):
    """
    Read a message file.

    :param text: what the file holds
    :return: the comment at its top; type, name and comment of each field and constant
    """
    head, entries = [], []
    for line in text.splitlines():
        declared, _, comment = line.partition('#')
        if declared.strip():
            kind, name = declared.split(maxsplit=1)
            entries.append([kind, ''.join(name.split()), comment.strip()])
        elif comment and entries and line.startswith(' '):  # the comment goes on
            entries[-1][2] += f' {comment.strip()}'
        elif comment and not entries:
            head.append(comment.strip())
    return ' '.join(head), entries
