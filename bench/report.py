# SPDX-License-Identifier: Apache-2.0
"""From the measurements of all runs to medians, bars, Markdown tables. No ROS."""
from pathlib import Path

from bench.latency import percentile
from lingbot_world_ros.errors import SpecError

BEGIN = '<!-- written by make bench: begin -->'
END = '<!-- written by make bench: end -->'
# What has to hold: condition, quantity, comparison, value.
BARS = (('full_speed', 'frames_per_s', 'at least', 60.0),
        ('full_speed_avx2', 'frames_per_s', 'at least', 30.0),
        ('nominal_busy', 'frames_per_s', 'at least', 14.9),
        ('nominal_busy', 'latency_p95_ms', 'under', 150.0))
STEP_P95_MS = 3.0  # of StepSimulation(1) with an engine that takes no time
CONDITIONS = {
    'full_speed': 'full speed, one core',
    'full_speed_avx2': 'full speed, one core, AVX2 only',
    'nominal': 'real time, one core, other core idle',
    'nominal_busy': 'real time, other core kept busy'}


def median(values):
    """Return the median as a float."""
    return percentile(list(values), 50)


def summary(runs) -> dict:
    """
    Put the repeats of one end-to-end condition together.

    :param runs: dicts of ``end_to_end.measure``
    :return: medians of the runs; latencies over the commands of all runs; sums of what was missed
    """
    latencies_ms = [value for run in runs for value in run['latencies_ms']]
    rates = [run['frames_per_s'] for run in runs]
    moved = [run['moved_as_commanded'] for run in runs if run['moved_as_commanded'] is not None]
    return {
        'runs': len(runs), 'frames_per_s': median(rates), 'slowest_run': min(rates),
        'fastest_run': max(rates), 'commands': len(latencies_ms),
        'latency_p50_ms': percentile(latencies_ms, 50),
        'latency_p95_ms': percentile(latencies_ms, 95),
        'latency_longest_ms': max(latencies_ms, default=None),
        'commands_without_frame': sum(run['commands_without_frame'] for run in runs),
        'moved_as_commanded': sum(moved) / len(moved) if moved else None,
        'interval_p95_ms': median(run['interval_ms']['p95'] for run in runs),
        'frames': sum(run['frames'] for run in runs), 'lost': sum(run['lost'] for run in runs),
        'sim_cores': median(run['cpu_cores']['sim'] for run in runs),
        'other_cores': median(run['cpu_cores']['others'] for run in runs),
        'resident_mib': median(run['memory_mib']['resident'] for run in runs),
        'own_mib': median(run['memory_mib']['own'] for run in runs),
        'first_image_s': median(run['first_image_s'] for run in runs)}


def engine_summary(runs) -> dict:
    """Medians over the repeats of ``engine.measure``."""
    return {'runs': len(runs), 'first_image_s': median(run['first_image_s'] for run in runs),
            'step_p10_ms': median(run['step_ms']['p10'] for run in runs),
            'step_p50_ms': median(run['step_ms']['p50'] for run in runs),
            'step_p95_ms': median(run['step_ms']['p95'] for run in runs),
            'dynamics_p50_ms': median(run['dynamics_ms']['p50'] for run in runs),
            'renderer_p50_ms': median(run['renderer_ms']['p50'] for run in runs),
            'other_cores': median(run['cpu_cores']['others'] for run in runs),
            'resident_mib': median(run['memory_mib']['resident'] for run in runs)}


def judge(end_to_end: dict, stepping=None) -> list:
    """
    Compare with the bars.

    :param end_to_end: condition -> ``summary``; conditions that were not run are left out
    :param stepping: what ``bench.stepping`` printed, None if it was not run
    :return: one dict per bar: what, measured, bar, met
    """
    verdicts = []
    for condition, quantity, comparison, bar in BARS:
        if condition in end_to_end:
            measured = end_to_end[condition][quantity]
            met = measured is not None and (measured >= bar if comparison == 'at least'
                                            else measured < bar)
            verdicts.append({'what': f'{quantity}, {CONDITIONS[condition]}', 'measured': measured,
                             'bar': f'{comparison} {bar:g}', 'met': met})
    if stepping:
        p95_ms = stepping['step']['p95_ms']
        verdicts.append({'what': 'StepSimulation(1) p95 ms, without the engine',
                         'measured': p95_ms, 'bar': f'under {STEP_P95_MS:g}',
                         'met': p95_ms < STEP_P95_MS})
        verdicts.append({'what': 'commands sent before a step that act in it',
                         'measured': stepping['acted_on'], 'bar': f'{stepping["commands"]}',
                         'met': stepping['acted_on'] == stepping['commands']})
    return verdicts


def table(head, rows) -> str:
    """
    Write a Markdown table.

    :param head: column titles
    :param rows: rows of cells; floats get digits by size, None a dash
    :return: its lines
    """
    lines = [head, ['---'] * len(head), *[[cell(value) for value in row] for row in rows]]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines) + '\n'


def cell(value) -> str:
    """Write one value with as many digits as mean something."""
    if value is None:
        return '–'
    if isinstance(value, float):
        return f'{value:.{0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2}f}'
    return str(value)


