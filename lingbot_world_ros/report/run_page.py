# SPDX-License-Identifier: Apache-2.0
"""The report of a recorded run, in words, tables and figures."""
from typing import Dict, List, Optional, Sequence, Tuple

from lingbot_world_ros.environment import environment
from lingbot_world_ros.evaluation.metrics import spearman
from lingbot_world_ros.recording.replay import Verdict
from lingbot_world_ros.report import figures, pictures
from lingbot_world_ros.report.compare import Comparer, Comparison
from lingbot_world_ros.report.gather import Episode, merged, Recording
from lingbot_world_ros.report.page import (Animation, Block, Chart, Commands, environment_table,
                                           Page, Paragraph, Section, Strip, Table, Tile)
import numpy as np

HORIZONS = (1, 5, 15, 30, 60, 150, 300, 900)  # frames
STRIP_COLUMNS = 8
MAX_PICTURED = 4  # segments with pictures; of the others there are numbers
MAX_EVENTS = 60
MAX_GAP_S = 1.0  # without a status, above which a line is broken
LATENCY_TEXT = (
    'From the moment a command was received to the moment the first frame made with it left the '
    'world; wall time, one value for each step that acted on a new command. It holds the wait for '
    'the next step (up to one frame period in real time) and the making of the frame, not the way '
    'of the message and the picture through ROS. p50: half of the steps were faster; p95: one in '
    'twenty was slower.')


def run_page(recording: Recording, comparer: Optional[Comparer], *, title: str = '',
             verdicts: Sequence[Verdict] = ()) -> Page:
    """
    Write the report of a recording.

    :param recording: gathered
    :param comparer: finds frames and truth
    :param title: instead of the recording's name
    :param verdicts: of ``replay.verify``, if that was asked for
    :return: the page
    """
    pictured = pictured_episodes(recording)
    sections: List[Section] = []
    comparisons: List[Comparison] = []
    for number, episode in enumerate(recording.episodes, 1):
        if episode in pictured:
            assert comparer is not None  # only a recording without pictures has none
            comparison = comparer.compare(episode)
            sections.append(_segment_section(number, comparison, len(recording.episodes)))
            comparisons.append(_without_pictures(comparison))
    left_out = len(recording.episodes) - len(pictured)
    if left_out:
        sections[-1].blocks.append(Paragraph(
            f'{left_out} more segments are without pictures here: the {MAX_PICTURED} longest are '
            'shown.'))
    sections += [_run_section(recording), _events_section(recording)]
    if verdicts:
        sections.append(_verify_section(verdicts))
    sections.append(_made_section(recording))
    return Page(title or recording.path.resolve().name, 'Report of a recorded run',
                _lead(recording, comparisons), _facts(recording),
                _tiles(recording, comparisons, verdicts), sections)


def pictured_episodes(recording: Recording) -> List[Episode]:
    """Return the segments that get pictures: the longest ones."""
    longest = sorted(recording.episodes, key=lambda c: -len(c.step))[:MAX_PICTURED]
    return [c for c in recording.episodes if c in longest]


def _without_pictures(comparison: Comparison) -> Comparison:
    for frames in (comparison.imagined, comparison.truth):
        if frames is not None:
            frames.rgb = [None] * len(frames.rgb)
    return comparison


def _count(number: int, noun: str) -> str:
    return f'{number} {noun}{"" if number == 1 else "s"}'


def _lead(recording: Recording, comparisons: Sequence[Comparison]) -> List[str]:
    first = recording.episodes[0]
    wall_s, sim_s = recording.duration_s, recording.sim_s
    lead = [f'The engine {first.segment.world.engine} made {recording.num_frames} frames, '
            f'{sim_s:.1f} s of sim time, in {wall_s:.1f} s of wall time, in '
            f'{_count(len(recording.episodes), "segment")} (from one reset to the next).']
    compared = [c for c in comparisons if c.errors]
    if compared:
        lead.append(_verdict(max(compared, key=lambda c: len(c.seconds))))
    elif comparisons:
        lead.append(f'No truth: {comparisons[0].no_truth}')
    return lead


