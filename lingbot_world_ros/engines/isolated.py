# SPDX-License-Identifier: Apache-2.0
"""
An engine in a process of its own, behind the same interface. No ROS.

What hangs there, is killed or eats all memory takes nothing else with it: the call that was under
way raises ``EngineHung`` or ``EngineLost``, and ``restore`` or ``reset`` start the process again.
A state too large to be copied after each call (``cheap_snapshots`` False) is lost with its
process: such an engine can only be reset, and goes on from an observation.
Only trusted code is at the other end of the pipe, so messages are pickled.
"""
from functools import partial
import multiprocessing
import os
import pickle
import signal
import threading
import time
from typing import Callable, Optional

from lingbot_world_ros.session.faults import EngineLost

PARENT_CHECK_S = 1.0
END_S = 3.0  # an engine that does not end by itself is killed after this long
ADVANCING = ('reset', 'step', 'observe')  # calls that leave another state
OPTIONAL = ('set_prompt', 'finish_step', 'undo_step')  # what an engine may have besides


class IsolatedWorld:
    """A ``WorldModel`` whose work is done by a child process; one thread may call it."""

    def __init__(self, make_world: Callable[[], object]):
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
        self.spec = None
        self._start()
        for name in self._optional:
            setattr(self, name, partial(self._call, name))

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
        self.spec, self._optional = self._receive()

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


def exit_text(code):
    if code is None:
        return 'its pipe closed'
    if code < 0:
        name = signal.Signals(-code).name
        return f'{name}, possibly out of memory' if name == 'SIGKILL' else name
    return f'exit code {code}'


def _serve(pipe, make_world):
    """Run in the child: make the engine, then answer until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    threading.Thread(target=end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        world = make_world()
        _send(pipe, True, (world.spec, [name for name in OPTIONAL if hasattr(world, name)]))
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
        if hasattr(world, 'close'):
            world.close()
    except Exception as error:  # the engine could not be made
        _send(pipe, False, portable(error))


def portable(error):
    """Return the error itself if it survives the pipe, else its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:  # whatever a foreign class does when pickled
        return RuntimeError(f'{type(error).__name__}: {error}')
    return error


def _send(pipe, good, answer):
    try:
        pipe.send((good, answer))
    except (BrokenPipeError, ConnectionResetError):
        raise EOFError from None


def end_with_parent(parent):
    """A killed parent closes no pipe that a hanging engine would look at."""
    while os.getppid() == parent:
        time.sleep(PARENT_CHECK_S)
    os._exit(1)
