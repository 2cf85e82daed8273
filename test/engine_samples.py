# SPDX-License-Identifier: Apache-2.0
"""
One small world of every kind of engine, for the tests that every engine has to pass.

Every registered engine needs a sample here, and so does every fake that other tests rely on.
"""
from dataclasses import dataclass, replace
from functools import partial
from typing import Callable

from bench.null_world import NullWorld
from fake_world import FakeChunkWorld, FakeWorld
from free_camera import FreeCameraWorld
from learned_worlds import NAME, tiny_world
from lingbot_world_ros.engines.interface import Start, WorldModel
from lingbot_world_ros.engines.isolated import IsolatedWorld
from lingbot_world_ros.engines.registry import make_world, SHIPPED
from moody_world import MoodyWorld
from needs import need_engine
import numpy as np

LINGBOT = {'height_px': 32, 'width_px': 48, 'device': 'cpu', 'precision': 'fp32'}


@dataclass(frozen=True)
class Sample:
    """How a kind of engine is made, and where it starts."""

    make: Callable[..., WorldModel]  # takes batch_size, if it can have more than one row
    scenes: tuple
    has_batches: bool = False
    start: Start = None
    is_registered: bool = False
    in_process: bool = False
    num_steps: int = 4

    def actions(self, world, index):
        """Return actions (b, t, a) that move everything, another one for each index."""
        layout, rng = world.spec.action, np.random.default_rng(index)
        share = rng.uniform(0.0, 0.3, (1, 1, len(layout.dims))).astype(np.float32)
        share = np.where(np.char.startswith(layout.names, 'camera.'), 0.02 * share, share)
        shape = world.batch_size, world.spec.frames_per_step, 1
        return np.tile(layout.low + (layout.high - layout.low) * (0.4 + share), shape).astype(
            np.float32)

    def begin(self, world, scenes=None, seeds=3, **more):
        """Reset a world."""
        start = {} if self.start is None else {'start': self.start}
        return world.reset(scenes or self.scenes[0], seeds, **start, **more)

    def steps(self, world, indices, **more):
        """Make steps, finished; return what they showed."""
        shown = []
        for index in indices:
            shown.append(world.step(self.actions(world, index), **more))
            world.finish_step()
        return shown


def make_lingbot(folder, batch_size=1):
    """Make LingBot-World with a tiny checkpoint, which is written if need be."""
    import torch
    import wan_checkpoints as tiny
    from wan_companions import write_companions
    torch.set_num_threads(1)
    if not folder.exists():
        write_companions(tiny.write_fast(folder))
    return make_world('lingbot_world', batch_size=batch_size, checkpoint=str(folder),
                      cache_dir=str(folder / 'cache'), **LINGBOT)


def make_learned(folder, batch_size=1):
    """Make a learned world, which is written if need be."""
    world = folder if folder.exists() else tiny_world(folder)
    return make_world('learned', batch_size=batch_size, world=str(world))


def registered(folder) -> dict:
    """Return a sample for every registered engine, by name."""
    rooms = dict(scenes=('living_room', 'office'), has_batches=True, is_registered=True)
    return {
        'room': Sample(partial(make_world, 'room'), **rooms),
        'reference': Sample(partial(make_world, 'reference'), **rooms),
        'lingbot_world': Sample(partial(make_lingbot, folder / 'lingbot-fast'),
                                ('living_room_view', 'office_view'), is_registered=True,
                                num_steps=2),
        'learned': Sample(partial(make_learned, folder / 'learned'), (NAME, NAME),
                          has_batches=True, is_registered=True)}


FAKES = {
    'fake': Sample(FakeWorld, ('a', 'b')),
    'fake chunks': Sample(partial(FakeChunkWorld, 4), ('a', 'b'), start=Start('a room')),
    'fake camera': Sample(FreeCameraWorld, ('a', 'image')),
    'moody': Sample(MoodyWorld, ('living_room', 'office')),
    'null': Sample(NullWorld, ('living_room', 'living_room'))}


def sample_of(name, folder) -> Sample:
    """
    Return a sample by name; 'isolated ...' is the same in a process of its own.

    :param name: of a registered engine or of a fake
    :param folder: for what has to be written
    """
    inner = name.replace('isolated ', '')
    if inner in SHIPPED:
        need_engine(inner)
    sample = {**registered(folder), **FAKES}[inner]
    if inner == name:
        return sample
    return replace(sample, make=partial(_isolated, sample.make), in_process=True)


def _isolated(make, **options):
    return IsolatedWorld(partial(make, **options))
