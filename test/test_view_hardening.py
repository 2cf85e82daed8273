# SPDX-License-Identifier: Apache-2.0
"""The operator's page among pages and simulators that do not behave."""
import asyncio
import json
import logging
import socket
import threading
import time

import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('simulation_interfaces.srv')
aiohttp = pytest.importorskip('aiohttp')

from fake_world import FakeWorld  # noqa: E402, I100
from geometry_msgs.msg import Twist, TwistStamped  # noqa: E402
from lingbot_world_ros.messages.simulation import state_number  # noqa: E402
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode  # noqa: E402
from lingbot_world_ros.nodes.command_publishers import CommandPublishers  # noqa: E402
from lingbot_world_ros.nodes.view import ViewNode  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
from lingbot_world_ros.view import server as view_server  # noqa: E402
from lingbot_world_ros.view.messages import Drive, WorldRequest  # noqa: E402
from lingbot_world_ros.view.server import Server  # noqa: E402
import rclpy  # noqa: E402
from rclpy.executors import SingleThreadedExecutor  # noqa: E402
from sensor_msgs.msg import CompressedImage, Image, JointState  # noqa: E402
from simulation_interfaces.srv import GetSimulationState  # noqa: E402
import test_view_node as usual  # noqa: E402
from waiting import PATIENCE_S, wait_for  # noqa: E402

make_graph, serving, Page = usual.make_graph, usual.serving, usual.Page
ROBOT_WORLD = {'joints': [], 'can': {}, 'mode': ''}


class Robot:
    """What the server asks of, with a note of it."""

    def __init__(self):
        self.asked, self.answers = [], []

    def world(self):
        return ROBOT_WORLD

    def map(self):
        return {}

    def status(self):
        return {'link': 'live', 'filler': 'x' * 2000}

    def watch(self, *_):
        pass

    def drive(self, drive):
        self.asked.append('stop' if drive.is_stop else 'drive')

    def move_joint(self, name, position):
        self.asked.append(name)

    def stop(self):
        self.asked.append('stop')

    def request(self, do):
        answer = asyncio.get_running_loop().create_future()
        self.answers.append(answer)
        return answer


async def started(robot, **options):
    server = Server(robot, **options)
    await server.start()
    return server


async def deaf_page(server):
    """Open a WebSocket by hand that never reads; return its reader and writer."""
    small = socket.socket()
    small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    small.setblocking(False)
    port = int(server.url.rpartition(':')[2].partition('/')[0])
    await asyncio.get_running_loop().sock_connect(small, ('127.0.0.1', port))
    reader, writer = await asyncio.open_connection(sock=small, limit=1024)
    writer.write(f'GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\n'
                 'Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n'
                 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n'.encode())
    await reader.readuntil(b'\r\n\r\n')
    writer.transport.pause_reading()
    return writer


def frame(text):
    """Return a text message of a client, masked with zeros."""
    data = text.encode()
    size = (bytes([0x80 | len(data)]) if len(data) < 126 else
            bytes([0x80 | 126]) + len(data).to_bytes(2, 'big'))
    return b'\x81' + size + bytes(4) + data


async def until(happened, what):
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s:
        if happened():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f'waited in vain for {what}')


def test_a_page_that_never_reads_is_dropped_before_it_fills_the_memory():
    async def flood():
        server = await started(Robot())
        writer = await deaf_page(server)
        await until(lambda: server._pages, 'the page')
        page = next(iter(server._pages.values()))
        nonsense = frame('{"type": "nonsense"}') * 500
        await until(lambda: writer.write(nonsense) or not server._pages, 'its end')
        assert len(page.texts) < 2 * view_server.MAX_WAITING
        await server.stop()

    asyncio.run(flood())


