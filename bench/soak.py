# SPDX-License-Identifier: Apache-2.0
"""
Run a world for a long time against everything that goes wrong around it: ``make soak``.

``lingbot-world sim`` runs as users start it, with the engine inside and with the engine in a
process of its own. One process drives it at 100 Hz, one receives every frame, and this one resets
it, changes worlds, makes steps, freezes and kills its peers and has its engine fail. What has to
hold is in ``soak_rules.RULES``; exit code 1 names the rule that was broken.
"""
import argparse
from contextlib import suppress
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
import threading
import time

from bench.__main__ import free_domain, ROOT
from bench.machine import command_line, CpuMeter, describe, family, is_running, usage
from bench.peers import Peer
from bench.report import put_into, table
from bench.soak_acts import acts_of, Client, quiet, worlds
from bench.soak_rules import (Broken, growth, MARGIN_S, MAX_GROWTH, MIN_RATE_HZ, RULES,
                              SERVICE_TIMEOUT_S, STEP_TIMEOUT_S)
from lingbot_world_ros.settings.profiles import assignments
import numpy as np

DOCUMENT = ROOT / 'docs' / 'robustness.md'
MARKERS = ('<!-- written by make soak: begin -->', '<!-- written by make soak: end -->')
VARIANTS = {'inside': False, 'isolated': True}  # name -> isolate_engine
WARM_UP_S = 120.0
START_S, END_S = 60.0, 20.0
MAX_OTHERS = 0.25  # share of all cores; where others use more, a frame rate says nothing


class World:
    """The simulator in a process of its own, and what it costs."""

    def __init__(self, variant: str, folder: Path, max_s: float, patience: float = 1.0):
        """
        Start it.

        :param variant: one of ``VARIANTS``
        :param folder: for its log and the faults that its engine shall have
        :param max_s: after which it ends by itself, should this process be gone
        :param patience: factor of its time limits
        """
        self.is_isolated, self.faults = VARIANTS[variant], folder / 'faults'
        self.patience = patience
        self._output = (folder / f'{variant}.log').open('w+')
        params = {'cmd_vel_type': 'twist', 'isolate_engine': self.is_isolated,
                  'step_timeout_s': patience * STEP_TIMEOUT_S,
                  'service_timeout_s': patience * SERVICE_TIMEOUT_S}
        self.process = subprocess.Popen(
            [sys.executable, '-m', 'bench.faulty_sim', self.faults, '--duration', str(max_s),
             *assignments(params)],
            stdin=subprocess.DEVNULL, stdout=self._output, stderr=subprocess.STDOUT)

    @property
    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    @property
    def engine_pid(self):
        """Process id of an isolated engine; None while there is none."""
        for pid in family(self.process.pid)[1:]:
            if 'spawn_main' in command_line(pid):
                return pid
        return None

    def log_tail(self) -> str:
        """Return the end of what it printed."""
        self._output.flush()
        self._output.seek(0)
        return self._output.read()[-3000:]

    def close(self):
        """
        End it as Ctrl-C does.

        :raises Broken: it was dead, does not end, or leaves processes behind
        """
        alive, pids = self.is_alive, family(self.process.pid) if self.is_alive else []
        end_s, margin_s = self.patience * END_S, self.patience * MARGIN_S
        self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(end_s)
        except subprocess.TimeoutExpired:
            code = None
        deadline = time.monotonic() + margin_s  # the resource tracker ends after its parent
        while (left := [pid for pid in pids[1:] if is_running(pid)]) \
                and time.monotonic() < deadline:
            time.sleep(0.1)
        names = ', '.join(command_line(pid) for pid in left)
        for pid in [*left, *([self.process.pid] if code is None else [])]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        if not alive:
            raise Broken('end', f'the world had ended by itself with exit code {code}')
        if code is None:
            raise Broken('end', f'the world did not end within {end_s:g} s')
        if code:
            raise Broken('end', f'the world ended with exit code {code}')
        if left:
            raise Broken('end', f'{margin_s:g} s after the world had ended there still ran: '
                         f'{names}')


