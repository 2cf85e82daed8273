# SPDX-License-Identifier: Apache-2.0
"""
An engine in a process of its own, behind the same interface. No ROS.

What hangs there, is killed or eats all memory takes nothing else with it: the call that was under
way raises ``EngineHung`` or ``EngineLost``, and ``restore`` or ``reset`` start the process again.
A state too large to be copied after each call (``cheap_snapshots`` False) is lost with its
process: such an engine can only be reset, and goes on from an observation.
Only trusted code is at the other end of the pipe, so messages are pickled.
"""
from dataclasses import replace
import multiprocessing
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any, Callable, Dict, NoReturn, Optional, Tuple

from lingbot_world_ros.engines.interface import (Observation, Rows, Scenes, Seeds, Start, State,
                                                 WorldModel)
from lingbot_world_ros.engines.rows import row_starts
from lingbot_world_ros.errors import EngineLost
from lingbot_world_ros.processes import begin_as_child, exit_text, portable
import numpy as np

END_S = 3.0  # an engine that does not end by itself is killed after this long
ADVANCING = ('reset', 'step', 'observe')  # calls that leave another state


class IsolatedWorld(WorldModel):
    """A ``WorldModel`` whose work is done by a child process; one thread may call it."""

    def __init__(self, make_world: Callable[[], WorldModel]) -> None:
        """
        Start the process and load the engine there.

        :param make_world: makes the engine; must be picklable (a module's function or a
            ``functools.partial`` of one)
        :raises SpecError: what ``make_world`` raises
        """
        self._make_world = make_world
        self._process: Optional[BaseProcess] = None
        self._killed_by: Optional[Exception] = None
        self._newest: Any = None  # state that came with the newest answer
        self._object_names: Dict[str, Tuple[str, ...]] = {}
        self._start()

    @property
    def pid(self) -> Optional[int]:
        """Process id of the engine; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def is_lost(self) -> bool:
        """Whether there is no state to go on from: the process ended, or is new."""
        return self._process is None or not self._process.is_alive() or self._is_new

    def reset(self, scenes: Scenes, seeds: Seeds, rows: Rows = None, *, render: bool = True,
              start: Optional[Start] = None) -> Observation:
        """Start rows over, in a new process if need be; see ``WorldModel.reset``."""
        self._start()
        starts = row_starts(scenes, seeds, rows, self.batch_size, self.spec)
        seen = self._advance('reset', scenes, seeds, rows, render=render, start=start)
        for scene in {start.scene for start in starts} - set(self._object_names):
            # Asked here: other threads only look it up.
            self._object_names[scene] = self._call('object_names', scene)
        return seen

    def step(self, actions: np.ndarray, render: bool = True) -> Observation:
        """Advance one step; see ``WorldModel.step``."""
        return self._advance('step', actions, render=render)

    def observe(self, observation: Observation, render: bool = True) -> Observation:
        """Re-anchor; see ``WorldModel.observe``."""
        return self._advance('observe', observation, render=render)

    def object_names(self, scene: str) -> Tuple[str, ...]:
        """Return the names of a scene's movable objects, once it was reset to; else none."""
        return self._object_names.get(scene, ())

    def snapshot(self, rows: Rows = None) -> Any:
        """Return the state of rows; that of all came with the newest answer, if it is cheap."""
        if rows is None and self._newest is not None:
            return self._newest
        return self._call('snapshot', rows)

    def restore(self, snapshot: Any, rows: Rows = None) -> None:
        """Put rows into the state of a snapshot, in a new process if need be."""
        self._start()
        self._change('restore', snapshot, rows)
        self._is_new = False
        self._newest = snapshot if rows is None and self.spec.can.snapshot_cheaply else None

    def set_prompt(self, text: str) -> None:
        """Go on with another prompt; see ``WorldModel.set_prompt``."""
        self._change('set_prompt', text)

    def finish_step(self) -> None:
        """Do what only the next step needs; see ``WorldModel.finish_step``."""
        self._change('finish_step')

    def undo_step(self) -> None:
        """Take the newest step back; see ``WorldModel.undo_step``."""
        self._change('undo_step')

    def render(self, state: State) -> Observation:
        """Draw a state; see ``WorldModel.render``."""
        return self._call('render', state)

    def watch_wrist(self, is_watched: bool) -> None:
        """Draw the second camera, or no more; see ``WorldModel.watch_wrist``."""
        self._call('watch_wrist', is_watched)

    def kill(self, reason: Exception) -> None:
        """
        End the process at once; the call under way raises ``reason``. Any thread may do that.

        :param reason: for example ``EngineHung``
        """
        self._killed_by = reason
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        self._pipe.close()
        self._process.join(END_S)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._process = None

    def _start(self) -> None:
        """Start a process, unless there is one."""
        if self._process is not None and self._process.is_alive():
            return
        self.close()
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._make_world),
                                        name='engine', daemon=True)
        self._process.start()
        theirs.close()
        self._killed_by, self._is_new, self._newest = None, True, None
        spec, self.batch_size = self._receive()
        # A prompt has to wait for its turn in the pipe.
        self.spec = replace(spec, can=replace(spec.can, kill=True, prepare_prompt=False))

    def _advance(self, name: str, *args: Any, **kwargs: Any) -> Observation:
        """Make a call whose answer comes with the state that it leaves."""
        seen, self._newest = self._call(name, *args, **kwargs)
        self._is_new = False
        return seen

    def _change(self, name: str, *args: Any) -> None:
        """Make a call that leaves a state which nobody here knows."""
        self._call(name, *args)
        self._newest = None

    def _call(self, name: str, *args: Any, **kwargs: Any) -> Any:
        try:
            self._pipe.send((name, args, kwargs))
        except (OSError, ValueError):
            self._raise_lost()
        return self._receive()

    def _receive(self) -> Any:
        try:
            good, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._raise_lost()
        if good:
            return answer
        raise answer

    def _raise_lost(self) -> NoReturn:
        assert self._process is not None, 'the engine was closed'
        self._process.join(END_S)  # its pipe ends a moment before it counts as dead
        if self._killed_by is not None:
            raise self._killed_by
        code = self._process.exitcode
        raise EngineLost(f'the process of the engine ended ({exit_text(code)})')


def _serve(pipe: Connection, make_world: Callable[[], WorldModel]) -> None:
    """Run in the child: make the engine, then answer until the pipe closes."""
    begin_as_child()
    try:
        world = make_world()
        _send(pipe, True, (world.spec, world.batch_size))
        while True:
            name, args, kwargs = pipe.recv()
            try:
                answer = getattr(world, name)(*args, **kwargs)
                if name in ADVANCING:
                    cheap = world.spec.can.snapshot_cheaply
                    answer = (answer, world.snapshot() if cheap else None)
            except Exception as error:  # travels to the caller
                _send(pipe, False, portable(error))
            else:
                _send(pipe, True, answer)
    except EOFError:
        world.close()
    except Exception as error:  # the engine could not be made
        _send(pipe, False, portable(error))


def _send(pipe: Connection, good: bool, answer: Any) -> None:
    try:
        pipe.send((good, answer))
    except (BrokenPipeError, ConnectionResetError):
        raise EOFError from None
