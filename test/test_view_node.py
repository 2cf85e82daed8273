# SPDX-License-Identifier: Apache-2.0
"""The operator's page without a browser: its messages, its topics, who may drive and look."""
import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
import json
from math import inf, tan
from pathlib import Path
import socket
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('simulation_interfaces.srv')
aiohttp = pytest.importorskip('aiohttp')

from fake_world import FakeWorld, SMALL_ROBOT  # noqa: E402, I100
from free_camera import FreeCameraWorld  # noqa: E402
from geometry_msgs.msg import Twist, TwistStamped  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.messages.image import image_to_msg  # noqa: E402
from lingbot_world_ros.messages.simulation import state_number  # noqa: E402
from lingbot_world_ros.nodes import world_client  # noqa: E402
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode  # noqa: E402
from lingbot_world_ros.nodes.view import ViewNode  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
from lingbot_world_ros.robots.drive import Drive  # noqa: E402
from lingbot_world_ros.robots.load import load_robot  # noqa: E402
from lingbot_world_ros.view.pictures import COLOUR, DEPTH, HEADER  # noqa: E402
from lingbot_world_ros.view.server import Server  # noqa: E402
import numpy as np  # noqa: E402
import rclpy  # noqa: E402
from sensor_msgs.msg import Image, JointState  # noqa: E402
from simulation_interfaces.srv import GetEntitiesStates, GetSimulationState  # noqa: E402
from waiting import PATIENCE_S  # noqa: E402

ROVER = str(Path(__file__).parent / 'robots' / 'rover.yaml')
SCENE = ('-p', 'scene:=a')
STOP = {'type': 'drive', 'linear': 0, 'angular': 0}


@pytest.fixture
def make_graph(open_graph):
    def start(*ros_args, nodes=None):
        def world_and_view():
            encoder = ActionEncoderNode()
            return [WorldModelNode(world=FakeWorld, encoder=encoder), encoder, ViewNode()]
        graph = open_graph(nodes or world_and_view, (*SCENE, *ros_args))
        graph.view = graph.nodes[-1]
        return graph

    return start


class Page:
    """An open page: what it was told last, by type of message."""

    def __init__(self, socket):
        self._socket, self.told, self.pictures, self._ids = socket, {}, [], 0

    async def read(self):
        async for message in self._socket:
            if message.type == aiohttp.WSMsgType.BINARY:
                self.pictures.append((*HEADER.unpack(message.data[:16]), message.data[16:]))
            else:
                content = json.loads(message.data)
                self.told[content['type'], content.get('id')] = content

    async def send(self, **content):
        await self._socket.send_str(json.dumps(content))

    async def until(self, happened, what='it'):
        end_s = asyncio.get_running_loop().time() + PATIENCE_S
        while asyncio.get_running_loop().time() < end_s:
            value = happened()
            if value:
                return value
            await asyncio.sleep(0.01)
        raise AssertionError(f'waited in vain for {what}; told {self.told}')

    async def status(self, fits=lambda status: True, what='a status'):
        return await self.until(lambda: (s := self.told.get(('status', None))) and fits(s) and s,
                                what)

    async def next_status(self):
        before = await self.status()
        return await self.status(lambda s: s is not before, 'another status')

    async def standstill(self):
        """Wait until the robot stays for half a second of sim time; return where."""
        start, end_s = await self.status(), time.monotonic() + PATIENCE_S
        while (status := await self.next_status())['sim_s'] < start['sim_s'] + 0.5:
            if status['pose'] != start['pose']:
                start = status
            assert time.monotonic() < end_s, 'the robot does not stop'
        return status['pose']

    async def do(self, what, **content):
        self._ids += 1
        await self.send(type='do', id=self._ids, what=what, **content)
        done = await self.until(lambda: self.told.get(('done', self._ids)), what)
        return done['ok'], done['text']


@asynccontextmanager
async def serving(view, **options):
    server = Server(view, **options)
    await server.start()
    loop = asyncio.get_running_loop()
    view.on_picture = lambda *picture: loop.call_soon_threadsafe(server.on_picture, *picture)
    try:
        yield server
    finally:
        view.on_picture = lambda *picture: None
        await server.stop()