def test_the_server_ends_at_once_and_stops_the_robot_though_pages_do_not_listen():
    async def end():
        robot = Robot()
        server = await started(robot)
        writers = [await deaf_page(server) for _ in range(5)]
        deaf, shown = list(server._pages.values()), []

        def are_full():  # nothing fits between server and page any more: the newest waits
            shown.append(server.on_picture(1, 0.0, bytes(100_000)))
            return len(shown) > 100 and all(page.pictures for page in deaf)
        await until(are_full, 'deaf pages')
        async with aiohttp.ClientSession() as session:
            driver = await session.ws_connect(f'{server.url}ws')
            await driver.send_str('{"type": "drive", "linear": 1, "angular": 0}')
            await until(lambda: 'drive' in robot.asked, 'motion')
            ending = asyncio.ensure_future(server.stop())
            end_s = time.monotonic() + PATIENCE_S
            while not ending.done() and time.monotonic() < end_s:
                if not driver.closed:
                    try:
                        await driver.send_str('{"type": "drive", "linear": 1, "angular": 0}')
                    except ConnectionError:
                        pass
                await asyncio.sleep(0.02)
            assert ending.done()
            assert 'drive' not in robot.asked[robot.asked.index('stop'):]
        for writer in writers:
            writer.transport.abort()

    asyncio.run(end())


def test_a_robot_is_stopped_before_another_page_uses_it_even_if_the_server_stalled():
    async def stall():
        robot = Robot()
        server = await started(robot)
        first, second = (view_server._Page(name, None, None, asyncio.Event()) for name in 'ab')
        server._hear(first, '{"type": "drive", "linear": 1, "angular": 0}')
        server._controls._input_s -= 60.0  # the event loop did nothing for a minute
        server._hear(second, '{"type": "joint", "name": "elbow", "position": 1}')
        assert robot.asked == ['drive', 'stop', 'elbow']
        await server.stop()

    asyncio.run(stall())


def test_requests_are_limited_and_one_that_fails_or_is_given_up_is_told(caplog):
    async def ask():
        robot = Robot()
        server = await started(robot)
        page = view_server._Page('a', None, None, asyncio.Event())
        for number in range(view_server.MAX_REQUESTS + 1):
            server._act(page, WorldRequest(number, 'pause'))
        assert len(robot.answers) == view_server.MAX_REQUESTS
        told = json.loads(page.texts[-1])
        assert not told['ok'] and 'not answered' in told['text']
        robot.answers[0].set_exception(ValueError('the service went away'))
        robot.answers[1].set_result((True, ''))
        robot.answers[2].cancel()
        await until(lambda: len(page.texts) > 2, 'the answers')
        failed, done = (json.loads(text) for text in page.texts[-2:])
        assert (failed['id'], failed['ok']) == (0, False) and 'went away' in failed['text']
        assert (done['id'], done['ok']) == (1, True)
        server._act(page, WorldRequest(99, 'pause'))
        assert len(robot.answers) == view_server.MAX_REQUESTS + 1
        await server.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(ask())
    assert not caplog.records


def test_whatever_stands_in_host_origin_cookie_or_query_gets_a_sober_refusal(caplog):
    async def knock():
        server = await started(Robot(), token='s3cret')
        port = server._port
        for line, code in (('Origin: http://[', 403), ('Origin: \xff\xfe', 403),
                           ('Origin: null', 403), (f'Cookie: lingbot_world_{port}=\xff', 401),
                           ('X: y', 401)):
            for path in ('/', '/ws', '/main.js', '/nothing', '/?token=%ff', '/?token=%C3%A9'):
                reader, writer = await asyncio.open_connection('127.0.0.1', port)
                writer.write(f'GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\n{line}\r\n'
                             'Connection: close\r\n\r\n'.encode('latin-1'))
                answer = (await reader.read()).decode()
                writer.close()
                is_file = path in ('/main.js', '/nothing')  # no secret but for the token
                assert answer.startswith(f'HTTP/1.1 {401 if is_file else code}'), (
                    line, path, answer)
                assert 'nosniff' in answer and 'frame-ancestors' in answer
        await server.stop()

    with caplog.at_level(logging.ERROR):
        asyncio.run(knock())
    assert not caplog.records


@pytest.mark.parametrize('token', ['a+b&c=d#e%20', 'schlüssel "; x', '../../?'])
def test_a_token_of_any_characters_opens_the_page_whose_address_was_told(token):
    async def knock():
        server = await started(Robot(), token=token)
        cookies = aiohttp.CookieJar(unsafe=True)
        async with aiohttp.ClientSession(cookie_jar=cookies) as session:
            async with session.get(server.url) as answer:
                assert answer.status == 200
            await (await session.ws_connect(f'http://127.0.0.1:{server._port}/ws')).close()
        await server.stop()

    asyncio.run(knock())