class Sampler:
    """Note what the world's processes hold, once per second."""

    def __init__(self, pid: int):
        self._pid = pid
        self.samples = []  # seconds since start; MiB of the process, and of its children
        self._start_s = time.monotonic()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start_s

    def _run(self):
        while not self._stop.wait(1.0):
            try:
                look = usage(self._pid)
                self.samples.append([round(value, 1) for value in (
                    self.elapsed_s, look['main_mib'], look['children_mib'])])
            except (FileNotFoundError, ProcessLookupError):
                return

    def close(self):
        """Stop."""
        self._stop.set()
        self._thread.join()


class Soak:
    """One variant: the world, its peers, and a log of what was broken."""

    def __init__(self, variant: str, seed: int, folder: Path, duration_s: float, acts=(),
                 patience: float = 1.0):
        self.variant, self.rng = variant, np.random.default_rng(seed)
        self.patience, self._names = patience, acts
        self.broken, self.counts = [], {}
        self.rates, self.num_busy = [], 0
        self.ends = []  # of rounds: seconds since the start, what the world held
        self.duration_s, self._folder = duration_s, folder
        self._act, self._started_s = 'start', time.monotonic()

    def run(self) -> dict:
        """
        Start, let act follow act until the time is over, end.

        :return: all numbers, and what was broken
        """
        self.world = World(self.variant, self._folder, 2 * self.duration_s + 300.0,
                           self.patience)
        client = watcher = driver = sampler = None
        result = {}
        try:
            self.client = client = Client(self)
            client.wait_for(lambda: client.status is not None, START_S, 'the first world_status')
            client.make_play()
            self.watcher = watcher = Peer('watch')
            self.driver = driver = Peer('drive', '--seed', int(self.rng.integers(1000)))
            for peer in (watcher, driver):
                peer.hear()
            sampler = Sampler(self.world.process.pid)
            self._rounds(sampler)
            result = {'seconds': sampler.elapsed_s, **self._judge(sampler)}
        except (Broken, TimeoutError) as error:
            self.note(getattr(error, 'rule', 'end'), str(error))
        finally:
            for part in (sampler, driver, watcher, client):
                if part is not None:
                    part.close()
            try:
                self.world.close()
            except Broken as error:
                self.note(error.rule, str(error))
        if self.broken:
            result['log'] = self.world.log_tail()
        return {'variant': self.variant, 'acts': self.counts, 'broken': self.broken, **result}

    def note(self, rule: str, text: str) -> None:
        """Take note of a broken rule."""
        self.broken.append({'rule': rule, 'act': self._act, 'text': text,
                            'at_s': round(time.monotonic() - self._started_s, 1)})
        print(f'[soak] BROKEN ({rule}) in {self._act}: {text}', file=sys.stderr, flush=True)

    def _rounds(self, sampler):
        """
        Every act once per round, at least one round.

        The order is another each time, but for the last two: once all scenes are loaded again and
        nothing happens, what the world holds can be compared from round to round.
        """
        self._started_s = time.monotonic()
        acts, last = acts_of(self.world.is_isolated), [worlds, quiet]
        if self._names:
            acts, last = [act for act in acts + last if act.__name__ in self._names], []
        while not self.ends or sampler.elapsed_s < self.duration_s:
            for act in [*self.rng.permutation(acts), *last]:
                if self.ends and sampler.elapsed_s > self.duration_s:
                    break
                self._do(act)
            else:
                self.ends.append((sampler.elapsed_s, self._holdings()))
        self._act = 'end'

    def _do(self, act):
        self._act = act.__name__
        if not self.world.is_alive:
            raise Broken('end', 'the world ended by itself')
        started_s = time.monotonic()
        try:
            act(self)
        except (Broken, TimeoutError) as error:
            self.note(getattr(error, 'rule', 'state'), str(error))
        self.client.make_play()
        took_s = time.monotonic() - started_s
        print(f'[soak {time.monotonic() - self._started_s:5.0f} s] {self.variant}: {self._act} '
              f'({took_s:.1f} s)', file=sys.stderr, flush=True)
        count = self.counts.setdefault(self._act, {'times': 0, 'seconds': 0.0})
        count['times'] += 1
        count['seconds'] += took_s

    def rate(self, seconds: float):
        """
        Let time pass, and count.

        :param seconds: how long
        :return: frames per second that the watcher received, None where time was set back or
            others kept the machine so busy that the number would say nothing
        """
        pids = [*family(self.world.process.pid), self.watcher.process.pid,
                self.driver.process.pid, os.getpid()]
        meter = CpuMeter(**{str(pid): pid for pid in pids})
        self.watcher.ask('mark')
        self.client.spin(seconds)
        rate_hz = self.watcher.ask('mark')['rate_hz']
        is_busy = meter.cores()['others'] > MAX_OTHERS * os.cpu_count() or self.patience > 1.0
        self.num_busy += is_busy
        return None if is_busy else rate_hz

    def _holdings(self):
        """What may not become more: the least of several looks, as some come and go."""
        looks = [usage(self.world.process.pid)]
        for _ in range(4):
            self.client.spin(0.3)
            looks.append(usage(self.world.process.pid))
        least = {name: min(look[name] for look in looks) for name in looks[0]}
        return {**least, 'all_mib': least['main_mib'] + least['children_mib']}

    def _judge(self, sampler):
        """Look at the whole, note what is broken, return the numbers."""
        warm_s = min(WARM_UP_S, self.duration_s / 4)
        ends = [end for end in self.ends if end[0] >= warm_s] or self.ends[-1:]
        first, last = ends[0][1], ends[-1][1]
        for name in ('threads', 'files', 'children'):
            if last[name] > first[name]:
                self.note('leak', f'{name}: {last[name]}, after warm-up {first[name]}')
        memory = {name: growth([(at_s, held[name]) for at_s, held in ends])
                  for name in ('main_mib', 'all_mib')}
        for name, grown in memory.items():
            if grown['growth'] is not None and grown['growth'] >= MAX_GROWTH:
                self.note('memory', f'{name} {grown["growth"]:+.1%} in {grown["window_s"]:.0f} s: '
                          f'from {grown["first_mib"]:.1f} to {grown["last_mib"]:.1f} MiB')
        joined = self.driver.ask('joined')['joined']
        if not joined:
            self.note('frames', 'no subscriber that came late saw an image and world_spec')
        ledger = self.watcher.ask('report')
        for text in ledger['problems']:
            self.note('frames', text)
        rate_hz = float(np.mean(self.rates)) if self.rates else None
        if self.rates and rate_hz < MIN_RATE_HZ:
            self.note('rate', f'{rate_hz:.2f} frames per second')
        return {'rounds': len(self.ends), 'after_warm_up': first, 'end': last, 'memory': memory,
                'peak_mib': max(sum(look) for _, *look in sampler.samples),
                'frames': ledger['counts'], 'frame_problems': ledger['num_problems'],
                'restarts': ledger['restarts'], 'late_joiners': joined, 'rate_hz': rate_hz,
                'lowest_rate_hz': min(self.rates, default=None), 'quiet_windows': len(self.rates),
                'busy_windows': self.num_busy, 'recoveries': self.client.status.recoveries,
                'services': self.client.services, 'memory_mib': sampler.samples}


