# SPDX-License-Identifier: Apache-2.0
"""
Figures as SVG that goes into a page: its colours are the page's, light or dark. Needs matplotlib.

Every figure is drawn with marker colours, which are then replaced by CSS variables.
"""
from html import escape
import io
import re
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence, Set, Tuple

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np
from numpy.typing import ArrayLike

NAMES = ('ink', 'muted', 'grid', 'truth', 'imagined', 'integrated', 'first', 'mean', 'warn',
         'series-1', 'series-2', 'series-3', 'series-4', 'series-5')
COLOUR = {name: f'#0a0b{number:02x}' for number, name in enumerate(NAMES, 16)}
SERIES = [name for name in NAMES if name.startswith('series')]
STYLE: Dict[Any, Any] = {
    'svg.fonttype': 'none', 'text.parse_math': False, 'font.size': 8.5,
    'font.family': 'sans-serif', 'axes.edgecolor': COLOUR['muted'],
    'axes.labelcolor': COLOUR['ink'], 'text.color': COLOUR['ink'],
    'xtick.color': COLOUR['muted'], 'ytick.color': COLOUR['muted'],
    'grid.color': COLOUR['grid'], 'grid.linewidth': 0.6, 'axes.linewidth': 0.7,
    'lines.linewidth': 1.5, 'lines.solid_capstyle': 'round', 'legend.frameon': False,
    'legend.fontsize': 8.5, 'path.simplify_threshold': 0.3, 'axes.spines.top': False,
    'axes.spines.right': False, 'axes.axisbelow': True}
HALF = 5.4, 2.5  # inches: half the width of a page
LETTERS_PER_INCH, LETTERS_OF_A_LINE = 13, 7  # of legends
MARGIN_M = 0.3  # around a path
MAX_POINTS = 700  # per line; more cannot be seen


class Drawing:
    """A figure in the making: axes, and at the end SVG."""

    def __init__(self, *, size: Tuple[float, float] = HALF, rows: int = 1):
        """
        Begin.

        :param size: width and height, inches
        :param rows: axes above each other, with one x axis
        """
        with rc_context(STYLE):
            self.figure = Figure(figsize=size, layout='constrained')
            FigureCanvasSVG(self.figure)
            self.figure.patch.set_alpha(0.0)
            self.axes = self.figure.subplots(rows, 1, sharex=True, squeeze=False)[:, 0]
        for axes in self.axes:
            axes.patch.set_alpha(0.0)
            axes.grid(True)
            axes.tick_params(length=2.5)
            axes.yaxis.set_major_locator(MaxNLocator(5 if rows == 1 else 3))

    def line(self, x: ArrayLike, y: ArrayLike, colour: str, label: str = '', row: int = 0,
             **style: Any) -> None:
        """Draw a line; NaN leaves a gap."""
        x, y = thinned(np.asarray(x, float), np.asarray(y, float))
        with rc_context(STYLE):
            self.axes[row].plot(x, y, color=COLOUR[colour], label=label or None, **style)

    def labels(self, x: str = '', y: str = '', row: int = 0) -> None:
        """Name the axes."""
        with rc_context(STYLE):
            if x:
                self.axes[-1].set_xlabel(x)
            self.axes[row].set_ylabel(y)

    def legend(self, row: int = 0, **style: Any) -> None:
        """Name the lines above the axes."""
        with rc_context(STYLE):
            _, names = self.axes[row].get_legend_handles_labels()
            room = LETTERS_PER_INCH * self.figure.get_figwidth()
            fits = sum(len(name) + LETTERS_OF_A_LINE for name in names) <= room
            self.axes[row].legend(loc='lower left', bbox_to_anchor=(0, 1.0),
                                  ncols=max(1, len(names) if fits else min(3, len(names))),
                                  borderaxespad=0.1, handlelength=1.6, columnspacing=1.4,
                                  **style)

    def svg(self, title: str) -> str:
        """
        Finish.

        :param title: what it shows, for those who cannot see it
        :return: one ``<svg>`` element, its text as text
        """
        file = io.StringIO()
        with rc_context({**STYLE, 'svg.hashsalt': title}):
            self.figure.savefig(file, format='svg', metadata={'Date': None, 'Creator': None,
                                                              'Format': None, 'Type': None})
        return as_part_of_a_page(file.getvalue(), title)


