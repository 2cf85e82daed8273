#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""
Catch every change of behaviour: record what the package does, compare two recordings.

``python tools/net record --out A.json`` starts the programs of a checkout, drives them as a
client from outside would, and writes down each message, answer and text. ``python tools/net
compare A.json B.json`` tells what differs. ``make net BASE=<commit>`` does both for a commit and
the working tree. ``docs/robustness.md`` says what is recorded.
"""
import argparse
from concurrent.futures import ThreadPoolExecutor
import fnmatch
import json
import os
from pathlib import Path
import resource
import subprocess
import sys
import tempfile
import time

import compare
from sim import environment, run

ROOT = Path(__file__).resolve().parent.parent.parent
FORMAT = 1
SCENARIO_PATIENCE_S = 600.0
sys.path.append(str(ROOT / 'test'))  # ros_domain is there


def main() -> int:
    """Read the command line and do what it says; return the exit code."""
    parser = argparse.ArgumentParser(prog='python tools/net', description=__doc__.split('\n')[1])
    verbs = parser.add_subparsers(dest='verb', required=True)
    add = verbs.add_parser('record', help='write down what a checkout does').add_argument
    add('--out', required=True, metavar='FILE', help='JSON to write')
    add('--tree', type=Path, default=Path.cwd(), metavar='FOLDER',
        help='checkout to record (default: the current folder)')
    add('--only', action='append', default=[], metavar='PATTERN',
        help='only these scenarios, for example "room/*"; may be repeated')
    add('--quick', action='store_true', help='only those that take about a minute together')
    add('--jobs', type=int, default=1, metavar='N', help='at a time (default: 1)')
    add = verbs.add_parser('compare', help='tell what differs').add_argument
    add('before', metavar='A.json')
    add('after', metavar='B.json')
    add('--allow', action='append', default=[], metavar='FILE', type=Path,
        help='list of differences that are meant, with reasons; may be repeated')
    add('--all', action='store_true', help='tell every difference, not the first of each kind')
    add = verbs.add_parser('against', help='record a commit and the working tree, and compare '
                           'them').add_argument
    add('base', metavar='COMMIT')
    add('--only', action='append', default=[], metavar='PATTERN', help='as for record')
    add('--quick', action='store_true', help='as for record')
    add('--jobs', type=int, default=1, metavar='N', help='as for record')
    add('--allow', action='append', default=[], metavar='FILE', type=Path, help='as for compare')
    add('--keep', type=Path, metavar='FOLDER', help='folder in which the recordings stay')
    verbs.add_parser('list', help='list the scenarios')
    add = verbs.add_parser('act').add_argument  # one scenario, in a process of its own
    for name in ('name', 'out', 'tree', 'shared'):
        add(name)
    arguments = parser.parse_args()
    return globals()[f'do_{arguments.verb}'](arguments)


def do_list(arguments) -> int:
    """Print the names of all scenarios."""
    for found in chosen_scenarios([], False):
        print(f'{found.name:32}{"quick  " if found.is_quick else "       "}'
              f'{found.act.__doc__.strip()}')
    return 0


def do_record(arguments) -> int:
    """Record a checkout."""
    tree = arguments.tree.resolve()
    recording = record(tree, arguments.only, arguments.quick, arguments.jobs)
    Path(arguments.out).write_text(dumps(recording))
    return 1 if any(problems_of(part) for part in recording['scenarios'].values()) else 0


def do_compare(arguments) -> int:
    """Compare two recordings."""
    before, after = (json.loads(Path(path).read_text())
                     for path in (arguments.before, arguments.after))
    return compare.report(before, after, arguments.allow, arguments.all)


def do_against(arguments) -> int:
    """Record a commit in a working tree of its own, record this one, compare."""
    with tempfile.TemporaryDirectory(prefix='net_') as folder:
        keep = arguments.keep or Path(folder)
        keep.mkdir(parents=True, exist_ok=True)
        base = Path(folder) / 'base'
        git = ['git', '-C', str(ROOT), 'worktree']
        subprocess.run([*git, 'add', '--quiet', '--detach', str(base), arguments.base], check=True)
        try:
            recordings = {}
            for name, tree in (('before', base), ('after', ROOT)):
                print(f'{name}: {tree}', flush=True)
                recordings[name] = record(tree, arguments.only, arguments.quick, arguments.jobs)
                (keep / f'{name}.json').write_text(dumps(recordings[name]))
        finally:
            subprocess.run([*git, 'remove', '--force', str(base)], check=True)
        return compare.report(recordings['before'], recordings['after'], arguments.allow, False)


def do_act(arguments) -> int:
    """Act one scenario and write its record."""
    import verbs  # noqa: F401  (it registers scenarios, as what it imports does)
    from scenarios import SCENARIOS, Stage
    os.environ['FASTDDS_DEFAULT_PROFILES_FILE'] = str(Path(__file__).parent / 'fastdds.xml')
    with tempfile.TemporaryDirectory(prefix='net_') as work:
        tree, shared = Path(arguments.tree), Path(arguments.shared)
        (Path(work) / 'home').mkdir()
        stage = Stage(tree, Path(work), shared, folders=[
            (str(tree), '<tree>'), (work, '<work>'), (str(shared), '<shared>')])
        content = SCENARIOS[arguments.name].act(stage)
        Path(arguments.out).write_text(json.dumps([content, cpu_s()]))
    return 0


def cpu_s() -> float:
    """Return the CPU time of this process and of those it waited for, seconds."""
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def chosen_scenarios(only, is_quick) -> list:
    """
    Return the scenarios that are asked for.

    :param only: patterns of names, empty for all
    :param is_quick: only the quick ones
    """
    import verbs  # noqa: F401  (it registers scenarios, as what it imports does)
    from scenarios import SCENARIOS
    found = [entry for entry in SCENARIOS.values()
             if (not only or any(fnmatch.fnmatch(entry.name, pattern) for pattern in only))
             and (entry.is_quick or not is_quick)]
    if only and not found:
        raise SystemExit(f'error: no scenario is called {" or ".join(only)}; see "list".')
    return found


def record(tree: Path, only=(), is_quick=False, num_jobs=1) -> dict:
    """
    Record a checkout.

    :param tree: its folder
    :param only: patterns of names of scenarios
    :param is_quick: only the quick ones
    :param num_jobs: scenarios at a time
    :return: the recording
    """
    found = chosen_scenarios(only, is_quick)
    with tempfile.TemporaryDirectory(prefix='net_shared_') as shared:
        shared = Path(shared)
        check_tree(tree, shared)
        write_networks({name for entry in found for name in entry.needs}, shared)
        (shared / 'out').mkdir()

        def act(entry):
            begin_s, out = time.monotonic(), shared / 'out' / f'{entry.name.replace("/", "_")}'
            code, said, error = run(
                [sys.executable, str(Path(__file__).parent), 'act', entry.name, str(out),
                 str(tree), str(shared)], {**environment(tree, shared)}, shared,
                SCENARIO_PATIENCE_S)
            content, used_s = (json.loads(out.read_text()) if code == 0 and out.exists() else
                               ({'error': (said + error)[-3000:]}, 0.0))
            took_s = time.monotonic() - begin_s
            problems = problems_of(content)
            print(f'{entry.name:32}{took_s:6.1f} s  {used_s:6.1f} s of CPU  {"; ".join(problems)}',
                  flush=True)
            return entry.name, content
        with ThreadPoolExecutor(num_jobs) as pool:
            scenarios = dict(pool.map(act, found))
    return {'format': FORMAT, 'about': about(tree), 'scenarios': scenarios}


def problems_of(content) -> list:
    """Return why parts of a scenario could not be acted to the end."""
    parts = (content, *content.get('parts', {}).values())
    return [part['error'] for part in parts if 'error' in part]


def check_tree(tree, folder):
    """See to it that the package that runs is the one of this checkout."""
    code, said, error = run([sys.executable, '-c', 'import lingbot_world_ros as p; '
                             'print(p.__file__)'], environment(tree, folder), folder)
    if code or not Path(said.strip()).resolve().is_relative_to(tree):
        raise SystemExit(f'error: {tree} is not what runs here but {said.strip() or error}; run '
                         '"make venv" first.')


def write_networks(names, folder):
    """Write the tiny checkpoints that are needed."""
    import networks
    for name in sorted(names):
        networks.WRITERS[name](folder / name)


def about(tree) -> dict:
    """Return what the recording was made with; it is told, not compared."""
    from importlib import metadata
    versions = {}
    for name in ('numpy', 'openvino', 'mujoco', 'torch', 'opencv-python-headless', 'ros-rclpy'):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            pass
    commit = subprocess.run(['git', '-C', str(tree), 'describe', '--always', '--dirty'],
                            capture_output=True, text=True).stdout.strip()
    return {'commit': commit, 'python': sys.version.split()[0], 'packages': versions}


def dumps(recording) -> str:
    """Return a recording as JSON with a line per message."""
    return json.dumps(recording, separators=(',', ':')).replace('],["', '],\n["')


if __name__ == '__main__':
    sys.exit(main())