@asynccontextmanager
async def pages(view, number=1):
    async with serving(view) as server, aiohttp.ClientSession() as session:
        opened, reading = [], []
        for _ in range(number):
            page = Page(await session.ws_connect(f'{server.url}ws'))
            reading.append(asyncio.ensure_future(page.read()))
            opened.append(page)
        for page in opened:
            await page.status(lambda s: s['link'] != 'waiting', 'a world')
        yield opened[0] if number == 1 else opened
        for task in reading:
            task.cancel()


def test_a_page_is_told_what_world_it_is_and_shown_its_pictures(make_graph):
    async def look(view):
        async with pages(view) as page:
            status = await page.status(lambda s: s['link'] == 'live' and s['pose'], 'a live world')
            world = page.told['world', None]
            assert (world['known'], world['engine'], world['scenes']) == (True, 'fake', ['a', 'b'])
            assert world['world'] == 'a' and world['depth_far_m'] > 0.0
            assert world['joints'][-1]['unit'] == 'm' and world['joints'][0]['max'] == 1.2
            assert world['can']['pause'] and not world['can']['prompt']
            assert status['scene'] == 'a' and status['rtf'] > 0.5
            assert set(status['joints']) == {joint['name'] for joint in world['joints']}
            kind, _, _, _, stamp_s, jpeg = await page.until(lambda: page.pictures and
                                                            page.pictures[-1], 'a picture')
            assert kind == COLOUR and stamp_s > 0.0 and jpeg[:2] == b'\xff\xd8'
            await page.send(type='show', depth=True, truth=False)
            await page.until(lambda: any(p[0] == DEPTH for p in page.pictures), 'depth')

    graph = make_graph()
    asyncio.run(look(graph.view))


def test_a_picture_that_got_lost_while_time_stands_still_is_asked_for_again(make_graph):
    view = make_graph('-p', 'mode:=stepped').view
    subscribe, deaf = view.create_subscription, set()

    def lose_the_first(kind, topic, callback, profile):
        if topic != '/world_status' and topic not in deaf:
            deaf.add(topic)
            return subscribe(kind, topic, lambda msg: None, profile)
        return subscribe(kind, topic, callback, profile)

    async def look(view):
        async with pages(view) as page:
            await page.status(lambda s: s['link'] == 'stepping', 'stepped mode')
            await page.status(lambda s: s['pose'] and s['joints'], 'a pose')
            await page.until(lambda: page.pictures, 'a picture')

    view.create_subscription = lose_the_first
    asyncio.run(look(view))
    assert {'/odom', '/joint_states', '/camera/image_raw/compressed'} <= deaf


def test_nothing_is_subscribed_to_while_no_page_is_open(make_graph):
    graph = make_graph()
    topics = [f'/{topic}' for topic in ('camera/image_raw/compressed', 'odom', 'world_status')]

    def listeners():
        return sum(graph.probe.count_subscribers(topic) for topic in topics)

    async def look(view):
        async with pages(view) as page:
            await page.until(lambda: listeners() == 3, 'three subscriptions')

    assert listeners() == 0
    asyncio.run(look(graph.view))
    graph.wait_for(lambda: listeners() == 0, 'no subscription')


def test_a_robot_moves_while_asked_to_and_stops_when_the_page_goes_silent(make_graph):
    async def drive(view):
        async with pages(view) as page:
            await page.status(lambda s: s['pose'], 'a pose')
            end_s = time.monotonic() + PATIENCE_S
            while (moving := await page.next_status())['pose'][0] < 0.3:
                await page.send(type='drive', linear=1.0, angular=0.0, joints={'elbow_joint': 1.0})
                assert time.monotonic() < end_s
            assert moving['driver']['mine']
            x, y, _ = await page.standstill()  # no further word
            assert x > 0.3 and abs(y) < 1e-6
            way = await page.until(lambda: (m := page.told['map', None]['path'])[-1:]
                                   and m[-1][0] > 0.25 and m, 'the way')
            assert way[0] == [0.0, 0.0]
        async with pages(view) as page:  # another page, which has seen nothing of it
            assert page.told['map', None]['path'][:len(way)] == way

    graph = make_graph('-p', 'cmd_timeout_s:=100.0')  # what stops it is the page's server
    asyncio.run(drive(graph.view))