def summary_line(run: dict) -> str:
    """Put the numbers of one variant into one line."""
    verdict = f'{len(run["broken"])} BROKEN' if run['broken'] else 'clean'
    if 'rounds' not in run:
        return f'{run["variant"]}: {verdict}, did not come to its end'
    names = [name for name in HEAD if name not in ('engine', 'rules broken')]
    cells = ', '.join(f'{name} {value}' for name, value in zip(names, row(run)[1:-1]))
    return f'{run["variant"]}: {verdict}; {cells}'


def row(run: dict) -> tuple:
    """Write the cells of one variant under ``HEAD``."""
    calls = run['services'].values()

    def grown(name):
        memory = run['memory'][name]
        return (f'not judged of {memory["last_mib"]:.0f} MiB' if memory['growth'] is None else
                f'{memory["growth"]:+.2%} of {memory["first_mib"]:.0f} MiB')
    return (run['variant'], f'{run["seconds"] / 60:.1f}', run['rounds'],
            run['frames']['camera/image_raw'], run['frame_problems'],
            'not judged' if run['rate_hz'] is None else f'{run["rate_hz"]:.2f}',
            run['late_joiners'], sum(call['calls'] for call in calls),
            f'{max(call["longest_s"] for call in calls):.1f}', run['recoveries'],
            grown('main_mib'), grown('all_mib'),
            '; '.join(f'{run["after_warm_up"][name]} to {run["end"][name]}'
                      for name in ('threads', 'files', 'children')), len(run['broken']))