def _verdict(comparison: Comparison) -> str:
    """Say how the longest compared segment ended."""
    errors, seconds = comparison.errors, comparison.seconds
    last = np.flatnonzero(np.isfinite(errors['psnr_db']))
    if not len(last):
        return 'No frame could be compared with the truth.'
    last = last[-1]
    text = (f'After {seconds[last]:.1f} s in open loop the imagined picture has a PSNR of '
            f'{errors["psnr_db"][last]:.1f} dB to the truth; the first frame kept for ever would '
            f'have {errors["psnr_first_db"][last]:.1f} dB, the mean image of the scene '
            f'{errors["psnr_mean_db"][last]:.1f} dB.')
    if np.isfinite(errors['position_m'][last]):
        text += (f' The base is {100 * errors["position_m"][last]:.1f} cm and '
                 f'{errors["yaw_deg"][last]:.2f} degrees off.')
    return text


def _facts(recording: Recording) -> List[Tuple[str, str]]:
    first = recording.episodes[0]
    spec = first.spec
    scenes = list(dict.fromkeys(c.segment.world.scene for c in recording.episodes))
    seeds = list(dict.fromkeys(str(c.segment.seed) for c in recording.episodes))
    prompts = list(dict.fromkeys(step.prompt for c in recording.episodes
                                 for step in c.segment.steps if step.prompt))
    facts = [('engine', first.segment.world.engine), ('model', first.segment.world.model),
             ('scene', ', '.join(scenes)), ('seed', ', '.join(seeds[:8])),
             ('mode', ', '.join(dict.fromkeys(c.mode for c in recording.episodes))),
             ('picture', f'{spec.width} x {spec.height} at {spec.frame_rate:g} Hz'),
             ('frames per step', str(spec.frames_per_step)),
             ('namespace', recording.namespace),
             ('prompt', ' / '.join(prompts[:3]) or 'none')]
    return [(name, str(value)) for name, value in facts]


def _tiles(recording: Recording, comparisons: Sequence[Comparison],
           verdicts: Sequence[Verdict]) -> List[Tile]:
    factor, rate = (recording.column(n) for n in ('real_time_factor', 'frame_rate_hz'))
    running = factor > 0
    latency_ms = recording.latencies_s * 1e3
    counts = recording.counts
    problems = {name: counts[name] for name in ('refused', 'clipped', 'timed out')}
    tiles = [Tile('sim time', f'{recording.sim_s:.1f} s', f'{recording.num_frames} frames')]
    compared = [c for c in comparisons if c.errors]
    if compared:
        tiles.append(_psnr_tile(max(compared, key=lambda c: len(c.seconds))))
    if running.any():
        whole = recording.sim_s / recording.duration_s if recording.duration_s else np.nan
        tiles.append(Tile('real-time factor', f'{np.median(factor[running]):.2f}',
                          f'median, {np.median(rate[running]):.1f} frames/s; {_number(whole, 2)} '
                          'over all, pauses too'))
    if len(latency_ms):
        low, high = np.percentile(latency_ms, (50, 95))
        tiles.append(Tile('latency', f'{low:.0f} ms',
                          f'command to frame, p50; p95 {high:.0f} ms'))
    tiles += [Tile('late frames', str(counts['late frames']),
                   f'of {recording.num_frames}', 'warn' if counts['late frames'] else ''),
              Tile('commands', str(sum(problems.values())),
                   ', '.join(f'{n} {name}' for name, n in problems.items()),
                   'warn' if problems['refused'] else ''),
              _fault_tile(recording)]
    if verdicts:
        same = all(v.outcome == 'same' for v in verdicts)
        tiles.append(Tile('replay', 'same' if same else
                          next(v.outcome for v in verdicts if v.outcome != 'same'),
                          f'{sum(v.num_frames for v in verdicts)} frames are equal',
                          'good' if same else 'warn'))
    return tiles


def _fault_tile(recording: Recording) -> Tile:
    faults = sum(event.kind == 'fault' for event in recording.events)
    return Tile('faults', str(faults), _count(recording.counts['recoveries'], 'step') +
                ' repeated', 'warn' if faults else '')


