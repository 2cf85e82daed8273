# SPDX-License-Identifier: Apache-2.0
"""The report of the training of a policy: how it went, round after round."""
import json
from pathlib import Path
from typing import Any, Dict, List

from lingbot_world_ros.environment import environment
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.policies.network import read_about, ROUNDS
from lingbot_world_ros.report.figures import Drawing
from lingbot_world_ros.report.page import Chart, Commands, Page, Section, Table, Tile
import numpy as np

COLUMNS = 'round', 'frames', 'begun', 'reached', 'loss', 'seconds'


def is_training(path: Path) -> bool:
    """Tell whether ``lingbot-world train-policy`` wrote that folder."""
    return path.is_dir() and (path / ROUNDS).is_file()


def training_page(folder: Path, title: str = '') -> Page:
    """
    Write the report of a training, whether it has ended or not.

    :param folder: that ``lingbot-world train-policy`` wrote
    :param title: instead of one that tells task and engine
    :return: the page
    :raises SpecError: damaged
    """
    about, rows = read_about(folder), _read_rounds(folder / ROUNDS)
    share = np.array([row['reached'] / max(row['begun'], 1) for row in rows])
    frames = np.cumsum([row['frames'] for row in rows])
    facts = [(name, str(about[name])) for name in ('engine', 'model', 'robot', 'method', 'library',
                                                   'seed') if name in about]
    curves = Section('Round after round', [
        Chart(_curve(frames, 100.0 * share, 'episodes that reached it [%]', 'Success'),
              'Episodes that reached their goal', 'Of those that began in the round, the last '
              'ones of which may not have ended. In the first round the expert acts, disturbed; '
              'then the learner does.'),
        Chart(_curve(frames, [row['loss'] for row in rows], 'mean squared error', 'Loss'),
              'What is left of the error', "Between the learner's actions and the expert's, over "
              'all that was seen so far.'),
        Table(('round', 'frames', 'began', 'reached', 'loss', 'seconds'),
              [(f'{row["round"]}', f'{row["frames"]}', f'{row["begun"]}', f'{row["reached"]}',
                f'{row["loss"]:.4f}', f'{row["seconds"]:.0f}') for row in rows], 'Rounds')])
    made = Section('How this was made', [Commands([('this report', environment()['command'])])])
    return Page(title or f'{about["task"]}, learned in {about["engine"]}',
                'Report of a training', ['How well it does in the true rooms is not known here: '
                                         '"lingbot-world judge" tells.'],
                facts, [Tile('rounds', f'{len(rows)}', ''), Tile('frames', f'{frames[-1]}', ''),
                        Tile('reached in the last', f'{100 * share[-1]:.0f} %',
                             f'{rows[-1]["reached"]} of {rows[-1]["begun"]}')],
                [curves, made])


def _curve(frames: Any, values: Any, label: str, title: str) -> str:
    drawing = Drawing()
    drawing.line(frames, values, 'imagined', marker='o', markersize=3)
    drawing.labels('engine frames', label)
    return drawing.svg(title)


def _read_rounds(path: Path) -> List[Dict[str, Any]]:
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        if not rows or any(float(row[name]) < 0 for row in rows for name in COLUMNS):
            raise ValueError('no rounds')
    except (OSError, UnicodeDecodeError, ValueError, KeyError, TypeError) as error:
        raise SpecError(f'{path} cannot be read ({type(error).__name__}: {error}); the same '
                        '"lingbot-world train-policy" in another folder writes it anew.'
                        ) from error
    return rows
