# SPDX-License-Identifier: Apache-2.0
"""
From a key on the operator's page to the picture that shows it, in a browser on this machine.

Every key is typed into Chromium (no window, no GPU) and its time is the event's own. A picture
counts when it has been drawn and the browser's next task runs; it differs from the one before when
more than ``SHARE`` of its pixels do so by more than ``LEVELS`` of 255. A start ends with the first
picture that differs, a stop with the last. What the keyboard and the screen add is not in it.
Also the CPU that world, page's server and browser use, and after how long the page tells that one
of the first two hangs. Writes ``glass.json`` and ``glass.md``.
"""
import argparse
from contextlib import contextmanager
from datetime import datetime, timezone
import json
import os
from pathlib import Path
import signal
import sys
import time

from bench.__main__ import AVX2, DOCUMENT, free_domain, ROOT
from bench.latency import percentile
from bench.machine import command_line, cpu_seconds, describe, family
from bench.report import cell, put_into, table

sys.path.append(str(ROOT / 'test'))

from browser import chromium, Operator, Program  # noqa: E402, I100

MARKERS = tuple(f'<!-- written by bench.glass: {end} -->' for end in ('begin', 'end'))
ENVIRONMENTS = {'native': {}, 'avx2': AVX2}
PAIRS = {'forward': 'ws', 'turn': 'ad'}  # keys in turn, so that the robot stays where it is
START_P95_MS, VIEW_CORES = 200.0, 0.15  # what has to hold
STILL_FRAMES = 6  # that do not differ: the robot stands
HOLD_S, JITTER_S = 0.25, 0.1  # the jitter is longer than a frame: all phases occur
PATIENCE_S = 10.0  # for standstill
SHARE, LEVELS = 0.005, 8  # at rest it flickers less, in motion ten times more pixels differ
# Watches the page: when was a key pressed, when was which picture there, how did it differ.
OBSERVE = """() => {
  const glass = window.glass = {keys: [], frames: []};
  for (const type of ['keydown', 'keyup'])
    window.addEventListener(type, (event) => {
      if (!event.repeat) glass.keys.push({type, code: event.code, t: event.timeStamp});
    }, true);
  const {port1, port2} = new MessageChannel();
  const drawn = [];
  let before = null;
  port1.onmessage = () => {
    const {canvas, context} = drawn.shift();
    const t = performance.now();
    const now = context.getImageData(0, 0, canvas.width, canvas.height).data;
    let differ = 0;
    if (before && before.length === now.length)
      for (let i = 0; i < now.length; i += 4)
        if (Math.max(Math.abs(now[i] - before[i]), Math.abs(now[i + 1] - before[i + 1]),
                     Math.abs(now[i + 2] - before[i + 2])) > LEVELS) differ++;
    before = now;
    glass.frames.push({t, share: differ / now.length * 4});
  };
  const draw = CanvasRenderingContext2D.prototype.drawImage;
  CanvasRenderingContext2D.prototype.drawImage = function (...what) {
    draw.apply(this, what);
    if (this.canvas.id !== 'camera') return;
    drawn.push({canvas: this.canvas, context: this});
    port2.postMessage(0);
  };
}""".replace('LEVELS', str(LEVELS))
STANDS = f'() => glass.frames.slice(-{STILL_FRAMES}).every((one) => one.share <= {SHARE})'


class Parts:
    """CPU time of the world, the page's server and the browser's processes."""

    def __init__(self, sim_pid: int):
        """
        Start measuring.

        :param sim_pid: process of ``lingbot-world sim --view``
        """
        self._sim_pid = sim_pid
        self._before = self._read()

    def pids(self) -> dict:
        """Return the processes of world, view and browser."""
        view = [pid for pid in family(self._sim_pid)[1:] if 'view' in command_line(pid).split()]
        browser = [pid for pid in family(os.getpid())
                   if 'chrom' in command_line(pid).partition(' ')[0]]
        return {'world': [self._sim_pid], 'view': view, 'browser': browser}

    def _read(self):
        used = {pid: cpu_seconds(pid) for pids in self.pids().values() for pid in pids}
        return time.monotonic(), used

    def cores(self) -> dict:
        """Return CPU time by wall time so far: world, view, browser, and kinds of the latter."""
        (begin_s, before), (end_s, now) = self._before, self._read()
        wall_s, used = end_s - begin_s, {}
        for name, pids in self.pids().items():
            shares = {pid: (now.get(pid, 0.0) - before.get(pid, 0.0)) / wall_s for pid in pids}
            used[name] = sum(shares.values())
            if name == 'browser':
                for pid, share in shares.items():
                    kind = f'browser_{_kind(pid)}'
                    used[kind] = used.get(kind, 0.0) + share
        return used


