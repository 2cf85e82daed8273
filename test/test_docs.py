# SPDX-License-Identifier: Apache-2.0
"""The documentation holds together: tables as the code has them, no dead link, no lost page."""
from pathlib import Path
import re
import subprocess
import sys
from urllib.parse import unquote, urlsplit

from doc_pages import DOCS, name_of, pages, read, ROOT
from needs import need_engine
import pytest

if not DOCS.is_dir():
    pytest.skip('docs/ is not installed with the package', allow_module_level=True)
PAGES = pages()


def run(*command, **options):
    return subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True,
                          timeout=120, cwd=ROOT, **options)


def target_of(path, link):
    """Return the file that a relative link of a page names."""
    split = urlsplit(link)
    return (path.parent / unquote(split.path)).resolve() if split.path else path


def test_reference_tables_are_what_the_code_says():
    pytest.importorskip('rclpy')
    need_engine('room')
    pytest.importorskip('control_msgs')
    services = pytest.importorskip('simulation_interfaces.srv')
    if not hasattr(services, 'GetAvailableWorlds'):
        pytest.skip('the tables are made with simulation_interfaces 2.1')
    result = run('tools/reference_docs', '--check')
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize('path', PAGES, ids=name_of)
def test_relative_links_lead_somewhere(path):
    dead = []
    for line, link in read(path).links:
        if urlsplit(link).scheme:
            continue
        target, anchor = target_of(path, link), urlsplit(link).fragment
        if not target.exists() or ROOT not in target.parents:
            dead.append(f'{name_of(path)}:{line}: {link}: no such file')
        elif anchor and (target.suffix != '.md' or anchor not in read(target).anchors):
            dead.append(f'{name_of(path)}:{line}: {link}: no such heading')
    assert dead == []


@pytest.mark.parametrize('path', PAGES, ids=name_of)
def test_external_links_are_well_formed(path):
    links = [(line, urlsplit(link)) for line, link in read(path).links if urlsplit(link).scheme]
    wrong = [f'{name_of(path)}:{line}: {link.geturl()}' for line, link in links
             if link.scheme not in ('https', 'mailto') or
             link.scheme == 'https' and '.' not in link.netloc]
    assert wrong == [], 'https links have a host; "make linkcheck" asks the net for the rest'


def test_every_page_can_be_reached_from_the_index():
    reached, ahead = set(), [DOCS / 'index.md']
    while ahead:
        path = ahead.pop()
        if path not in reached:
            reached.add(path)
            ahead += [target_of(path, link) for _, link in read(path).links
                      if not urlsplit(link).scheme and urlsplit(link).path.endswith('.md')]
    assert [name_of(path) for path in PAGES if path not in reached
            and path != DOCS / 'overview.md'] == []


def test_every_picture_is_shown_somewhere():
    shown = {target_of(path, link) for path in PAGES for _, link in read(path).links}
    kept = [path for path in (DOCS / 'images').rglob('*') if path.is_file()]
    assert kept and [name_of(path) for path in kept if path not in shown] == []


@pytest.mark.slow
def test_sphinx_builds_the_pages_without_a_warning(tmp_path):
    for package in ('sphinx', 'myst_parser', 'furo'):
        pytest.importorskip(package, reason='make docs installs it')
    result = run('-m', 'sphinx', '-q', '-W', '--keep-going', '-b', 'html', '-d',
                 tmp_path / 'doctrees', DOCS, tmp_path / 'html')
    assert result.returncode == 0, result.stderr
    built = {path.relative_to(tmp_path / 'html').with_suffix('') for path in
             (tmp_path / 'html').rglob('*.html')}
    assert {path.relative_to(DOCS).with_suffix('') for path in PAGES[1:]} <= built
    overview = (tmp_path / 'html' / 'overview.html').read_text()
    assert 'quick-start' in overview and 'href="reference/' in overview


def rows_of(path, heading=None):
    """Return the rows of the tables of a page, or of one of its sections, as lists of cells."""
    text = path.read_text()
    if heading is not None:
        assert f'\n{heading}\n' in text, f'{name_of(path)} has no section {heading!r}'
        text = re.split(r'\n## ', text.split(f'\n{heading}\n')[1])[0]
    rows = [re.split(r'(?<!\\)\|', line)[1:-1] for line in text.splitlines()
            if line.startswith('|')]
    return [[cell.strip() for cell in row] for row in rows]


def code_in(cell):
    return re.findall(r'`([^`]+)`', cell)


def known_topics():
    """Return the (direction, name) pairs of the written page with their types."""
    text, known = (DOCS / 'reference' / 'topics.md').read_text(), {}
    for section in re.split(r'\n## ', text)[1:]:
        node, verb = re.match(r'What `(\w+)` (\w+)', section).groups()
        if node in ('world_model', 'action_encoder'):
            for row in re.findall(r'(?m)^\| `([^`]+)` \| (.*?) \|', section):
                known.setdefault(('in' if verb == 'hears' else 'out', row[0]), []).extend(
                    code_in(row[1]))
    return known


def test_topics_of_the_readme_are_those_of_the_running_nodes():
    known = known_topics()
    services = {name for row in rows_of(DOCS / 'reference' / 'services.md')
                for name in code_in(row[1])}
    rows = rows_of(ROOT / 'README.md', '## Topics')
    assert len(rows) > 5
    for direction, names, types, *_ in rows[2:]:
        for name in code_in(names):
            if direction in ('service', 'action'):
                assert name in services, f'README: there is no {direction} {name}'
                continue
            assert (direction, name) in known, f'README: no topic {name}, direction {direction}'
            packages = {kind.split('/')[0].replace('lingbot_world_ros', 'this package')
                        for kind in known[direction, name]}
            assert any(package in types for package in packages), f'README: type of {name}'
            if '/' in types and ',' not in types:
                package, short = types.split('/', 1)
                told = {kind.replace('/msg/', '/') for kind in known[direction, name]}
                assert {f'{package}/{word}' for word in short.split(' or ')} == told, name


def test_headings_get_the_anchors_of_github(tmp_path):
    path = Path(tmp_path / 'page.md')
    path.write_text('# A `b_c`: d, e\n\n## One\n\n```text\n## no heading\n```\n\n## One\n')
    assert read(path).anchors == {'a-b_c-d-e', 'one', 'one-1'}
