# SPDX-License-Identifier: Apache-2.0
"""
``lingbot-world sim`` with an engine that fails on demand; otherwise what users start.

``python -m bench.faulty_sim FILE ARGUMENTS OF SIM``: faults are words in FILE (``FaultyWorld``).
"""
from functools import partial
from pathlib import Path
import sys
import time

from lingbot_world_ros.engines.registry import make_world

HANG_S = 4.0  # longer than a step may take; in the end the thread comes back and can be counted


class FaultyWorld:
    """
    An engine whose steps use up the faults that a file names, one per step.

    ``error`` raises, ``memory`` raises MemoryError, ``nan`` returns numbers that are not finite,
    ``hang`` takes too long, at the longest until ``end_hang``.
    """

    def __init__(self, world, faults: Path, hang_s: float = HANG_S):
        """
        Wrap an engine.

        :param world: the engine
        :param faults: file that need not exist; see ``order_faults``
        :param hang_s: how long a step takes that hangs
        """
        self._world, self._faults, self._hang_s = world, faults, hang_s

    def __getattr__(self, name):
        return getattr(self._world, name)

    def step(self, actions, **kwargs):
        """Fail if that was ordered; see ``WorldModel.step``."""
        fault = self._next_fault()
        if fault == 'error':
            raise RuntimeError('this engine fails on demand')
        if fault == 'memory':
            raise MemoryError('this engine lacks memory on demand')
        if fault == 'hang':
            self._hang()
        observation = self._world.step(actions, **kwargs)
        if fault == 'nan':
            observation.base_pose = observation.base_pose * float('nan')
        return observation

    def _hang(self):
        ended, end_s = _end_of_hang(self._faults), time.monotonic() + self._hang_s
        while time.monotonic() < end_s and not ended.exists():
            time.sleep(0.01)
        ended.unlink(missing_ok=True)

    def _next_fault(self):
        if not self._faults.exists():
            return ''
        fault, *later = self._faults.read_text().split() or ['']
        if later:
            order_faults(self._faults, *later)
        else:
            self._faults.unlink()
        return fault


def order_faults(path: Path, *faults: str) -> None:
    """
    Have the next steps fail, one after the other; a step that is repeated counts as two.

    :param path: file that a ``FaultyWorld`` looks into
    :param faults: names, see there
    """
    draft = path.with_suffix('.draft')
    draft.write_text(' '.join(faults))
    draft.rename(path)


def end_hang(path: Path) -> Path:
    """
    Have a step that hangs come back.

    :param path: file that its ``FaultyWorld`` looks into
    :return: file that is there until it does
    """
    ended = _end_of_hang(path)
    ended.touch()
    return ended


def _end_of_hang(path):
    return path.with_suffix('.end_hang')


def make_faulty(path: Path, engine: str, **options) -> FaultyWorld:
    """Make an engine by name, wrapped."""
    return FaultyWorld(make_world(engine, **options), path)


def main() -> int:
    """Run the simulator; return its exit code."""
    from lingbot_world_ros.cli import main as cli
    from lingbot_world_ros.nodes import world_model
    # The node gets its engine from here; nothing in the package knows of faults on demand.
    world_model.make_world = partial(make_faulty, Path(sys.argv[1]))
    return cli.main(['sim', *sys.argv[2:]])


if __name__ == '__main__':
    sys.exit(main())