def test_a_robot_that_strafes_goes_sideways_and_one_without_joints_shows_none(make_graph):
    strafing = replace(SMALL_ROBOT, joints=(), arm=None,
                       drive=Drive(-0.5, 1.0, 2.0, lateral_max_mps=0.6))

    def nodes():
        encoder = ActionEncoderNode()
        return [WorldModelNode(world=lambda: FakeWorld(robot=strafing), encoder=encoder), encoder,
                ViewNode()]

    async def drive(view):
        async with pages(view) as page:
            await page.status(lambda s: s['pose'], 'a pose')
            world = page.told['world', None]
            assert (world['lateral_max_mps'], world['joints']) == (pytest.approx(0.6), [])
            assert world['max_curvature'] is None
            end_s = time.monotonic() + PATIENCE_S
            while (moving := await page.next_status())['pose'][1] > -0.2:
                await page.send(type='drive', linear=0.0, angular=0.0, lateral=-1.0, joints={})
                assert time.monotonic() < end_s
            assert abs(moving['pose'][0]) < 1e-6
            await page.standstill()

    asyncio.run(drive(make_graph(nodes=nodes).view))


def test_a_robot_that_steers_turns_only_while_it_drives(make_graph):
    """The page knows its drive by the parameter: no turn alone, and no circle too small."""
    async def drive(view):
        async with pages(view) as page:
            await page.status(lambda s: s['pose'], 'a pose')
            world = page.told['world', None]
            assert world['max_curvature'] == pytest.approx(tan(0.45) / 0.3)
            assert [joint['name'] for joint in world['joints']] == ['mast_pan_joint']
            await page.send(type='drive', linear=0.0, angular=1.0, joints={})
            await page.send(type='drive', linear=0.5, angular=1.0, joints={})
            await page.until(lambda: twists, 'a command')
            await page.send(**STOP)

    graph = make_graph('-p', 'cmd_vel_type:=twist', '-p', f'robot:={ROVER}', nodes=lambda: [
        ActionEncoderNode(),
        WorldModelNode(world=lambda: FreeCameraWorld(robot=load_robot(ROVER))), ViewNode()])
    twists = graph.listen(Twist, 'cmd_vel')
    graph._spinner._executor.add_node(graph.probe)
    asyncio.run(drive(graph.view))
    graph._spinner._executor.remove_node(graph.probe)
    assert (twists[0].linear.x, twists[0].angular.z) == pytest.approx((0.6, 0.6 * tan(0.45) / 0.3))


def test_stop_halts_a_joint_on_its_way_and_a_base_that_somebody_else_drives(make_graph):
    async def halt(view, twists, joints):
        async with pages(view) as page:
            await page.status(lambda s: s['pose'], 'a pose')
            await page.send(type='joint', name='elbow_joint', position=1.0)
            await page.send(type='stop')
            await page.until(lambda: len(joints) == 2 and twists, 'commands')

    graph = make_graph('-p', 'cmd_vel_type:=twist')
    twists, joints = graph.listen(Twist, 'cmd_vel'), graph.listen(JointState, 'joint_command')
    spinning = graph._spinner
    spinning._executor.add_node(graph.probe)
    asyncio.run(halt(graph.view, twists, joints))
    spinning._executor.remove_node(graph.probe)
    assert twists[0].linear.x == 0.0 and list(joints[0].position) == [1.0]
    assert joints[1].name == ['elbow_joint'] and list(joints[1].velocity) == [0.0]


def test_a_joint_goes_where_its_slider_is_and_no_further_than_its_limit(make_graph):
    async def move(view):
        async with pages(view) as page:
            await page.send(type='joint', name='shoulder_pan_joint', position=99.0)
            await page.status(lambda s: abs(s['joints'].get('shoulder_pan_joint', 0) - 1.2) < 1e-3,
                              'the limit')
            await page.send(type='joint', name='tail_joint', position=0.0)
            note = await page.until(lambda: page.told.get(('note', None)), 'a note')
            assert "'tail_joint'" in note['text'] and note['level'] == 'error'

    asyncio.run(move(make_graph().view))


