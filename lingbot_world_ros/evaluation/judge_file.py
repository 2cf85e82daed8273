# SPDX-License-Identifier: Apache-2.0
"""
The file of a judging: it grows while episodes are played, and the same judging goes on from it.

It is replaced as a whole, so it is never half written. What was played counts again only if
everything that it follows from is the same.
"""
from dataclasses import asdict
import json
from pathlib import Path
from typing import Any, Dict, List, Mapping

from lingbot_world_ros.errors import quoted, SpecError
from lingbot_world_ros.evaluation.judge import about, JudgeSpec
from lingbot_world_ros.paths import write_whole

NAME = 'judge.json'
MAX_BYTES = 500_000_000
ELSE = 'name another folder with -o, or begin anew with --overwrite'


def read_judged(path: Path) -> Dict[str, Any]:
    """
    Read what ``lingbot-world judge`` wrote.

    :param path: of ``judge.json``
    :return: what is in it: ``spec``, ``episodes``, and ``scores`` if it was played to its end
    :raises SpecError: it cannot be read, or is something else
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise SpecError(f'{path} is larger than {MAX_BYTES // 1_000_000} MB, so it is no '
                            'judging.')
        results = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f'{path} cannot be read ({error}); write it with "lingbot-world '
                        'judge".') from error
    if not isinstance(results, dict) or not {'spec', 'truth', 'episodes'} <= set(results):
        raise SpecError(f'{path} is no judging; write it with "lingbot-world judge".')
    return results


def played_before(path: Path, spec: JudgeSpec) -> List[Dict[str, Any]]:
    """
    Return the episodes that need not be played again.

    :param path: of ``judge.json``, which need not be there
    :param spec: what is judged
    :return: as ``judge`` takes them
    :raises SpecError: the file is of something else, or damaged; says what to do. It is left as
        it is
    """
    if not path.exists():
        return []
    try:
        results = read_judged(path)
    except SpecError as error:
        raise SpecError(f'{str(error).partition(";")[0].rstrip(".")}; {ELSE}.') from error
    wanted: Dict[str, Any] = json.loads(json.dumps({**asdict(spec), **about(spec)}))
    there = {**results['spec'], **{name: results.get(name) for name in about(spec)}}
    if not spec.engine_options:  # each row is then the same beside any others
        wanted.pop('rows')
    for name, value in wanted.items():
        if there.get(name) != value:
            raise SpecError(f'{path} is of another judging: {name} {_told(there.get(name))}, now '
                            f'{_told(value)}; {ELSE}.')
    return list(results['episodes'])


def write_judged(path: Path, results: Mapping[str, Any]) -> None:
    """
    Replace the file in one go.

    :param path: of ``judge.json``; its folder is made
    :param results: what is known so far, or all
    :raises SpecError: it cannot be written
    """
    is_whole = 'scores' in results
    text = json.dumps(results, indent=1 if is_whole else None)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text + '\n')
    except OSError as error:
        raise SpecError(f'{path} cannot be written ({error.strerror}); name another folder with '
                        '-o.') from error


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return quoted(json.dumps(value))[1:-1] if value else 'none'
    return quoted(', '.join(map(str, value)) if isinstance(value, list) else value)[1:-1]