def test_a_host_of_no_text_is_every_address_and_is_told_as_one_that_works():
    async def knock():
        server = await started(Robot(), host='', token='t')
        async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as session:
            async with session.get(server.url) as answer:
                assert answer.status == 200
        await server.stop()

    asyncio.run(knock())


def test_joints_that_vanish_while_they_are_driven_are_stopped(make_graph):
    graph = make_graph(nodes=lambda: [ViewNode()])
    view, commands = graph.view, graph.listen(JointState, 'joint_command')
    graph.wait_for(lambda: graph.view.count_subscribers('/joint_command'), 'a listener')
    joint = {'name': 'elbow', 'min': -1.0, 'max': 1.0, 'speed_max': 2.0}
    view._world = {**view._world, 'joints': [joint]}
    view.drive(Drive(0.0, 0.0, {'elbow': 0.5}))
    graph.wait_for(lambda: commands and commands[-1].velocity[0] == 1.0, 'motion')
    view._world = {**view._world, 'joints': []}
    view.drive(Drive(0.0, 0.0, {'elbow': 0.5}))
    graph.wait_for(lambda: commands[-1].velocity[0] == 0.0, 'the stop')


def test_a_robot_is_stopped_before_another_one_with_another_type_is_driven(make_graph, domain):
    graph = make_graph(nodes=lambda: [rclpy.create_node('driver')])
    commands = CommandPublishers(graph.view)
    contexts = [rclpy.Context() for _ in range(2)]  # one type of a name in each
    for each in contexts:
        each.init(domain_id=domain)
    context = contexts[0]
    robot, other = (rclpy.create_node('robot', context=each) for each in contexts)
    executor, first = SingleThreadedExecutor(context=context), []
    executor.add_node(robot)
    robot.create_subscription(Twist, 'cmd_vel', first.append, 1)
    graph.nodes[0].create_timer(0.01, commands.look)
    graph.wait_for(lambda: commands._twist, 'the first')
    graph.wait_for(lambda: commands._twist.get_subscription_count(), 'its match')
    commands.twist(0.5, 0.0, 0.0)
    graph.wait_for(lambda: executor.spin_once(0.01) or first, 'motion')
    other.create_subscription(TwistStamped, 'cmd_vel', lambda msg: None, 1)
    graph.wait_for(lambda: commands._stamped, 'the second')
    graph.wait_for(lambda: executor.spin_once(0.01) or first[-1].linear.x == 0.0, 'the stop')
    for each in contexts:
        each.shutdown()


def test_commands_are_published_while_the_type_of_cmd_vel_changes(make_graph, monkeypatch):
    graph = make_graph(nodes=lambda: [rclpy.create_node('driver')])
    commands, problems, ended = CommandPublishers(graph.view), [], threading.Event()
    types = ['geometry_msgs/msg/Twist']
    monkeypatch.setattr(graph.view, 'get_subscriptions_info_by_topic',
                        lambda topic: [type('Info', (), {'topic_type': types[0]})])

    def drive():
        while not ended.is_set():
            try:
                commands.twist(0.1, 0.0, 0.0)
            except Exception as error:
                problems.append(error)

    def exchange():
        types[0] = f'geometry_msgs/msg/Twist{"" if commands._stamped else "Stamped"}'
        return commands.look()

    driving = threading.Thread(target=drive)
    driving.start()
    try:
        looks = []
        graph.nodes[0].create_timer(0.002, lambda: looks.append(exchange()))
        graph.wait_for(lambda: len(looks) > 60, 'changes')
    finally:
        ended.set()
        driving.join()
    assert not problems


@pytest.mark.parametrize('step, num_bytes, side', [(0, 0, 0), (8, 30, 4), (7, 28, 4)])
def test_depth_that_does_not_fit_its_size_is_left_out(make_graph, step, num_bytes, side):
    graph = make_graph(nodes=lambda: [ViewNode()])
    seen = []
    graph.view.on_picture = lambda *picture: seen.append(picture)
    graph.view.watch(True, True, False)
    depth = graph.publisher(Image, graph.view.params.topics.depth)
    depth.publish(Image(encoding='16UC1', width=side, height=side, step=step,
                        data=bytes(num_bytes)))
    good = Image(encoding='16UC1', width=4, height=4, step=8, data=bytes(range(32)))

    def shown():
        depth.publish(good)
        return seen

    graph.wait_for(shown, 'the next picture')