def test_pause_step_reset_seed_mode_and_load(make_graph):
    async def ask(view):
        async with pages(view) as page:
            await page.status(lambda s: s['link'] == 'live')
            assert await page.do('pause') == (True, '')
            before = await page.status(lambda s: s['link'] == 'paused')
            assert await page.do('step', steps=3) == (True, '')
            after = await page.status(lambda s: s['step'] == before['step'] + 3, 'three steps')
            assert abs(after['sim_s'] - before['sim_s'] - 0.2) < 1e-3
            assert (await page.do('play'))[0]
            await page.status(lambda s: s['link'] == 'live')
            assert (await page.do('reset', seed=5))[0]
            await page.status(lambda s: s['seed'] == 5 and s['sim_s'] < after['sim_s'], 'a reset')
            assert (await page.do('load', world='b'))[0]
            await page.status(lambda s: s['scene'] == 'b' and s['link'] == 'live', 'scene b')
            ok, text = await page.do('load', world='cellar')
            assert not ok and 'cellar' in text
            assert (await page.do('mode', mode='stepped'))[0]
            await page.status(lambda s: s['link'] == 'stepping', 'stepped mode')
            ok, text = await page.do('play')
            assert not ok and 'step' in text
            assert (await page.do('mode', mode='realtime'))[0]
            await page.status(lambda s: s['link'] == 'live', 'a world that plays again')
            ok, text = await page.do('prompt', text='snow')
            assert not ok and 'prompt' in text

    asyncio.run(ask(make_graph().view))


def test_one_page_drives_others_watch_and_take_over_stops_the_robot_first(make_graph):
    async def two(view):
        async with pages(view, 2) as (first, second):
            await first.send(type='drive', linear=1.0, angular=0.0)
            await second.status(lambda s: s['driver']['held'] and not s['driver']['mine'])
            assert await second.do('pause') == (False, 'Another page drives; take the controls '
                                                'first.')
            await second.send(**STOP)  # a page that stops at every blur must not interfere
            assert (await first.status())['driver']['mine']
            await second.send(type='take')
            await second.status(lambda s: s['driver']['mine'], 'the controls')
            await first.send(type='drive', linear=1.0, angular=0.0)
            assert not (await first.do('pause'))[0]  # what it sent before was read
            await second.standstill()
            await second.send(type='release')
            await first.status(lambda s: not s['driver']['held'], 'free controls')

    asyncio.run(two(make_graph('-p', 'cmd_timeout_s:=100.0').view))


def test_a_page_that_leaves_stops_the_robot_and_frees_the_controls(make_graph):
    async def leave(view):
        async with pages(view, 2) as (first, second):
            await second.status(lambda s: s['pose'], 'a pose')
            await first.send(type='drive', linear=1.0, angular=0.0)
            await second.status(lambda s: s['driver']['held'])
            await first._socket.close()
            await second.status(lambda s: not s['driver']['held'], 'free controls')
            await second.standstill()

    asyncio.run(leave(make_graph('-p', 'cmd_timeout_s:=100.0').view))


def test_a_world_that_ends_is_lost_and_another_one_is_found(make_graph):
    async def lose(view, end):
        async with pages(view) as page:
            await page.status(lambda s: s['link'] == 'live')
            end()
            lost = await page.status(lambda s: s['link'] == 'lost', 'the loss')
            assert 'when it is back' in lost['text']

    graph = make_graph()

    def end():
        for node in graph.nodes[:2]:
            graph._spinner._executor.remove_node(node)
            graph._spinner._nodes.remove(node)
            node.destroy_node()

    asyncio.run(lose(graph.view, end))


def test_what_a_world_that_is_gone_left_unanswered_is_asked_of_the_next(make_graph, monkeypatch):
    monkeypatch.setattr(world_client, 'ASKED_AGAIN_S', inf)
    clients, answers = [], []

    def asking():
        node = rclpy.create_node('asking')
        clients.append(world_client.WorldClient(node, '', 'prompt'))
        return [node]

    graph = make_graph(nodes=asking)

    def ask():
        return clients[0].ask_in_background('GetEntitiesStates', answers.append)

    mute = rclpy.create_node('mute')  # never spun
    mute.create_service(GetEntitiesStates, 'get_entities_states', lambda request, answer: answer)
    graph.wait_for(ask, 'the service')
    mute.destroy_node()
    graph.wait_for(lambda: not ask(), 'its end')
    graph.probe.create_service(GetEntitiesStates, 'get_entities_states',
                               lambda request, answer: answer)
    graph.wait_for(lambda: ask() and answers, 'an answer')


