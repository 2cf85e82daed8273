# SPDX-License-Identifier: Apache-2.0
"""
Measure the package on this machine: ``make bench``.

Every measurement is a process of its own; the repeats of all conditions take turns, so that a
busy spell of the machine meets them all. Writes ``bench.json`` and ``bench.md``.
"""
import argparse
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import subprocess
import sys
import time

from bench import envs
from bench.envs import AVX2
from bench.machine import cores, describe
from bench.report import engine_summary, judge, markdown, put_into, summary

ROOT = Path(__file__).resolve().parent.parent
DOCUMENT = ROOT / 'docs' / 'benchmarks.md'
TIMEOUT_S = 120
SPIN = 'while True: pass'
# What to measure with which arguments, environment, and whether the last core is kept busy.
CONDITIONS = {'full_speed': (['--speed', '0', '--pin'], {}, False),
              'full_speed_avx2': (['--speed', '0', '--pin'], AVX2, False),
              'nominal': (['--pin'], {}, False),
              'nominal_busy': ([], {}, True)}
FULL = {'repeats': 3, 'frames': 150, 'seconds': 6.0, 'turns': 8, 'count': 45, 'calls': 1000,
        'costs': 200, 'states': 40, 'conditions': tuple(CONDITIONS), 'engines': ('native', 'avx2')}
QUICK = {'repeats': 1, 'frames': 10, 'seconds': 1.5, 'turns': 0, 'count': 0, 'calls': 0,
         'costs': 0, 'states': 2, 'conditions': ('full_speed', 'nominal_busy'),
         'engines': ('native',)}


class Bench:
    """Run the parts, say what is being done."""

    def __init__(self, settings: dict):
        self._settings = settings
        self._started_s = time.monotonic()

    def run(self, module: str, *args, environment=None):
        """
        Run one measurement in a fresh process.

        :param module: of ``bench``
        :param args: its command line
        :param environment: variables to add
        :return: the JSON it printed
        """
        elapsed_s = time.monotonic() - self._started_s
        told = ' '.join([module, *map(str, args), *(environment or {}).values()])
        print(f'[bench {elapsed_s:4.0f} s] {told}', file=sys.stderr, flush=True)
        done = subprocess.run(
            [sys.executable, '-m', f'bench.{module}', *map(str, args)], text=True,
            stdout=subprocess.PIPE, timeout=TIMEOUT_S,
            env={**os.environ, 'ROS_DOMAIN_ID': free_domain(), **(environment or {})})
        if done.returncode:
            raise SystemExit(f'bench: {told} failed with exit code {done.returncode}.')
        return json.loads(done.stdout.splitlines()[-1])

    def end_to_end(self, condition: str, seed: int):
        """Run the simulator once under a condition of ``CONDITIONS``."""
        args, environment, busy = CONDITIONS[condition]
        spinner = subprocess.Popen([sys.executable, '-c', SPIN]) if busy else None
        if busy:
            os.sched_setaffinity(spinner.pid, {cores()[-1]})
        try:
            return self.run('end_to_end', *args, '--seconds', self._settings['seconds'], '--seed',
                            seed, environment=environment)
        finally:
            if busy:
                spinner.kill()
                spinner.wait()

    def engine(self, name: str):
        """Run the engine alone once."""
        return self.run('engine', '--frames', self._settings['frames'],
                        environment=AVX2 if name == 'avx2' else {})

    def environments(self) -> list:
        """Return the measurements of the Gymnasium environments."""
        seconds = 10 * self._settings['seconds']
        return [one for environment in ({}, AVX2) for one in self.run(
            'envs', '--all', '--seconds', seconds, environment=environment)]

    def likenesses(self) -> list:
        """Return how like the pictures of each size are to those of the reference world."""
        return [self.run('envs', *part.arguments, '--likeness', self._settings['states'])
                for part in envs.LIKENESS]

    def all_parts(self) -> dict:
        """Return the measurements of all parts, by part."""
        settings = self._settings
        engines = {name: [] for name in settings['engines']}
        conditions = {name: [] for name in settings['conditions']}
        for repeat in range(settings['repeats']):
            for name in engines:
                engines[name].append(self.engine(name))
            for name in conditions:
                conditions[name].append(self.end_to_end(name, 10 * repeat))
        runtimes = settings['turns'] and self.run('runtimes', '--turns', settings['turns'])
        transport = settings['count'] and self.run('transport', '--count', settings['count'])
        stepping = settings['calls'] and self.run('stepping', '--pin', '--calls',
                                                  settings['calls'])
        costs = settings['costs'] and self.run('costs', '--calls', settings['costs'])
        end_to_end = {name: summary(runs) for name, runs in conditions.items()}
        return {'engine': {name: engine_summary(runs) for name, runs in engines.items()},
                'end_to_end': end_to_end, 'bars': judge(end_to_end, stepping or None),
                'runtimes': {} if not runtimes or 'missing' in runtimes else runtimes,
                'transport': transport or [], 'stepping': stepping or {}, 'costs': costs or {},
                'settings': settings,
                'runs': {'engine': engines, 'end_to_end': conditions},
                'seconds': time.monotonic() - self._started_s}


def free_domain() -> str:
    """Return a ROS domain away from those people use; two runs at once get different ones."""
    return str(101 + os.getpid() % 100)


def main() -> int:
    """Measure everything and write the report; return the exit code."""
    parser = argparse.ArgumentParser(prog='python -m bench', description=__doc__.splitlines()[1])
    parser.add_argument('--quick', action='store_true',
                        help='a few seconds that only show that everything works')
    parser.add_argument('--out', type=Path, default=ROOT / 'bench' / 'out', metavar='DIR',
                        help='where bench.json and bench.md go (default: bench/out)')
    parser.add_argument('--docs', action='store_true',
                        help=f'also put the tables into {DOCUMENT.relative_to(ROOT)}')
    parser.add_argument('--envs', action='store_true',
                        help='measure the Gymnasium environments instead; writes envs.json')
    args = parser.parse_args()
    bench = Bench(QUICK if args.quick else FULL)
    args.out.mkdir(parents=True, exist_ok=True)
    if args.envs:
        machine = describe()
        runs, likenesses = bench.environments(), bench.likenesses()
        (args.out / 'envs.json').write_text(json.dumps(
            {'machine': machine, 'runs': runs, 'likenesses': likenesses}, indent=1) + '\n')
        print(envs.markdown(machine, runs, likenesses))
        return 0
    command = ' '.join(['python -m bench', *sys.argv[1:]])
    result = {'command': command, 'machine': describe(),
              'started': datetime.now(timezone.utc).isoformat(timespec='seconds'),
              **bench.all_parts()}
    text = markdown(result)
    (args.out / 'bench.json').write_text(json.dumps(result, indent=1) + '\n')
    (args.out / 'bench.md').write_text(text)
    if args.docs:
        put_into(DOCUMENT, text)
    print(text)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
