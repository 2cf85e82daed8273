# SPDX-License-Identifier: Apache-2.0
"""The pages of the documentation, taken apart: headings, links, blocks of code and their marks."""
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
import re
from typing import Dict, List, Tuple

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / 'docs'
FENCE = re.compile(r'^( *)(```+)(.*)$')
MARK = re.compile(r'^ *<!-- (needs|heavy|given|save): (.+?) -->\s*$')


def pages() -> List[Path]:
    """List the README and all pages below docs/."""
    return [ROOT / 'README.md', *sorted(path for path in DOCS.rglob('*.md')
                                        if '_build' not in path.relative_to(DOCS).parts)]


def name_of(path: Path) -> str:
    """Name a page the way a reader looks for it."""
    return path.relative_to(ROOT).as_posix()


@dataclass(frozen=True)
class Block:
    """A fenced block: where it begins, its info string, its text and the marks above it."""

    page: Path
    line: int
    kind: str
    text: str
    marks: Dict[str, str] = field(default_factory=dict)

    def __str__(self):
        return f'{name_of(self.page)}:{self.line}'

    @property
    def needs(self) -> Tuple[str, ...]:
        """What it is marked to need."""
        return tuple(word.strip() for word in self.marks.get('needs', '').split(',') if word)


@dataclass(frozen=True)
class Page:
    """A page: its blocks of code, and its other lines by number."""

    path: Path
    blocks: Tuple[Block, ...]
    lines: Tuple[Tuple[int, str], ...]

    @property
    def anchors(self) -> set:
        """What a link may name behind the #, as GitHub and Sphinx write headings."""
        found = []
        for _, line in self.lines:
            heading = re.match(r'#{1,6} +(.*?)[ #]*$', line)
            if heading:
                slug = _slug(heading[1])
                count = sum(re.fullmatch(f'{re.escape(slug)}(-\\d+)?', a) is not None
                            for a in found)
                found.append(f'{slug}-{count}' if slug in found else slug)
        return set(found)

    @property
    def links(self) -> List[Tuple[int, str]]:
        """Line and target of every link and image outside of code."""
        found = []
        for number, line in self.lines:
            text = re.sub(r'`[^`]*`', '', line)
            found += [(number, target) for target in
                      re.findall(r'\]\(\s*<?([^)>\s]*)>?(?:\s+"[^"]*")?\s*\)', text)]
            found += [(number, target) for target in
                      re.findall(r'(?:src|href)="([^"]+)"', text)]
            found += [(number, target) for target in
                      re.findall(r'^\[[^\]]+\]:\s+(\S+)', text)]
        return found


@lru_cache(maxsize=None)
def read(path: Path) -> Page:
    """
    Take a page apart.

    :param path: of a Markdown file
    :return: the page
    """
    blocks, lines, marks, fence = [], [], {}, None
    for number, line in enumerate(path.read_text(encoding='utf-8').splitlines(), 1):
        opening = FENCE.match(line)
        if fence is None and opening:
            indent, ticks, info = opening.groups()
            fence = indent, ticks, Block(path, number, info.strip(), '', marks), []
        elif fence is not None and opening and opening[2] == fence[1] and not opening[3].strip():
            indent, _, block, text = fence
            blocks.append(Block(path, block.line, block.kind, '\n'.join(text), block.marks))
            fence, marks = None, {}
        elif fence is not None:
            fence[3].append(line[len(fence[0]):] if line.startswith(fence[0]) else line)
        else:
            mark = MARK.match(line)
            marks = {**marks, mark[1]: mark[2]} if mark else marks if not line.strip() else {}
            lines.append((number, line))
    assert fence is None, f'{fence[2]}: the block has no end'
    return Page(path, tuple(blocks), tuple(lines))


def _slug(heading):
    text = re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', heading).replace('`', '')
    return re.sub(r'[^\w\- ]', '', text.strip().lower()).replace(' ', '-')