def markdown(result: dict) -> str:
    """
    Write all tables of a result.

    :param result: what ``python -m bench`` writes as JSON
    :return: Markdown
    """
    parts = [_machine(result), _bars(result['bars']), _end_to_end(result['end_to_end']),
             _engine(result['engine'])]
    if result['runtimes']:
        parts.append(_runtimes(result['runtimes']))
    if result['transport']:
        parts.append(_transport(result['transport']))
    if result.get('stepping'):
        parts.append(_stepping(result['stepping']))
    if result.get('costs'):
        parts.append(_costs(result['costs']))
    return '\n'.join(parts)


def _machine(result):
    machine = result['machine']
    packages = ', '.join(f'{name} {version}' for name, version in machine['packages'].items()
                         if version)
    return (f'`{result["command"]}`, {result["started"]}, on {machine["processor"]}, '
            f'{machine["cores"]} cores, {machine["memory_mib"]} MiB, '
            f'{" ".join(machine["instruction_sets"])}; Python {machine["python"]}, {packages}; '
            f'load {machine["load"]:.1f} at the start, niceness {machine["niceness"]}.\n')


def _bars(bars):
    return table(('bar', 'wanted', 'measured', 'met'),
                 [(bar['what'].replace('_', ' '), bar['bar'], bar['measured'],
                   'yes' if bar['met'] else 'no') for bar in bars])


def _end_to_end(conditions):
    rows = [(CONDITIONS[name], c['frames_per_s'],
             f'{cell(c["slowest_run"])} to {cell(c["fastest_run"])}', c['interval_p95_ms'],
             f'{c["lost"]} of {c["frames"] + c["lost"]}', c['latency_p50_ms'],
             c['latency_p95_ms'], c['latency_longest_ms'], c['commands'],
             f'{100 * c["sim_cores"]:.0f} %', f'{100 * c["other_cores"]:.0f} %',
             c['resident_mib'], c['first_image_s'])
            for name, c in conditions.items()]
    return '### From command to image, over DDS\n\n' + table(
        ('simulator', 'frames/s', 'runs', 'interval p95 [ms]', 'frames lost',
         'latency p50 [ms]', 'p95', 'longest', 'commands', 'CPU', 'CPU of others', 'memory [MiB]',
         'first image [s]'), rows)


def _engine(engines):
    return '### Engine alone, one thread\n\n' + table(
        ('instruction set', 'step p10 [ms]', 'p50', 'p95', 'renderer p50', 'dynamics p50',
         'CPU of others', 'memory [MiB]', 'first image [s]'),
        [({'native': 'all', 'avx2': 'AVX2 only'}[name], e['step_p10_ms'], e['step_p50_ms'],
          e['step_p95_ms'], e['renderer_p50_ms'], e['dynamics_p50_ms'],
          f'{100 * e["other_cores"]:.0f} %', e['resident_mib'], e['first_image_s'])
         for name, e in engines.items()])


def _runtimes(runtimes):
    return '### OpenVINO and ONNX Runtime, one thread, all instruction sets\n\n' + table(
        ('graph', 'OpenVINO p10 [ms]', 'p50', 'ONNX Runtime p10 [ms]', 'p50', 'ratio',
         'load [s]', 'largest difference'),
        [(graph, r['openvino']['p10_ms'], r['openvino']['p50_ms'], r['onnxruntime']['p10_ms'],
          r['onnxruntime']['p50_ms'], r['onnxruntime_over_openvino'],
          f'{cell(r["openvino"]["load_s"])}, {cell(r["onnxruntime"]["load_s"])}',
          f'{r["largest_difference"]:.1g}') for graph, r in runtimes.items()])


def _transport(sizes):
    return '### One image from process to process\n\n' + table(
        ('size', 'KiB', 'p50 [ms]', 'p95', 'received'),
        [(f'{s["width_px"]}x{s["height_px"]}', s['bytes'] / 1024, s['p50_ms'], s['p95_ms'],
          f'{s["received"]} of {s["sent"]}') for s in sizes])


def _stepping(stepping):
    rows = (('GetSimulationState', 'state'), ('StepSimulation(1)', 'step'),
            ('StepSimulation(1) right after a command', 'step_after_command'),
            ('StepSimulation(10)', 'steps_10'), ('per step of these', 'per_step_of_10'))
    return '### A call without the engine, from process to process\n\n' + table(
        ('call', 'p50 [ms]', 'p95', 'longest'),
        [(name, stepping[key]['p50_ms'], stepping[key]['p95_ms'], stepping[key]['longest_ms'])
         for name, key in rows])


def _costs(costs):
    return '### Parts of a node, CPU time\n\n' + table(
        ('part', 'p50 [ms]', 'p95', 'ratio of p50', 'ratio of p95'),
        [(part, cost['p50_ms'], cost['p95_ms'], cost.get('p50_ratio'),
          cost.get('p95_ratio')) for part, cost in costs.items()])


def put_into(path: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """
    Replace what stands between the markers of a document.

    :param path: Markdown file with the lines ``begin`` and ``end``
    :param text: goes between them
    :param begin: marker before
    :param end: marker after
    :raises SpecError: the markers are missing
    """
    before, _, rest = path.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise SpecError(f'{path} lacks the lines "{begin}" and "{end}"; put them back.')
    path.write_text(f'{before}{begin}\n\n{text}\n{end}{after}')
