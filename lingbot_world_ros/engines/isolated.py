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
from typing import Callable, Optional

from lingbot_world_ros.engines.interface import WorldModel
from lingbot_world_ros.errors import EngineLost
from lingbot_world_ros.processes import begin_as_child, exit_text, portable

END_S = 3.0  # an engine that does not end by itself is killed after this long
ADVANCING = ('reset', 'step', 'observe')  # calls that leave another state


class IsolatedWorld(WorldModel):
    """A ``WorldModel`` whose work is done by a child process; one thread may call it."""

    def __init__(self, make_world: Callable[[], WorldModel]):
        """
        Start the process and load the engine there.

        :param make_world: makes the engine; must be picklable (a module's function or a
            ``functools.partial`` of one)
        :raises SpecError: what ``make_world`` raises
        """
        self._make_world = make_world
        self._process: Optional[multiprocessing.process.BaseProcess] = None
        self._pipe = None
        self._killed_by: Optional[Exception] = None
        self._snapshot = None  # of the engine after its newest answer
        self._object_names = {}
        self._start()

    @property
    def pid(self) -> Optional[int]:
        """Process id of the engine; None while there is none."""
        return None if self._process is None else self._process.pid

    @property
    def is_lost(self) -> bool:
        """Whether there is no state to go on from: the process ended, or is new."""
        return self._process is None or not self._process.is_alive() or self._fresh

    def reset(self, scene, seed, *args, **kwargs):
        """Start over, in a new process if need be; see ``WorldModel.reset``."""
        self._start()
        observation = self._call('reset', scene, seed, *args, **kwargs)
        if scene not in self._object_names:  # asked here: other threads only look it up
            self._object_names[scene] = self._call('object_names', scene)
        return observation

    def step(self, actions, **kwargs):
        """Advance one step; see ``WorldModel.step``."""
        return self._call('step', actions, **kwargs)

    def observe(self, observation, **kwargs):
        """Re-anchor; see ``WorldModel.observe``."""
        return self._call('observe', observation, **kwargs)

    def object_names(self, scene):
        """Return the names of a scene's movable objects, once it was reset to; else none."""
        return self._object_names.get(scene, ())

    def snapshot(self):
        """Return the state after the newest call; it came with the answer if that is cheap."""
        if not self.spec.cheap_snapshots:
            return (*self._start_of, self._call('snapshot'))
        return self._snapshot

    def restore(self, snapshot) -> None:
        """Go back to a snapshot, in a new process if need be."""
        self._start()
        scene, seed, more, state = snapshot
        if self._fresh:
            self._call('reset', scene, seed, **more)
        self._call('restore', state)
        self._snapshot = snapshot

    def set_prompt(self, text: str) -> None:
        """Go on with another prompt; see ``WorldModel.set_prompt``."""
        self._call('set_prompt', text)

    def finish_step(self) -> None:
        """Do what only the next step needs; see ``WorldModel.finish_step``."""
        self._call('finish_step')

    def undo_step(self) -> None:
        """Take the newest step back; see ``WorldModel.undo_step``."""
        self._call('undo_step')

    def render(self, state):
        """Draw a state; see ``WorldModel.render``."""
        return self._call('render', state)

    def kill(self, reason: Exception) -> None:
        """
        End the process at once; the call under way raises ``reason``. Any thread may do that.

        :param reason: for example ``EngineHung``
        """
        self._killed_by = reason
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

    def _start(self):
        if self._process is not None and self._process.is_alive():
            return
        self.close()
        context = multiprocessing.get_context('spawn')
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._make_world),
                                        name='engine', daemon=True)
        self._process.start()
        theirs.close()
        self._killed_by, self._fresh = None, True
        spec = self._receive()  # a prompt has to wait for its turn in the pipe
        self.spec = replace(spec, can=replace(spec.can, kill=True, prepare_prompt=False))

    def _call(self, name, *args, **kwargs):
        try:
            self._pipe.send((name, args, kwargs))
        except (OSError, ValueError):
            self._raise_lost()
        answer = self._receive()
        if name in ADVANCING:
            observation, state = answer
            if name == 'reset':
                self._start_of = (*args[:2], kwargs)
                self._fresh = False
            self._snapshot = (*self._start_of, state)
            return observation
        return answer

    def _receive(self):
        try:
            good, answer = self._pipe.recv()
        except (EOFError, OSError):
            self._raise_lost()
        if good:
            return answer
        raise answer

    def _raise_lost(self):
        self._process.join(END_S)  # its pipe ends a moment before it counts as dead
        if self._killed_by is not None:
            raise self._killed_by
        code = self._process.exitcode
        raise EngineLost(f'the process of the engine ended ({exit_text(code)})')


def _serve(pipe, make_world):
    """Run in the child: make the engine, then answer until the pipe closes."""
    begin_as_child()
    try:
        world = make_world()
        _send(pipe, True, world.spec)
        while True:
            name, args, kwargs = pipe.recv()
            try:
                answer = getattr(world, name)(*args, **kwargs)
                if name in ADVANCING:
                    cheap = world.spec.cheap_snapshots
                    answer = (answer, world.snapshot() if cheap else None)
            except Exception as error:  # travels to the caller
                _send(pipe, False, portable(error))
            else:
                _send(pipe, True, answer)
    except EOFError:
        world.close()
    except Exception as error:  # the engine could not be made
        _send(pipe, False, portable(error))


def _send(pipe, good, answer):
    try:
        pipe.send((good, answer))
    except (BrokenPipeError, ConnectionResetError):
        raise EOFError from None