def _psnr_tile(comparison: Comparison) -> Tile:
    values = comparison.errors['psnr_db']
    margin = np.nanmean(values - comparison.errors['psnr_mean_db'])
    return Tile('mean PSNR', f'{np.nanmean(values):.1f} dB',
                f'to the truth; {margin:+.1f} dB to the mean image',
                'good' if margin > 0 else 'warn')


# A segment


def _segment_section(number: int, comparison: Comparison, count: int) -> Section:
    episode = comparison.episode
    name = f'Segment {number}: ' if count > 1 else ''
    section = Section(f'{name}{episode.title}: truth beside imagination'
                      if comparison.truth else f'{name}{episode.title}')
    section.text = _segment_text(comparison)
    section.blocks += _pictures(comparison)
    if comparison.no_truth:
        section.blocks.append(Paragraph(f'No truth: {comparison.no_truth}', 'warn'))
    if comparison.no_images:
        section.blocks.append(Paragraph(f'No imagined pictures: {comparison.no_images}', 'warn'))
    if comparison.errors:
        section.blocks += _error_blocks(comparison)
    elif comparison.imagined is not None and np.isfinite(comparison.imagined.pose).any():
        section.blocks.append(_path_chart(comparison))
    return section


def _segment_text(comparison: Comparison) -> str:
    episode, parts = comparison.episode, []
    steps = len(episode.step) - (episode.step[:1] == [0])
    parts.append(f'{_count(steps, "step")} were recorded, '
                 f'{steps * episode.spec.frames_per_step * episode.period_s:.1f} s of sim time.')
    if comparison.truth is not None:
        parts.append(f'Truth: {comparison.truth.source}.')
    if comparison.imagined is not None:
        parts.append(f'Imagination: {comparison.imagined.source}.')
    if episode.segment.problem and episode.num_frames:
        parts.append(f'Only the beginning can be made again: {episode.segment.problem}.')
    if comparison.num_left_out:
        parts.append(f'{comparison.num_left_out} frames beyond the limit of this report are not '
                     'compared; --seconds takes more.')
    if any(step.anchors for step in episode.segment.steps):
        parts.append('Robot or objects were put elsewhere on the way; truth and imagination both '
                     'go on from there.')
    return ' '.join(parts)


def _pictures(comparison: Comparison) -> List[Block]:
    worlds = {name: frames.rgb for name, frames in (('truth', comparison.truth),
                                                    ('imagined', comparison.imagined))
              if frames is not None and frames.num_images}
    if not worlds:
        return []
    count, period_s = max(map(len, worlds.values())), comparison.episode.period_s
    rows = list(zip(*worlds.values()))
    movie = pictures.movie(rows, period_s)
    speed = ('In real time.' if abs(movie.speed - 1) < 0.02 else
             f'{movie.speed:.1f} times as fast as real time.')
    animation = Animation(
        movie, list(worlds), 'The run',
        f'{speed} {count} frames, {count * period_s:.1f} s; the bar below shows how far it is.')
    return [animation, _strip(worlds, count, period_s)]


def _strip(worlds: Dict[str, List[Optional[np.ndarray]]], count: int, period_s: float) -> Strip:
    columns = pictures.evenly(count, STRIP_COLUMNS)
    rows = [(name, [pictures.picture(rgb[i] if i < len(rgb) else None) for i in columns])
            for name, rgb in worlds.items()]
    caption = ''
    if len(worlds) == 2:
        truth, imagined = worlds['truth'], worlds['imagined']
        rows.append(('difference', [pictures.picture(pictures.difference(
            truth[i], imagined[i])) for i in columns]))
        caption = (f'Difference: mean absolute difference of the colours, '
                   f'{pictures.DIFFERENCE_GAIN} times; black is none.')
    return Strip([f'{i * period_s:.1f} s' for i in columns], rows, 'Film strip', caption)


