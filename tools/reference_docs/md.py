# SPDX-License-Identifier: Apache-2.0
"""Markdown that GitHub and Sphinx show alike."""
import re

NOTE = '<!-- written by make reference; do not edit -->\n'


def page(title: str, *blocks: str) -> str:
    """
    Put a page together.

    :param title: of the page
    :param blocks: Markdown, in order; empty ones are left out
    :return: Markdown with one line break at its end
    """
    return '\n\n'.join([f'# {title}', NOTE.rstrip(), *(b.strip() for b in blocks if b)]) + '\n'


def code(text) -> str:
    """
    Show text as code, also in a table.

    :param text: anything; empty gives an empty cell
    :return: Markdown
    """
    text = str(text).replace('|', '\\|')
    return f'`{text}`' if text else ''


def prose(text: str) -> str:
    """
    Keep what is not code from being read as Markdown: stars, underscores, angle brackets.

    :param text: plain text, with or without parts in backquotes
    :return: Markdown of one line
    """
    parts = re.split(r'(`[^`]*`)', ' '.join(text.split()))
    return ''.join(part.replace('|', '\\|') if part.startswith('`') else
                   re.sub(r'[\\*<>|\[\]~]|(?<!\w)_|_(?!\w)', r'\\\g<0>', part) for part in parts)


def table(head: tuple, rows) -> str:
    """
    Make a table.

    :param head: titles of the columns
    :param rows: tuples of Markdown, one line each
    :return: Markdown
    """
    lines = [head, ('---',) * len(head), *rows]
    return '\n'.join(f'| {" | ".join(cells)} |'.replace('|  |', '| |').replace('|  |', '| |')
                     for cells in lines)
