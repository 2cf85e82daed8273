# SPDX-License-Identifier: Apache-2.0
"""Prompts and images that go into a world: at its start by parameter, later by topic."""
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')

from fake_world import FakeWorld  # noqa: E402, I100
from free_camera import FreeCameraWorld  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.messages.image import image_to_msg  # noqa: E402
from lingbot_world_ros.msg import WorldSpec, WorldStatus  # noqa: E402
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
import numpy as np  # noqa: E402
from ros_graph import Graph  # noqa: E402
from sensor_msgs.msg import Image  # noqa: E402
from std_msgs.msg import String  # noqa: E402
from std_srvs.srv import Trigger  # noqa: E402

PNG = b'\x89PNG\r\n\x1a\n' + bytes(20)
PAUSED = ('-p', 'initial_state:=paused')
RED = np.full((6, 8, 3), (200, 10, 20), np.uint8)


@pytest.fixture
def make_graph(open_graph):
    """Start both nodes over an engine, the log of the first in ``said``."""
    def start(world, *args, scene='a'):
        def nodes():
            encoder = ActionEncoderNode()
            return [WorldModelNode(world=lambda: world, encoder=encoder), encoder]
        graph = open_graph(nodes, ('-p', f'scene:={scene}', *args))
        graph.said = []
        node = graph.nodes[0]
        node.get_logger = lambda: type('Log', (), {'warning': graph.said.append,
                                                   'error': graph.said.append})
        return graph

    return start


def told(graph, words):
    return graph.wait_for(lambda: next((line for line in graph.said if words in line), None),
                          words)


def test_start_image_and_prompt_reach_the_engine_at_every_reset(make_graph, tmp_path):
    path = tmp_path / 'street.png'
    path.write_bytes(PNG)
    world = FreeCameraWorld()
    graph = make_graph(world, *PAUSED, '-p', f'start_image:={path}', '-p',
                       'prompt:=A quiet street')
    for _ in range(2):
        assert (world.start.prompt, world.start.images) == ('A quiet street', (str(path),))
        world.start = None
        assert graph.call(Trigger, '/world_model/reset').success
    spec = graph.listen(WorldSpec, 'world_spec', latched=True)
    graph.wait_for(lambda: spec, 'world_spec')
    assert (spec[0].scene, spec[0].takes_text, spec[0].takes_images) == ('image', True, True)
    assert 'A quiet street' in spec[0].world_resource and path.as_uri() in spec[0].world_resource
    status = graph.listen(WorldStatus, 'world_status')
    graph.wait_for(lambda: status and status[-1].prompt == 'A quiet street', 'the prompt')
    assert np.isfinite(status[-1].uncertainty) and status[-1].images_anchored == 0


@pytest.mark.parametrize('args, words', [
    (('start_image:=/no/where.png',), 'start_image: /no/where.png is not a file'),
    (('start_image:=package://lingbot_world_ros/config/default.yaml',), 'no PNG'),
    ((f'prompt:={"x" * 10_001}',), 'at most 10000'),
])
def test_starts_that_cannot_be_are_one_error_at_start(domain, args, words):
    given = [part for arg in args for part in ('-p', arg)]
    with pytest.raises(SpecError, match=words):
        Graph(lambda: [WorldModelNode(world=FreeCameraWorld)], domain, ('-p', 'scene:=a', *given))


@pytest.mark.parametrize('arg', ['start_image:=a.png', 'prompt:=rain'])
def test_engines_that_take_neither_say_so_at_start(domain, arg):
    with pytest.raises(SpecError, match="engine 'fake'"):
        Graph(lambda: [WorldModelNode(world=FakeWorld)], domain, ('-p', 'scene:=a', '-p', arg))


def test_a_prompt_sent_while_running_holds_until_the_next_reset(make_graph):
    world = FreeCameraWorld()
    graph = make_graph(world)
    status = graph.listen(WorldStatus, 'world_status')
    graph.publisher(String, 'prompt').publish(String(data='It begins to snow.'))
    graph.newest(status, lambda m: m.prompt == 'It begins to snow.' and m.step, 'the prompt')
    assert world.prompts == ['It begins to snow.']
    assert graph.call(Trigger, '/world_model/reset').success
    graph.newest(status, lambda m: m.prompt == '', 'the prompt of the start')


@pytest.mark.parametrize('text, words', [('x' * 10_001, 'at most 10000'),
                                         ('clear\x1b[2J', 'control characters')])
def test_a_prompt_that_is_none_is_refused_and_the_one_before_stays(make_graph, text, words):
    world = FreeCameraWorld()
    graph = make_graph(world, *PAUSED)
    graph.publisher(String, 'prompt').publish(String(data=text))
    line = told(graph, words)
    assert '\x1b' not in line and len(line) < 800 and world.prompts == []


@pytest.mark.parametrize('encoding', ['bgr8', 'rgba16'])
def test_an_image_sent_while_running_is_what_the_world_goes_on_from(make_graph, encoding):
    world = FreeCameraWorld()
    graph = make_graph(world)
    status = graph.listen(WorldStatus, 'world_status')
    pixels = RED[..., ::-1] if encoding == 'bgr8' else np.dstack(
        [RED, RED[..., :1]]).astype('<u2') * 257
    msg = Image(height=6, width=8, encoding=encoding, step=pixels.nbytes // 6,
                data=pixels.tobytes())
    graph.publisher(Image, 'camera/anchor').publish(msg)
    graph.newest(status, lambda m: m.images_anchored == 1, 'the image')
    np.testing.assert_array_equal(world.anchors[0], RED)
    assert graph.call(Trigger, '/world_model/reset').success
    graph.newest(status, lambda m: m.images_anchored == 0, 'a new start')


def test_a_flood_of_images_lets_a_step_follow_each(make_graph):
    class Slow(FreeCameraWorld):
        def observe(self, *args, **kwargs):
            time.sleep(0.1)  # longer than the time between two images
            return super().observe(*args, **kwargs)
    graph = make_graph(Slow())
    status = graph.listen(WorldStatus, 'world_status')
    camera = graph.publisher(Image, 'camera/anchor')
    msg = image_to_msg(RED, 0, 'camera')

    def flooded():
        camera.publish(msg)
        return status and status[-1].images_anchored >= 5
    graph.wait_for(flooded, 'five images')
    assert status[-1].step >= 4 and status[-1].state == WorldStatus.STATE_PLAYING


def test_an_image_that_cannot_be_read_is_refused_in_words(make_graph):
    world = FreeCameraWorld()
    graph = make_graph(world, *PAUSED, '-p', 'topics.anchor_image:=eye')
    msg = image_to_msg(RED, 0, 'camera')
    msg.encoding = '8SC3'
    graph.publisher(Image, 'eye').publish(msg)
    assert 'anchor_image: refused' in told(graph, '8SC3') and not world.anchors


def test_engines_that_take_no_text_and_no_images_refuse_both_in_words(make_graph):
    graph = make_graph(FakeWorld(), *PAUSED)
    graph.publisher(String, 'prompt').publish(String(data='a castle'))
    graph.publisher(Image, 'camera/anchor').publish(image_to_msg(RED, 0, 'camera'))
    assert ("engine 'fake' takes no text; choose one of its scenes with the parameter scene: a, b"
            in told(graph, 'prompt'))
    assert "engine 'fake' takes no images" in told(graph, 'anchor_image')