def test_another_simulator_is_shown_and_driven_with_what_it_offers(make_graph):
    async def drive(view, graph, send, twists):
        async with pages(view) as page:
            sending = asyncio.ensure_future(send())
            strange = await page.status(lambda s: 'cannot be shown' in s['text'], 'the reason')
            assert strange['link'] == 'stale' and "'martian'" in strange['text']
            encoding[0] = 'rgb8'
            status = await page.status(lambda s: s['link'] == 'live' and s['joints'], 'pictures')
            await page.until(lambda: page.told['world', None]['joints'], 'joints')
            world = page.told['world', None]
            assert not world['known'] and world['joints'][0]['name'] == 'wheel'
            assert status['uncertainty'] is None and status['rtf'] is None
            assert page.pictures[-1][-1][:2] == b'\xff\xd8'
            while not twists:
                await page.send(type='drive', linear=0.5, angular=0.0)
                await asyncio.sleep(0.05)
                graph._executor.spin_once(timeout_sec=0.0)
            assert twists[-1].twist.linear.x == 0.25  # half of view.linear_velocity_mps
            sending.cancel()
            state[0] = 'paused'
            await page.status(lambda s: s['link'] == 'paused', 'its pause')

    graph = make_graph(nodes=lambda: [ViewNode()])
    probe, state, encoding = graph.probe, ['playing'], ['martian']
    image = probe.create_publisher(Image, 'camera/image_raw', 1)
    joints = probe.create_publisher(JointState, 'joint_states', 1)
    twists = graph.listen(TwistStamped, 'cmd_vel')

    def tell(request, response):
        response.state.state = state_number(state[0])
        response.result.result = 1
        return response

    graph._spinner.add(answering := graph.probe.__class__('answering'))
    answering.create_service(GetSimulationState, 'get_simulation_state', tell)

    async def send():
        while True:
            picture = image_to_msg(np.zeros((6, 8, 3), np.uint8), 10 ** 9, 'camera')
            picture.encoding = encoding[0]
            image.publish(picture)
            joints.publish(JointState(name=['wheel'], position=[0.5]))
            await asyncio.sleep(0.05)

    asyncio.run(drive(graph.view, graph, send, twists))


def test_without_its_token_nothing_is_shown(make_graph):
    async def knock(view):
        cookies = aiohttp.CookieJar(unsafe=True)  # else none for an address of numbers
        async with (serving(view, token='s3cret') as server,
                    aiohttp.ClientSession(cookie_jar=cookies) as session):
            bare = server.url.partition('?')[0]
            for path in ('', 'main.js', 'ws', '?token=wrong'):
                async with session.get(bare + path) as answer:
                    assert answer.status == 401 and 'token' in await answer.text()
            async with session.get(server.url) as answer:  # the cookie opens the rest
                assert answer.status == 200 and 'token' not in str(answer.url)
            async with session.get(bare) as answer:
                assert answer.status == 200
            await (await session.ws_connect(f'{bare}ws')).close()

    asyncio.run(knock(make_graph(nodes=lambda: [ViewNode()]).view))


def test_pages_of_others_may_not_ask_and_other_machines_need_a_token(make_graph):
    async def knock(view):
        async with serving(view) as server, aiohttp.ClientSession() as session:
            for headers in ({'Origin': 'http://evil.example'}, {'Host': 'evil.example'}):
                async with session.get(server.url, headers=headers) as answer:
                    assert answer.status == 403
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await session.ws_connect(f'{server.url}ws', headers=headers)
            # A tunnel that gives the page another name: its browser sends no Origin here.
            reach = f'{server.url}reach?origin='
            async with session.get(f'{reach}https://me.tunnel.example') as answer:
                text = await answer.text()
                assert answer.status == 403 and 'me.tunnel.example' in text and 'ssh -L' in text
            async with session.get(reach + server.url.rstrip('/')) as answer:
                assert answer.status == 204
            async with session.get(f'{server.url}../../../nodes/view.py') as answer:
                assert answer.status == 404
        with pytest.raises(SpecError, match='needs a token'):
            Server(view, host='0.0.0.0')
        everywhere = Server(view, host='0.0.0.0', port=8420, token='t')
        assert everywhere.url == f'http://{socket.gethostname()}:8420/?token=t'

    asyncio.run(knock(make_graph(nodes=lambda: [ViewNode()]).view))


def test_a_taken_port_is_told_and_without_a_wish_the_next_one_is_used(make_graph):
    async def start(view):
        with socket.socket() as taken:
            taken.bind(('127.0.0.1', 0))
            taken.listen()
            with pytest.raises(SpecError, match='^[^:]*: address already in use. End'):
                await Server(view, port=taken.getsockname()[1]).start()
        async with serving(view) as first, serving(view) as second:
            assert first.url != second.url

    asyncio.run(start(make_graph(nodes=lambda: [ViewNode()]).view))