HEAD = ('engine', 'minutes', 'rounds', 'frames', 'lost or repeated', 'frames/s when quiet',
        'late joiners', 'service calls', 'longest [s]', 'recoveries', 'growth of the node',
        'growth with the engine', 'threads; files; children', 'rules broken')


def markdown(result: dict) -> str:
    """Write what ``docs/robustness.md`` shows of a result."""
    machine = result['machine']
    broken = [f'- {entry["rule"]}, {entry["act"]}: {entry["text"]}\n'
              for run in result['runs'] for entry in run['broken']]
    return (f'`{result["command"]}`, {result["started"]}, on {machine["processor"]}, '
            f'{machine["cores"]} cores, load {machine["load"]:.1f} at the start.\n\n'
            + table(HEAD, map(row, result['runs'])) + ''.join(['\n', *broken] if broken else []))


def soak(variant: str, seconds: float, seed: int, acts=(), patience: float = 1.0) -> dict:
    """Run one variant in this process."""
    with tempfile.TemporaryDirectory(prefix='lingbot_world_soak_') as folder:
        return Soak(variant, seed, Path(folder), seconds, acts, patience).run()


def main() -> int:
    """Run the variants one after the other and judge; return the exit code."""
    parser = argparse.ArgumentParser(prog='python -m bench.soak',
                                     description=__doc__.splitlines()[1])
    parser.add_argument('--duration', type=float, default=1800.0, metavar='S',
                        help='of all variants together; each makes at least one round '
                        '(default: 1800)')
    parser.add_argument('--variant', action='append', choices=VARIANTS,
                        help='where the engine is; may be repeated (default: both)')
    parser.add_argument('--act', action='append', default=[], help='what happens; may be repeated '
                        '(default: everything)',
                        choices=[act.__name__ for act in (*acts_of(True), worlds, quiet)])
    parser.add_argument('--patience', type=float, default=1.0, metavar='FACTOR',
                        help='of all time limits; rates are judged at 1 only (default: 1)')
    parser.add_argument('--seed', type=int, default=0, help='of the order of what happens')
    parser.add_argument('--out', type=Path, default=ROOT / 'bench' / 'out', metavar='DIR',
                        help='where soak.json goes (default: bench/out)')
    parser.add_argument('--docs', action='store_true',
                        help=f'also put the table into {DOCUMENT.relative_to(ROOT)}')
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started
    os.environ['ROS_DOMAIN_ID'] = free_domain()
    variants = args.variant or list(VARIANTS)
    result = {'command': ' '.join(['python -m bench.soak', *sys.argv[1:]]),
              'machine': describe(),
              'started': datetime.now(timezone.utc).isoformat(timespec='seconds'),
              'rules': RULES, 'runs': []}
    for variant in variants:
        result['runs'].append(soak(variant, args.duration / len(variants), args.seed, args.act,
                                   args.patience))
    result['passed'] = not any(run['broken'] for run in result['runs'])
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'soak.json').write_text(json.dumps(result, indent=1) + '\n')
    for run in result['runs']:
        print(summary_line(run))
        for entry in run['broken']:
            print(f'  broken, {entry["rule"]} ({RULES[entry["rule"]]}): {entry["text"]} '
                  f'[{entry["act"]}, {entry["at_s"]:.0f} s]')
        if run['broken']:
            print(f'  the end of its log:\n{run["log"]}', file=sys.stderr)
    if args.docs and all('rounds' in run for run in result['runs']):
        put_into(DOCUMENT, markdown(result), *MARKERS)
    return 0 if result['passed'] else 1


if __name__ == '__main__':
    raise SystemExit(main())
