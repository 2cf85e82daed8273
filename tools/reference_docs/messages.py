# SPDX-License-Identifier: Apache-2.0
"""Page about the messages of this package, from the comments in ``msg/`` and ``action/``."""
from pathlib import Path

from md import code, page, prose, table

ROOT = Path(__file__).resolve().parent.parent.parent
PARTS = 'goal', 'result', 'feedback'  # of an action, in the order of its file
INTRO = """
The messages of this package and its action, from their files; `ros2 interface show
lingbot_world_ros/msg/WorldStatus` prints the same text. Axes and units follow REP 103."""


def pages() -> dict:
    """
    Make the page.

    :return: file name -> Markdown
    """
    blocks = [INTRO]
    for path in sorted(ROOT.glob('msg/*.msg')):
        head, told = _message(path.read_text(encoding='utf-8'))
        blocks += [f'## {path.stem}', prose(head), *told]
    for path in sorted(ROOT.glob('action/*.action')):
        texts = path.read_text(encoding='utf-8').split('---\n')
        blocks += [f'## {path.stem}', prose(_message(texts[0])[0])]
        for part, text in zip(PARTS, texts):
            blocks += [f'### {path.stem}: {part}', *_message(text)[1]]
    return {'messages.md': page('Messages', *blocks)}


def _message(text):
    """Return the comment at the top, and the tables of fields and constants."""
    head, entries = read(text)
    constants = [entry for entry in entries if '=' in entry[1]]
    fields = [entry for entry in entries if '=' not in entry[1]]
    blocks = [table(('field', 'type', 'unit and meaning'),
                    [(code(field), code(kind), prose(told)) for kind, field, told in fields])]
    if constants:
        rows = [(code(constant.split('=')[0]), constant.split('=')[1], prose(told))
                for _, constant, told in constants]
        blocks.append(table(('constant', 'value', 'meaning'), rows))
    return head, blocks


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