@pytest.mark.slow
def test_a_simulator_that_pauses_without_a_picture_is_not_lost_now_and_then(make_graph):
    graph, asked, links = make_graph(nodes=lambda: [ViewNode()]), [], []

    def tell(request, response):
        asked.append(request)
        response.state.state = state_number('paused')
        return response

    def is_asked_again():
        links.append(graph.view.status()['link'])
        return len(asked) > before + 3

    graph._spinner.add(answering := rclpy.create_node('answering'))
    answering.create_service(GetSimulationState, 'get_simulation_state', tell)
    graph.view.watch(True, False, False)
    graph.wait_for(lambda: graph.view.status()['link'] == 'paused', 'its pause')
    before = len(asked)
    graph.wait_for(is_asked_again, 'more questions')
    assert set(links) == {'paused'}


def test_a_service_that_does_not_answer_is_not_asked_more_and_more(make_graph, monkeypatch):
    monkeypatch.setattr('lingbot_world_ros.nodes.view.POLL_S', 0.0)
    graph = make_graph(nodes=lambda: [ViewNode()])
    graph.probe.create_service(GetSimulationState, 'get_simulation_state',
                               lambda request, response: response)  # and nobody spins
    client = graph.view._client._clients['GetSimulationState']
    graph.view.watch(True, False, False)
    wait_for(lambda: client._pending_requests, 'the question')
    looks, look = [], graph.view._look
    graph.view._look = lambda: looks.append(look())
    wait_for(lambda: len(looks) > 3, 'more looks')
    assert len(client._pending_requests) == 1


def test_an_engine_that_makes_many_frames_in_one_slow_step_is_live(make_graph):
    class Slow(FakeWorld):
        def __init__(self):
            super().__init__(frames_per_step=12)

        def step(self, actions, render=True):
            time.sleep(2.5)
            return super().step(actions, render)

    def world_and_view():
        encoder = ActionEncoderNode()
        return [WorldModelNode(world=Slow, encoder=encoder), encoder, ViewNode()]

    graph = make_graph(nodes=world_and_view)

    def waits_for_the_engine():
        """Twelve frames at once are rare; only after 2.6 s without one there is a reason."""
        status = graph.view.status()
        return 1.2 < (status['image_age_s'] or 0.0) < 2.5 and status

    graph.view.watch(True, False, False)
    graph.wait_for(lambda: graph.view.status()['link'] == 'live', 'the first step')
    assert graph.wait_for(waits_for_the_engine, 'a wait')['link'] == 'live'


def test_compressed_video_gives_way_to_the_raw_image(make_graph):
    graph = make_graph(nodes=lambda: [ViewNode()])
    names, seen = graph.view.params.topics, []
    raw = graph.probe.create_publisher(Image, names.image, 1)
    video = graph.probe.create_publisher(CompressedImage, names.compressed, 1)
    graph.view.on_picture = lambda *picture: seen.append(picture)
    graph.view.watch(True, False, False)

    def shown():
        raw.publish(Image(encoding='mono8', width=4, height=4, step=4, data=bytes(16)))
        video.publish(CompressedImage(format='h264', data=b'\0\0\0\1g'))
        return seen

    graph.wait_for(shown, 'the raw image')


def test_joints_of_two_publishers_are_known_together(make_graph):
    graph = make_graph(nodes=lambda: [ViewNode()])
    graph.view.watch(True, False, False)
    states = graph.publisher(JointState, graph.view.params.topics.joint_states)

    def told():
        states.publish(JointState(name=['arm'], position=[0.5]))
        states.publish(JointState(name=['gripper'], position=[float('nan')]))
        return len(graph.view.world()['joints']) == 2

    graph.wait_for(told, 'both joints')
    seen, hear = [], graph.view._hear_joints
    graph.view._hear_joints = lambda msg: seen.append(hear(msg))
    for count in range(1, 30):
        told()
        graph.wait_for(lambda count=count: len(seen) >= 2 * count, 'both')
        assert [joint['name'] for joint in graph.view.world()['joints']] == ['arm', 'gripper']
    assert graph.view.status()['joints'] == {'arm': 0.5}
