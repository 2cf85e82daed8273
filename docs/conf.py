# SPDX-License-Identifier: Apache-2.0
"""
How Sphinx builds these pages: ``make docs`` writes docs/_build/html.

The pages are Markdown that GitHub shows as it is. What only Sphinx needs is added while it reads
them: the lists of links on index pages become tables of contents, and the page ``overview`` has
the text of README.md.
"""
from pathlib import Path
import re
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
MANIFEST = ElementTree.parse(ROOT / 'package.xml').getroot()

project = MANIFEST.findtext('name')
author = copyright = 'lingbot_world_ros contributors'
version = release = MANIFEST.findtext('version')

extensions = ['myst_parser']
myst_heading_anchors = 4
nitpicky = True
exclude_patterns = ['_build']

html_theme = 'furo'
html_title = project.replace('_', '_\u200b')  # may break there
html_copy_source = False
html_static_path = ['_static']
html_css_files = ['wide.css']


def on_source_read(app, name, source):
    """Add to a page what GitHub does without."""
    text = source[0]
    if name == 'overview':
        app.env.note_dependency(str(ROOT / 'README.md'))
        text = from_here((ROOT / 'README.md').read_text(encoding='utf-8'))
    if name.rpartition('/')[2] == 'index':
        text = '\n'.join(map(with_contents, re.split(r'(?m)^(?=## )', text)))
    source[0] = re.sub(r'\]\(((?:\.\./)*)\.\./README\.md', r'](\1overview.md', text)


def from_here(readme: str) -> str:
    """
    Turn the links of the README into those of a page in this folder.

    :param readme: Markdown
    :return: the same with other links
    """
    outside = re.sub(r'\]\((?!https?:|#|docs/)', '](../', readme)
    return outside.replace('](docs/', '](')


def with_contents(section: str) -> str:
    """
    Add a hidden table of contents to a section.

    :param section: Markdown, heading included
    :return: the same, followed by the pages that its list links to
    """
    pages = [f'{title} <{page}>' for title, page in re.findall(
        r'(?m)^- \[([^\]]+)\]\(([\w/]+)\.md\)', section.replace('../README', 'overview'))]
    heading = re.match(r'## (.*)', section)
    options = [':hidden:', *([f':caption: {heading[1]}'] if heading else [])]
    contents = ['```{toctree}', *options, '', *pages, '```', ''] if pages else []
    return '\n'.join([section, *contents])


def setup(app):
    """Let Sphinx call the function above."""
    app.connect('source-read', on_source_read)