def _kind(pid):
    """Return what a process of Chromium is for; all of its arguments may stand in one."""
    words = command_line(pid).split()
    return next((word.partition('=')[2] for word in words if word.startswith('--type=')), 'main')


@contextmanager
def _site(environment):
    """Start a world with its page's server, and a browser."""
    domain = os.environ.get('ROS_DOMAIN_ID') or free_domain()
    sim = Program(domain, 'sim', '--view', **environment)
    try:
        with chromium() as browser:
            sim.wait_for('Ctrl-C ends')
            yield sim, browser
    finally:
        sim.end()


def measure(trials: int, seconds: float, environment: dict, seed: int = 0) -> dict:
    """
    Press keys and watch.

    :param trials: starts, each with a stop after it
    :param seconds: to measure CPU without motion, wall time
    :param environment: variables for the simulator
    :param seed: of the moments keys are pressed at
    :return: latencies [ms], CPU [cores], what else is to be known of the run
    """
    with _site(environment) as (sim, browser):
        cpu = {'no_page': _cpu_of_rest(sim, seconds)}
        page = browser.new_page(viewport={'width': 1280, 'height': 720})
        page.add_init_script(f'({OBSERVE})()')
        line = next(line for line in sim.printed().splitlines() if line.startswith('Page'))
        page.goto(line.split()[1])
        operator = Operator(page)
        operator.until_link('live')
        page.keyboard.press('r')
        operator.see_frames(5 * STILL_FRAMES)
        cpu['standing'] = _cpu_of_rest(sim, seconds)
        parts, load = Parts(sim.process.pid), [os.getloadavg()[0]]
        for trial in range(trials):
            press(page, key_of(trial), seed + trial)
        cpu['driving'] = parts.cores()
        log, status = page.evaluate('glass'), operator.status()
        lost_ms = {part: hang_ms(operator, pids[0])
                   for part, pids in parts.pids().items() if part != 'browser'}
        return {**latencies(log), 'lost_ms': lost_ms, 'cpu_cores': cpu,
                'load': [*load, os.getloadavg()[0]],
                'frames': len(log['frames']), 'frame_rate_hz': frame_rate_hz(log),
                'real_time_factor': status['rtf'], 'command_to_frame_ms': status['latency_ms'],
                'browser': browser.version}


def hang_ms(operator, pid: int) -> float:
    """
    Have a process hang until the page says that the link is lost, then live again.

    :param operator: at the page
    :param pid: of the world or the page's server
    :return: wall time from the hang to the word, ms
    """
    begin_s = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        operator.until_link('lost')
        took_ms = (time.monotonic() - begin_s) * 1e3
    finally:
        os.kill(pid, signal.SIGCONT)
    operator.until_link('live')
    return took_ms


def _cpu_of_rest(sim, seconds):
    parts = Parts(sim.process.pid)
    time.sleep(seconds)
    return parts.cores()