def _error_blocks(comparison: Comparison) -> List[Block]:
    errors, seconds, spec = comparison.errors, comparison.seconds, comparison.episode.spec
    blocks: List[Block] = [
        _horizon_table(comparison),
        Chart(figures.psnr(seconds, errors), 'Picture error over the horizon',
              'Higher is better, capped at 60 dB. First frame: the true first frame for ever. '
              'Mean image: of the scene, over 200 random states. A world model has to beat both.'),
        Chart(figures.states(seconds, errors), 'State error over the horizon',
              'Base position, yaw, and the mean of the revolute joints, imagined minus true; '
              'lower is better.')]
    known = np.isfinite(errors['uncertainty'])
    if known.any():
        limit = float(getattr(spec, 'uncertainty_limit', np.nan))
        rank = spearman(errors['uncertainty'], errors['rms'])
        told = '' if np.isnan(rank) else f' Rank correlation of the two (Spearman): {rank:.2f}.'
        blocks.append(Chart(
            figures.uncertainty(seconds, errors, limit), 'Predicted against true error',
            'What the world says of its own picture error, beside the error it has; RMS of all '
            f'pixels, 1 is full scale.{told}'))
    return blocks + [_path_chart(comparison)]


def _path_chart(comparison: Comparison) -> Chart:
    truth, imagined = comparison.truth, comparison.imagined
    return Chart(figures.path(truth.pose if truth else None, imagined.pose if imagined else None,
                              comparison.integrated), 'Path of the base from above',
                 'The square is the start, dots are the ends.' + (
                     ' Integrated: where the base would be had it done what it was told, without '
                     'inertia and walls; that may leave the picture.'
                     if comparison.integrated is not None else ''))


def _horizon_table(comparison: Comparison) -> Table:
    errors, seconds = comparison.errors, comparison.seconds
    last = len(seconds) - 1
    rows = []
    for frame in sorted({h for h in HORIZONS if h < last} | {last}):
        at = {name: values[frame] for name, values in errors.items()}
        rows.append([f'{frame}', _number(seconds[frame], 2), _number(at['psnr_db'], 1),
                     _number(at['psnr_first_db'], 1), _number(at['psnr_mean_db'], 1),
                     _number(at['position_m'], 3), _number(at['yaw_deg'], 2),
                     _number(at['joint_rad'], 4), _number(at['uncertainty'], 3),
                     _number(at['rms'], 3)])
    return Table(('frame', 'time [s]', 'PSNR imagined [dB]', 'first frame', 'mean image',
                  'base [m]', 'yaw [deg]', 'joints [rad]', 'predicted error', 'true error'),
                 rows, 'Error by horizon', 'One run, so no intervals: '
                 '"lingbot-world evaluate" has them.')


def _number(value: float, digits: int) -> str:
    return f'{value:.{digits}f}' if np.isfinite(value) else '-'


# The whole run


def _run_section(recording: Recording) -> Section:
    section = Section('Commands, rate and latency')
    names, units = _layout(recording)
    seconds, actions = _actions(recording, len(names))
    if len(seconds):
        marks = {kind: [e.wall_s for e in merged(recording.events) if e.kind == kind]
                 for kind in ('refused', 'clipped', 'timed out')}
        section.blocks.append(Chart(
            figures.commands(seconds, actions, names, units, marks), 'What the engine was told',
            'Base twist and joint speeds of every frame, after limits. Red lines: commands were '
            'refused, clipped or timed out; see the list below.', wide=True))
    wall_s, factor = recording.wall_s, recording.column('real_time_factor')
    if len(wall_s) > 1:
        resets = [e.wall_s for e in recording.events if e.kind == 'start']
        wall, factor, rate = _broken(wall_s, factor, recording.column('frame_rate_hz'))
        section.blocks.append(Chart(
            figures.timing(wall, factor, rate, resets), 'Real-time factor and frame rate',
            'Sim seconds per wall second and frames per wall second, over the last second each. '
            'Dotted lines: resets.'))
    latency_ms = recording.latencies_s * 1e3
    if len(latency_ms):
        low, high = np.percentile(latency_ms, (50, 95))
        section.blocks.append(Chart(
            figures.latency(latency_ms, {'p50': low, 'p95': high}),
            'Command-to-frame latency', f'{LATENCY_TEXT} {_count(len(latency_ms), "step")}, '
            f'longest {latency_ms.max():.0f} ms.'))
    else:
        section.blocks.append(Paragraph(
            'No new command came in while this was recorded, so there is no latency to tell.'))
    return section


