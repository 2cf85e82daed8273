# SPDX-License-Identifier: Apache-2.0
"""
A report as one HTML file that needs nothing else: no script, no request, light and dark.

What comes from outside is escaped by Jinja; only figures of ``figures.py`` are put in as they are.
"""
from dataclasses import dataclass, field
from pathlib import Path
from typing import Dict, List, Sequence, Tuple

from jinja2 import Environment, select_autoescape, StrictUndefined
from lingbot_world_ros.environment import environment
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import write_whole
from markupsafe import Markup

GENERATOR = 'lingbot-world report'  # by which a file of ours is known
HEAD_BYTES = 2000  # in which that is found
MAX_TEXT = 2000  # characters of what a file tells about its machine


class Block:
    """A part of a section; ``kind`` says how the template shows it."""

    kind = ''


@dataclass
class Chart(Block):
    """A figure with a heading and one or two sentences; ``svg`` is one of ``figures.py``."""

    svg: str
    title: str
    caption: str = ''
    wide: bool = False
    kind = 'chart'

    @property
    def markup(self) -> Markup:
        """The figure, not to be escaped."""
        return Markup(self.svg)


@dataclass
class Table(Block):
    """Rows of texts under a header; a cell may be (text, class)."""

    header: Sequence[str]
    rows: Sequence[Sequence]
    title: str = ''
    caption: str = ''
    folded: bool = False
    kind = 'table'

    @property
    def head(self) -> list:
        """Column names with how they are aligned: as the first row is."""
        first = self.rows[0] if self.rows else ()
        return [(name, 'text' if i < len(first) and not isinstance(first[i], str)
                 and 'text' in first[i][1] else '') for i, name in enumerate(self.header)]


@dataclass
class Strip(Block):
    """Rows of pictures (data URIs), each with a label, under column titles."""

    columns: Sequence[str]
    rows: Sequence[Tuple[str, Sequence[str]]]
    title: str = ''
    caption: str = ''
    kind = 'strip'


@dataclass
class Animation(Block):
    """An animation (see ``pictures.Movie``) with labels over its halves."""

    movie: object
    labels: Sequence[str]
    title: str = ''
    caption: str = ''
    kind = 'animation'


@dataclass
class Picture(Block):
    """One large picture (data URI)."""

    src: str
    title: str
    caption: str = ''
    kind = 'picture'


@dataclass
class Paragraph(Block):
    """A paragraph; ``tone`` '' or 'warn'."""

    text: str
    tone: str = ''
    kind = 'paragraph'


@dataclass
class Commands(Block):
    """Command lines with what they are."""

    lines: Sequence[Tuple[str, str]]
    kind = 'commands'


@dataclass
class Section:
    """A heading, an introduction and blocks."""

    title: str
    blocks: List[Block] = field(default_factory=list)
    text: str = ''


@dataclass
class Tile:
    """A number worth a look; ``tone`` '', 'good' or 'warn'."""

    label: str
    value: str
    note: str = ''
    tone: str = ''


@dataclass
class Page:
    """Everything a report says."""

    title: str
    subtitle: str
    lead: Sequence[str]
    facts: Sequence[Tuple[str, str]]
    tiles: Sequence[Tile]
    sections: Sequence[Section]


def render(page: Page) -> str:
    """
    Turn a report into HTML.

    :param page: what it says
    :return: the file's text
    """
    jinja = Environment(autoescape=select_autoescape(default_for_string=True, default=True),
                        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = jinja.from_string(Path(__file__).with_name('template.html').read_text())
    return template.render(page=page, generator=GENERATOR)


def environment_table(made_by: dict, what: str) -> Table:
    """
    Lay out on what the run and this report were made.

    :param made_by: what ``environment()`` told then, maybe read from a file that somebody sent;
        {} if it is not known
    :param what: name of the run's column
    :return: both side by side
    """
    now = _environment_rows(environment())
    then = _environment_rows(made_by) if made_by else dict.fromkeys(now, 'not known')
    return Table(('', what, 'this report'), [
        (name, (then[name], 'text'), (value, 'text')) for name, value in now.items()])


def _environment_rows(made_by: dict) -> Dict[str, str]:
    def of(name: str, otherwise: str = '') -> str:
        return str(made_by.get(name) or otherwise)[:MAX_TEXT]

    packages = made_by.get('packages')
    packages = packages if isinstance(packages, dict) else {}
    return {'time': of('time_utc'), 'processor': of('processor'),
            'cores, memory': f'{of("cores", "?")}, {of("memory_gib", "?")} GiB, {of("machine")}',
            'system': of('system'), 'Python': of('python'),
            'ROS distribution': of('ros_distro', 'none sourced'),
            'git commit': of('git_commit', 'not known'),
            'packages': ', '.join(f'{name} {version}' for name, version in packages.items())
            [:MAX_TEXT]}


def check_target(path: Path, force: bool) -> None:
    """
    Refuse to write where something else is.

    :param path: of the HTML file
    :param force: overwrite whatever is there
    :raises SpecError: a file that is no report of ours, or no folder to write to
    """
    if path.is_dir():
        raise SpecError(f'{path} is a folder; name an .html file with -o.')
    if not path.parent.is_dir():
        raise SpecError(f'There is no folder {path.parent}; make it, or name another file with '
                        '-o.')
    if not path.exists() or force:
        return
    try:
        with path.open('rb') as file:
            ours = f'content="{GENERATOR}"'.encode() in file.read(HEAD_BYTES)
    except OSError as error:
        raise SpecError(f'{path} cannot be read ({error.strerror}); name another file with -o.') \
            from error
    if not ours:
        raise SpecError(f'{path} was not written by "lingbot-world report"; name another file '
                        'with -o, or overwrite it with --force.')


def write(text: str, path: Path) -> None:
    """
    Write a file in one go: there is the old one or the new one.

    :param text: its text
    :param path: of the file
    :raises SpecError: it cannot be written
    """
    try:
        write_whole(path, text)
    except OSError as error:
        raise SpecError(f'{path} cannot be written ({error.strerror}); name another file with '
                        '-o.') from error