def thinned(x: np.ndarray, y: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Keep at most ``MAX_POINTS``: of each run of points the first, smallest and largest."""
    if len(x) <= MAX_POINTS:
        return x, y
    keep: Set[int] = {0, len(x) - 1}
    for part in np.array_split(np.arange(len(x)), MAX_POINTS // 3):
        keep.add(part[0])
        if np.isfinite(y[part]).all():
            keep |= {part[np.argmin(y[part])], part[np.argmax(y[part])]}
        else:
            keep |= set(part.tolist())
    rows = np.array(sorted(keep))
    return x[rows], y[rows]


_number = iter(range(10 ** 9))


def as_part_of_a_page(svg: str, title: str) -> str:
    """
    Make matplotlib's SVG fit for being put into HTML beside others.

    :param svg: a whole file
    :param title: what it shows
    :return: the element: colours and font from the page, names that nothing else has, no metadata
    """
    svg = svg[svg.index('<svg'):]
    svg = re.sub(r'<metadata>.*?</metadata>', '', svg, flags=re.S)
    prefix = f'f{next(_number)}-'
    svg = re.sub(r'\bid="', f'id="{prefix}', svg)
    svg = re.sub(r'(xlink:href="#|url\(#)', rf'\g<1>{prefix}', svg)
    svg = re.sub(r'font: ([\d.]+px)[^;"]*', r'font-size: \1', svg)
    svg = re.sub(r'font-family: [^;"]*', 'font-family: inherit', svg)
    for name, colour in COLOUR.items():
        svg = svg.replace(colour, f'var(--{name})')
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>',
                 lambda m: '<svg xmlns:xlink="http://www.w3.org/1999/xlink" role="img" '
                 f'viewBox="{m.group(1)}"><title>{escape(title)}</title>', svg, count=1)
    return re.sub(r'>\s+<', '><', svg).strip()


def psnr(seconds: np.ndarray, errors: Mapping[str, np.ndarray]) -> str:
    """PSNR over time beside the two baselines."""
    drawing = Drawing()
    drawing.line(seconds, errors['psnr_mean_db'], 'mean', 'mean image', lw=1.1)
    drawing.line(seconds, errors['psnr_first_db'], 'first', 'first frame', lw=1.1)
    drawing.line(seconds, errors['psnr_db'], 'imagined', 'imagined')
    high = np.nanmax([*errors['psnr_db'], *errors['psnr_first_db'][1:], 30.0])
    drawing.axes[0].set_ylim(0, min(62, high * 1.08))
    drawing.labels('sim time since the reset [s]', 'PSNR to the truth [dB]')
    drawing.legend()
    return drawing.svg('PSNR of the imagined pictures over time, with baselines')


def states(seconds: np.ndarray, errors: Mapping[str, np.ndarray]) -> str:
    """Errors of position, yaw and joints over time."""
    drawing = Drawing(rows=3, size=(5.4, 3.3))
    for row, (name, label) in enumerate((('position_m', 'base [m]'), ('yaw_deg', 'yaw [deg]'),
                                         ('joint_rad', 'joints [rad]'))):
        drawing.line(seconds, errors[name], 'imagined', row=row)
        drawing.labels(y=label, row=row)
        drawing.axes[row].set_ylim(bottom=0)
    drawing.labels('sim time since the reset [s]', 'joints [rad]', row=2)
    drawing.figure.align_ylabels(list(drawing.axes))
    return drawing.svg('Errors of base position, yaw and joints over time')


def uncertainty(seconds: np.ndarray, errors: Mapping[str, np.ndarray], limit: float) -> str:
    """Predicted against true image error over time."""
    drawing = Drawing()
    drawing.line(seconds, errors['rms'], 'truth', 'true error')
    drawing.line(seconds, errors['uncertainty'], 'imagined', 'predicted')
    if np.isfinite(limit):
        drawing.line(seconds[[0, -1]], [limit, limit], 'muted', 'calibrated up to here', ls=':',
                     lw=1.0)
    drawing.axes[0].set_ylim(bottom=0)
    drawing.labels('sim time since the reset [s]', 'RMS image error, 0 to 1')
    drawing.legend()
    return drawing.svg('Predicted uncertainty and true image error over time')


def path(truth: Optional[np.ndarray], imagined: Optional[np.ndarray],
         integrated: Optional[np.ndarray]) -> str:
    """Top view of where the base went."""
    drawing = Drawing(size=(5.4, 3.3))
    for pose, colour, label, style in ((integrated, 'integrated', 'commands integrated',
                                        {'ls': '--', 'lw': 1.2}),
                                       (truth, 'truth', 'truth', {'lw': 3.2, 'alpha': 0.55}),
                                       (imagined, 'imagined', 'imagined', {})):
        if pose is not None and np.isfinite(pose).any():
            drawing.line(pose[:, 0], pose[:, 1], colour, label, **style)
            end = pose[np.isfinite(pose).all(1)][-1]
            drawing.axes[0].plot(*end[:2], 'o', ms=4, color=COLOUR[colour])
            start = pose[np.isfinite(pose).all(1)][0]
    drawing.axes[0].plot(*start[:2], 's', ms=5, color=COLOUR['ink'], zorder=5)
    drawing.axes[0].set_aspect('equal', 'datalim')
    seen = np.concatenate([p[np.isfinite(p).all(1), :2] for p in (truth, imagined)
                           if p is not None])
    low, high = seen.min(0), seen.max(0)
    room = np.maximum(0.25 * (high - low), MARGIN_M)
    drawing.axes[0].set_xlim(low[0] - room[0], high[0] + room[0], auto=True)
    drawing.axes[0].set_ylim(low[1] - room[1], high[1] + room[1], auto=True)
    drawing.labels('x [m]', 'y [m]')
    drawing.legend()
    return drawing.svg('Path of the base from above')


def commands(seconds: np.ndarray, actions: np.ndarray, names: Sequence[str],
             units: Sequence[str], marks: Mapping[str, Iterable[float]]) -> str:
    """
    Draw what the engine was told over time.

    :param seconds: (f,) wall time since the recording began
    :param actions: (f, a), NaN rows leave gaps
    :param names: of the columns
    :param units: of the columns
    :param marks: kind -> seconds at which commands were refused, clipped or timed out
    :return: SVG
    """
    groups = [[i for i, n in enumerate(names) if n.startswith('base.')],
              [i for i, n in enumerate(names) if not n.startswith('base.')]]
    groups = [group for group in groups if group]
    drawing = Drawing(size=(11.0, 1.3 + 1.25 * len(groups)), rows=len(groups))
    for row, group in enumerate(groups):
        for number, i in enumerate(group):
            name = names[i].removesuffix('.velocity').removeprefix('base.')
            drawing.line(seconds, actions[:, i], SERIES[number % len(SERIES)],
                         f'{name} [{units[i]}]', row=row, lw=1.2, drawstyle='steps-pre')
        drawing.legend(row)
        drawing.labels(y='base' if names[group[0]].startswith('base.') else 'joints', row=row)
    for number, (kind, times) in enumerate(sorted(marks.items())):
        for axes in drawing.axes:
            for time_s in times:
                axes.axvline(time_s, color=COLOUR['warn'], lw=0.9, ls=(0, (1 + 2 * number, 2)))
    drawing.labels('wall time since the recording began [s]',
                   drawing.axes[-1].get_ylabel(), row=-1)
    return drawing.svg('Commands over time')


def timing(seconds: np.ndarray, real_time_factor: np.ndarray, frame_rate_hz: np.ndarray,
           resets: Iterable[float]) -> str:
    """Real-time factor and frame rate over wall time."""
    drawing = Drawing(rows=2, size=(5.4, 2.9))
    for row, (values, label) in enumerate(((real_time_factor, 'real-time factor'),
                                           (frame_rate_hz, 'frames/s'))):
        drawing.line(seconds, values, 'series-1', row=row, lw=1.2)
        drawing.labels(y=label, row=row)
        drawing.axes[row].set_ylim(0, np.nanmax([*values, 1e-3]) * 1.15)
        for at in resets:
            drawing.axes[row].axvline(at, color=COLOUR['muted'], lw=0.8, ls=':')
    drawing.labels('wall time since the recording began [s]', 'frames/s', row=1)
    drawing.figure.align_ylabels(list(drawing.axes))
    return drawing.svg('Real-time factor and frame rate over time')


def latency(latencies_ms: np.ndarray, marks: Mapping[str, float]) -> str:
    """
    Histogram of command-to-frame times.

    :param latencies_ms: (n,)
    :param marks: name -> value, drawn as lines
    :return: SVG
    """
    drawing = Drawing(size=(5.4, 2.9))
    axes = drawing.axes[0]
    high = np.quantile(latencies_ms, 0.995) * 1.05
    with_room = np.linspace(0, max(high, 1.0), 37)
    axes.hist(np.clip(latencies_ms, 0, with_room[-1]), bins=with_room, color=COLOUR['series-1'],
              alpha=0.75)
    for name, value in marks.items():
        axes.axvline(value, color=COLOUR['ink'], lw=1.0, ls='--')
        axes.annotate(f' {name} {value:.0f} ms', (min(value, with_room[-1]), 1.0),
                      xycoords=('data', 'axes fraction'), va='bottom', ha='center', fontsize=8,
                      color=COLOUR['ink'])
    drawing.labels('from command to frame [ms]', 'steps')
    return drawing.svg('Histogram of command-to-frame latency')


def horizons(tables: Sequence[Tuple[str, str, Mapping[str, Any]]], y: str, title: str,
             bottom: Optional[float] = None) -> str:
    """
    Draw means with intervals over the horizon.

    :param tables: list of label, colour, horizon -> entry with mean, low, high
    :param y: name of the y axis
    :param title: of the figure
    :param bottom: of the y axis
    :return: SVG
    """
    drawing = Drawing()
    for label, colour, table in tables:
        rows = [(float(h), e['mean'], e['low'], e['high']) for h, e in table.items()
                if e and None not in (e.get('mean'), e.get('low'), e.get('high'))]
        if not rows:
            continue
        x, mean, low, high = np.array(sorted(rows)).T
        drawing.axes[0].fill_between(x, low, high, color=COLOUR[colour], alpha=0.16, lw=0)
        drawing.line(x, mean, colour, label, marker='o', ms=3)
    axes = drawing.axes[0]
    axes.set_xscale('log')
    ticks = sorted({float(h) for _, _, table in tables for h in table})
    axes.set_xticks(ticks, [f'{t:g}' for t in ticks])
    axes.set_xticks([], minor=True)
    if bottom is not None:
        axes.set_ylim(bottom=bottom)
    drawing.labels('frames after the start', y)
    drawing.legend()
    return drawing.svg(title)


Point = Tuple[float, float, float]  # value, low, high


def agreement(groups: Sequence[Tuple[str, str, str, Sequence[Point], Sequence[Point]]],
              title: str) -> str:
    """
    Draw imagined over true shares, with intervals and the line where they are the same.

    :param groups: label, colour, marker, then the true and the imagined shares (0 to 1) of points
    :param title: of the figure
    :return: SVG
    """
    drawing = Drawing(size=(5.4, 4.9))
    drawing.line([0, 100], [0, 100], 'muted', ls='--', lw=1.0)
    axes = drawing.axes[0]
    for label, colour, marker, true, imagined in groups:
        (x, y), (x_off, y_off) = zip(*(_percent(points) for points in (true, imagined)))
        with rc_context(STYLE):
            axes.errorbar(x, y, xerr=x_off, yerr=y_off, fmt=marker, ms=5, color=COLOUR[colour],
                          elinewidth=0.8, alpha=0.85, label=label)
    axes.set_aspect('equal', 'box')
    for set_ticks, set_limits in ((axes.set_xticks, axes.set_xlim),
                                  (axes.set_yticks, axes.set_ylim)):
        set_ticks(range(0, 101, 20))
        set_limits(-3, 103)
    drawing.labels('true success [%]', 'imagined success [%]')
    drawing.legend()
    return drawing.svg(title)


def differences(rows: Sequence[Tuple[str, str, float, Optional[Sequence[float]]]],
                title: str) -> str:
    """
    Draw differences of shares with their intervals, below each other.

    :param rows: label, colour, difference (-1 to 1), its interval or None
    :param title: of the figure
    :return: SVG
    """
    drawing = Drawing(size=(5.4, max(1.6, 0.7 + 0.19 * len(rows))))
    axes = drawing.axes[0]
    axes.axvline(0.0, color=COLOUR['muted'], lw=1.0, ls='--')
    for number, (_, colour, value, interval) in enumerate(rows):
        low, high = interval if interval is not None else (value, value)
        middle, off = _percent([(value, low, high)])
        with rc_context(STYLE):
            axes.errorbar(middle, [number], xerr=off, fmt='o', ms=4, color=COLOUR[colour],
                          elinewidth=1.0)
    with rc_context(STYLE):
        axes.set_yticks(range(len(rows)), [_short(label) for label, *_ in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.yaxis.grid(False)
    widest = max((abs(bound) for bound in axes.get_xlim()), default=1.0)
    axes.set_xlim(-max(widest, 10.0), max(widest, 10.0))
    drawing.labels('imagined minus true success [percentage points]')
    return drawing.svg(title)


def _percent(points: Sequence[Point]) -> Tuple[np.ndarray, np.ndarray]:
    """Return values in percent, and how far their intervals reach down and up, (2, n)."""
    value, low, high = 100.0 * np.array(points, float).reshape(-1, 3).T
    return value, np.maximum(np.stack([value - low, high - value]), 0.0)


def _short(label: str, letters: int = 22) -> str:
    """Cut the front off a long label: of paths the end tells more."""
    return label if len(label) <= letters else f'...{label[3 - letters:]}'