def _layout(recording: Recording) -> Tuple[List[str], List[str]]:
    spec = recording.episodes[0].spec
    return list(spec.action_names), list(spec.action_units)


def _actions(recording: Recording, num_columns: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return when each frame's action was in effect, wall time [s], and the actions."""
    times, actions = [], []
    for episode in recording.episodes:
        if len(episode.spec.action_names) != num_columns:
            continue
        for at_ns, told in zip(episode.received_ns, episode.told):
            end_s = (at_ns - recording.start_ns) * 1e-9
            times += [end_s - episode.period_s * k for k in reversed(range(len(told)))]
            actions += list(told)
    if not times:
        return np.zeros(0), np.zeros((0, num_columns))
    wall, *columns = _broken(np.array(times), *np.array(actions, np.float64).T)
    return wall, np.array(columns).T


def _broken(wall_s: np.ndarray, *columns: np.ndarray) -> Tuple[np.ndarray, ...]:
    """Put NaN where nothing was heard for a while."""
    gaps = np.flatnonzero(np.diff(wall_s) > MAX_GAP_S) + 1
    return (np.insert(wall_s, gaps, wall_s[gaps - 1] + 1e-3),
            *(np.insert(column.astype(np.float64), gaps, np.nan) for column in columns))


def _events_section(recording: Recording) -> Section:
    section = Section('What happened')
    events = merged(recording.events)
    rows = [(f'{event.wall_s:.2f}', (event.kind, 'text tag warn' if event.kind in
                                     ('fault', 'refused') else 'text tag'), (event.text, 'text'))
            for event in events[:MAX_EVENTS]]
    more = len(events) - len(rows)
    section.blocks.append(Table(
        ('wall time [s]', 'what', ''), rows, caption=f'{more} more are left out.' if more else ''))
    counts = ', '.join(f'{name} {number}' for name, number in recording.counts.items())
    section.blocks.append(Paragraph(
        f'Counted while recording: {counts}. Refused commands change nothing; clipped ones are '
        'brought to the limits; a source that falls silent is timed out, and its speeds become '
        'zero. A late frame left more than one frame period after its time.'))
    return section


def _verify_section(verdicts: Sequence[Verdict]) -> Section:
    rows = [(str(v.segment.number),
             (f'{v.segment.world.scene}, seed {v.segment.seed}', 'text'),
             str(v.segment.last_step), (v.outcome, 'good' if v.outcome == 'same' else 'warn'),
             str(v.num_frames), (v.text, 'text')) for v in verdicts]
    return Section('Replayed and compared byte by byte', [Table(
        ('segment', 'world', 'steps', 'outcome', 'equal frames', ''), rows)],
        'The engine was given the recorded actions again; digests of all pictures, poses and '
        'joints were compared with the recorded ones.')


def _made_section(recording: Recording) -> Section:
    commands = [('this report', environment()['command'])]
    if recording.made_by.get('command'):
        commands.insert(0, ('the recording', str(recording.made_by['command'])))
    topics = Table(('topic', 'type', 'messages'), [
        ((name, 'text'), (kind, 'text'), str(count)) for name, kind, count in recording.topics],
        f'Recorded topics ({len(recording.topics)})', folded=True)
    return Section('How this was made', [
        Commands(commands),
        environment_table(recording.made_by, 'the recording'), topics])


def totals(recording: Recording, limit_s: float) -> dict:
    """
    Say how much will be done, for a progress bar.

    :param recording: gathered
    :param limit_s: as in ``Comparer``
    :return: kind of work -> frames
    """
    frames = sum(min(c.num_frames or len(c.step), round(limit_s / c.period_s))
                 for c in pictured_episodes(recording))
    return {'recorded frames': frames, 'truth': frames, 'imagination': frames,
            'replay': sum(c.num_frames for c in recording.episodes)}