def key_of(trial: int) -> str:
    """Return the key of a trial: forward, left, back, right, and again."""
    return [pair[trial // 2 % 2] for pair in PAIRS.values()][trial % 2]


def press(page, key, seed):
    """Hold a key for a moment, at any phase between two pictures; then wait for standstill."""
    phase = (seed * 0.618034) % 1.0  # evenly spread
    time.sleep(phase * JITTER_S)
    page.keyboard.down(key)
    time.sleep(HOLD_S + phase * JITTER_S)
    page.keyboard.up(key)
    count = page.evaluate('glass.frames.length')
    end_s = time.monotonic() + PATIENCE_S
    while (page.evaluate('glass.frames.length') < count + STILL_FRAMES + 1
           or not page.evaluate(STANDS)):
        if time.monotonic() > end_s:
            raise SystemExit('bench: the picture does not come to rest.')
        time.sleep(0.05)


def latencies(log: dict) -> dict:
    """
    Follow keys to the pictures that show them.

    :param log: ``keys`` (type, code, t [ms]) and ``frames`` (t [ms], share of pixels that differ
        from the picture before), in order
    :return: latencies in ms of forward, turn and stop; keys without a picture; the largest share
        before a start and the median share in its first picture
    """
    found = {**{name: [] for name in PAIRS}, 'stop': []}
    kinds = {f'Key{key.upper()}': name for name, keys in PAIRS.items() for key in keys}
    starts, rests, missed = [], [], 0
    keys = [key for key in log['keys'] if key['code'] in kinds]
    downs = [key['t'] for key in keys if key['type'] == 'keydown']
    for key in keys:
        end = min((t for t in downs if t > key['t']), default=float('inf'))
        differ = [frame for frame in log['frames']
                  if key['t'] < frame['t'] < end and frame['share'] > SHARE]
        if not differ:
            missed += 1
        elif key['type'] == 'keydown':
            found[kinds[key['code']]].append(differ[0]['t'] - key['t'])
            starts.append(differ[0]['share'])
            rests.append([frame['share'] for frame in log['frames'] if frame['t'] < key['t']][-1:])
        else:
            found['stop'].append(differ[-1]['t'] - key['t'])
    return {'latencies_ms': found, 'without_picture': missed,
            'share_at_start_p50': percentile(starts, 50),
            'share_at_rest_most': max(sum(rests, []), default=None)}


def frame_rate_hz(log: dict) -> float:
    """Return how many pictures a second were drawn."""
    times_ms = [frame['t'] for frame in log['frames']]
    return 1e3 * (len(times_ms) - 1) / (times_ms[-1] - times_ms[0])


def summary(run: dict) -> dict:
    """
    Judge a run.

    :param run: what ``measure`` returns
    :return: p50, p95 and longest by kind in ms, and the bars
    """
    kinds = dict(run['latencies_ms'])
    kinds['start'] = [value for name in PAIRS for value in kinds[name]]
    spread = {name: {'trials': len(values), 'p50_ms': percentile(values, 50),
                     'p95_ms': percentile(values, 95), 'longest_ms': max(values, default=None)}
              for name, values in kinds.items()}
    view = max(cpu['view'] for cpu in run['cpu_cores'].values())
    start = spread['start']['p95_ms']
    return {'latency': spread, 'bars': [
        {'what': 'key to picture p95 ms', 'bar': f'under {START_P95_MS:g}', 'measured': start,
         'met': start is not None and start < START_P95_MS},
        {'what': "CPU of the page's server, cores", 'bar': f'under {VIEW_CORES:g}',
         'measured': view, 'met': view < VIEW_CORES}]}


def markdown(result: dict) -> str:
    """
    Write the tables of a result.

    :param result: what goes to ``glass.json``
    :return: Markdown
    """
    machine, runs = result['machine'], result['runs']
    loads = ', '.join(f'{load:.1f}' for run in runs.values() for load in run['load'])
    rows = [(name, kind, one['trials'], one['p50_ms'], one['p95_ms'], one['longest_ms'])
            for name, run in runs.items() for kind, one in run['summary']['latency'].items()]
    cpu = [(name, when, *(f'{100 * used[part]:.0f} %' for part in ('world', 'view', 'browser')))
           for name, run in runs.items() for when, used in run['cpu_cores'].items()]
    bars = [(name, bar['what'], bar['bar'], bar['measured'], 'yes' if bar['met'] else 'no')
            for name, run in runs.items() for bar in run['summary']['bars']]
    rates = ', '.join(f'{name} {cell(run["frame_rate_hz"])}' for name, run in runs.items())
    return '\n'.join([
        f'`{result["command"]}`, {result["started"]}, on {machine["processor"]}, '
        f'{machine["cores"]} cores, Chromium {next(iter(runs.values()))["browser"]} without a '
        f'GPU; load {loads} at begin and end; pictures drawn per second: {rates}.\n',
        table(('instruction set', 'bar', 'wanted', 'measured', 'met'), bars),
        table(('instruction set', 'key to picture', 'trials', 'p50 [ms]', 'p95', 'longest'),
              rows),
        table(('instruction set', 'hangs', 'told as lost after [ms]'),
              [(name, part, took_ms) for name, run in runs.items()
               for part, took_ms in run['lost_ms'].items()]),
        table(('instruction set', 'CPU while', 'world', "page's server", 'browser'), cpu)])


def main() -> int:
    """Measure, write the report and return the exit code."""
    parser = argparse.ArgumentParser(prog='python -m bench.glass',
                                     description=__doc__.strip().splitlines()[0])
    parser.add_argument('--trials', type=int, default=120, help='keys to press (default: 120)')
    parser.add_argument('--seconds', type=float, default=8.0,
                        help='to measure CPU at rest, each time (default: 8)')
    parser.add_argument('--only', choices=tuple(ENVIRONMENTS), help='one instruction set')
    parser.add_argument('--out', type=Path, default=ROOT / 'bench' / 'out', metavar='DIR',
                        help='where glass.json and glass.md go (default: bench/out)')
    parser.add_argument('--docs', action='store_true',
                        help=f'also put the tables into {DOCUMENT.relative_to(ROOT)}')
    args = parser.parse_args()
    result = {'command': ' '.join(['python -m bench.glass', *sys.argv[1:]]),
              'machine': describe(),
              'started': datetime.now(timezone.utc).isoformat(timespec='seconds'), 'runs': {}}
    for name in [args.only] if args.only else ENVIRONMENTS:
        run = measure(args.trials, args.seconds, ENVIRONMENTS[name])
        result['runs'][name] = {**run, 'summary': summary(run)}
    text = markdown(result)
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / 'glass.json').write_text(json.dumps(result, indent=1) + '\n')
    (args.out / 'glass.md').write_text(text)
    if args.docs:
        put_into(DOCUMENT, text, *MARKERS)
    print(text)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
