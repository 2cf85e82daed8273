#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Write the tables of ``docs/reference/`` from the code: ``python tools/reference_docs``.

Nothing in these pages is kept by hand: parameters come from their tables and ``config/``, topics
and services from nodes that are really made, messages, launch arguments and worlds from their
files, verbs from their argument parsers. ``--check`` writes nothing and fails if a page is old.
"""
import argparse
from pathlib import Path
import sys

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.append(str(ROOT))  # what is installed comes first: in a workspace it has the messages

FOLDER = ROOT / 'docs' / 'reference'
COMMAND = 'python tools/reference_docs'


def pages() -> dict:
    """
    Make all pages.

    :return: file name -> Markdown
    """
    import command_line
    import graph
    import launch_files
    import messages
    import parameters
    import worlds
    made = {**parameters.pages(), **graph.pages(), **messages.pages(), **command_line.pages(),
            **launch_files.pages(), **worlds.pages()}
    return {'index.md': index(made), **made}


def index(made: dict) -> str:
    """
    Make the page that leads to the others.

    :param made: file name -> Markdown of each page
    :return: Markdown
    """
    from md import NOTE
    titles = {name: text.splitlines()[0].lstrip('# ') for name, text in made.items()}
    links = '\n'.join(f'- [{title}]({name})' for name, title in titles.items())
    return (f'# Reference\n\n{NOTE}\nTables written from the code by `make reference`; the tests '
            f'compare them with it.\n\n{links}\n')


def outdated(made: dict) -> list:
    """
    Compare the pages with the files.

    :param made: file name -> Markdown
    :return: names of files that are old, missing or not written here
    """
    on_disk = {path.name: path.read_text(encoding='utf-8') for path in FOLDER.glob('*.md')}
    return sorted(name for name in {*made, *on_disk} if made.get(name) != on_disk.get(name))


def write(made: dict, names: list):
    """
    Bring files up to date.

    :param made: file name -> Markdown
    :param names: of the files to write, or to remove where no such page is made
    """
    FOLDER.mkdir(exist_ok=True)
    for name in names:
        if name in made:
            (FOLDER / name).write_text(made[name], encoding='utf-8')
        else:
            (FOLDER / name).unlink()


def main() -> int:
    """Write or check the pages; return the exit code."""
    parser = argparse.ArgumentParser(prog=COMMAND, description='Write docs/reference/ from the '
                                     'code.')
    parser.add_argument('--check', action='store_true',
                        help='write nothing; exit code 1 if a page is not what the code says')
    args = parser.parse_args()
    made = pages()
    names = outdated(made)
    if args.check:
        for name in names:
            print(f'docs/reference/{name} is not what the code says; run "make reference".')
        return 1 if names else 0
    write(made, names)
    print(f'docs/reference/: {len(made)} pages, changed: {", ".join(names) or "none"}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
