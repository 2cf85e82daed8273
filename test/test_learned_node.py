# SPDX-License-Identifier: Apache-2.0
"""A learned world in the ROS graph: its map, its frames, its page, what it answers and refuses."""
from pathlib import Path
import shutil

from needs import need_engine
import pytest

pytest.importorskip('rclpy')
pytest.importorskip('lingbot_world_ros.msg')
pytest.importorskip('simulation_interfaces.srv')
need_engine('learned')

from geometry_msgs.msg import Twist  # noqa: E402, I100
from learned_worlds import HEIGHT_PX, NAME, WIDTH_PX  # noqa: E402
from lingbot_world_ros.errors import SpecError  # noqa: E402
from lingbot_world_ros.geometry import se3  # noqa: E402
from lingbot_world_ros.messages.frames import transform_from_msg  # noqa: E402
from lingbot_world_ros.messages.map import map_from_msg, map_to_msg  # noqa: E402
from lingbot_world_ros.models.mapped.runtime import read_plan  # noqa: E402
from lingbot_world_ros.msg import WorldSpec as WorldSpecMsg  # noqa: E402
from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode  # noqa: E402
from lingbot_world_ros.nodes.view import ViewNode  # noqa: E402
from lingbot_world_ros.nodes.world_model import WorldModelNode  # noqa: E402
from lingbot_world_ros.worlds.floor_plan import FloorPlan  # noqa: E402
from nav_msgs.msg import OccupancyGrid  # noqa: E402
import numpy as np  # noqa: E402
from sensor_msgs.msg import CameraInfo, Image, LaserScan  # noqa: E402
from simulation_interfaces.srv import (GetAvailableWorlds, GetEntitiesStates,  # noqa: E402
                                       LoadWorld)
from simulation_requests import fitting  # noqa: E402
from tf2_msgs.msg import TFMessage  # noqa: E402

MAPS = ('-p', 'publish_map:=true', '-p', 'publish_map_odom_tf:=true')


def world_and_encoder(*more):
    encoder = ActionEncoderNode()
    return [WorldModelNode(encoder=encoder), encoder, *(make() for make in more)]


def asked_for(world):
    fields = fitting(LoadWorld.Request.get_fields_and_field_types(), {
        'world_resource': {'uri': world}})
    request = LoadWorld.Request()
    for name, value in fields.items():
        if isinstance(value, dict):
            request.world_resource.uri = value['uri']
        else:
            setattr(request, name, value)
    return request


def given(world, *args):
    return ('-p', f'world:={world}', *args)


@pytest.fixture
def start(open_graph, learned_world):
    return lambda *args, more=(), world=learned_world: open_graph(
        lambda: world_and_encoder(*more), given(world, *args))


def test_map_and_transforms_put_the_robot_into_the_learned_place(start, learned_world):
    graph = start(*MAPS, '-p', 'map_resolution_m:=0.05')
    maps = graph.listen(OccupancyGrid, 'map', latched=True)
    links, scans = graph.listen(TFMessage, '/tf'), graph.listen(LaserScan, 'scan')
    moving = graph.probe.create_publisher(Twist, 'cmd_vel', 1)
    said = Twist()
    said.linear.x, said.angular.z = 0.3, 0.5
    graph.wait_for(lambda: maps and (moving.publish(said), len(links) > 20)[1], 'map and frames')
    _, plan = read_plan(learned_world)
    heard = map_from_msg(maps[0])
    assert maps[0].header.frame_id == 'map' and maps[0].info.resolution == pytest.approx(0.05)
    assert set(maps[0].data) == {-1, 0, 100}
    np.testing.assert_array_equal(heard.occupied[::2, ::2], plan.occupied)
    np.testing.assert_array_equal(heard.unknown[1::2, 1::2], plan.unknown)
    assert heard.origin_m == pytest.approx(plan.origin_m)
    asked = graph.call(GetEntitiesStates, 'get_entities_states')
    assert asked.result.result == 1 and len(asked.entities) == 1
    stamp = asked.states[0].header.stamp
    frames = [msg.transforms for msg in links
              if msg.transforms and msg.transforms[0].header.stamp == stamp]
    T = {(link.header.frame_id, link.child_frame_id): transform_from_msg(link.transform)
         for link in frames[-1]}
    place = T['map', 'odom'] @ T['odom', 'base_link']
    position = asked.states[0].pose.position
    np.testing.assert_allclose(place[:2, 3], [position.x, position.y], atol=1e-9)
    free = ~plan.occupied & ~plan.unknown
    column, row = ((place[:2, 3] - plan.origin_m) / plan.resolution_m).astype(int)
    assert free[row, column] and scans
    assert not np.allclose(T['odom', 'base_link'], se3.pose_from_se2(np.zeros(3)))


def test_its_page_draws_the_plan_of_the_folder(start):
    graph = start(more=[ViewNode])
    view = graph.nodes[-1]
    view.watch(True, False, False)
    plan = graph.wait_for(lambda: view.world()['plan'], 'the plan')
    assert view.world()['engine'] == 'learned' and plan['objects'] == {}
    assert plan['low_m'] == pytest.approx([-0.05, -0.05], abs=0.11)
    assert plan['size_m'] == pytest.approx([3.1, 3.1], abs=0.2)
    assert any(abs(x - 1.5) < 0.06 and abs(y - 1.5) < 0.06 and half_x > 0.25
               for x, y, _, half_x, _ in plan['parts'])  # the block
    assert plan['unknown'] and not plan['has_walls']
    origin = graph.wait_for(lambda: view.map()['origin'], 'where odometry begins')
    assert 0.1 < origin[0] < 2.9 and 0.1 < origin[1] < 2.9


def test_a_page_elsewhere_draws_the_map_that_the_world_publishes(open_graph, learned_world):
    def nodes():
        encoder = ActionEncoderNode()
        world = WorldModelNode(encoder=encoder)
        from rclpy.parameter import Parameter
        return [world, encoder, ViewNode(parameter_overrides=[Parameter('world', value='')])]
    graph = open_graph(nodes, given(learned_world, *MAPS))
    view = graph.nodes[-1]
    view.watch(True, False, False)
    plan = graph.wait_for(lambda: view.world()['plan'], 'the plan')
    assert plan['unknown'] and len(plan['parts']) >= 2
    graph.probe.create_publisher(OccupancyGrid, 'map', 1)  # somebody else maps: it is not ours
    graph.wait_for(lambda: 'map' not in view._followed, 'it to look away')


def test_a_map_is_read_as_it_was_written():
    rng = np.random.default_rng(0)
    occupied, unknown = rng.random((2, 7, 5)) < 0.3
    plan = FloorPlan(occupied, 0.25, (-1.5, 2.0), unknown & ~occupied)
    back = map_from_msg(map_to_msg(plan, 5, 'map'))
    for name, value in vars(plan).items():
        np.testing.assert_array_equal(getattr(back, name), value, err_msg=name)
    msg = map_to_msg(plan, 5, 'map')
    msg.info.width = 6
    with pytest.raises(SpecError, match='6 x 7 cells'):
        map_from_msg(msg)
    msg.info.width, msg.info.origin.orientation.z = 5, 0.4
    with pytest.raises(SpecError, match='turned'):
        map_from_msg(msg)


def test_it_is_the_only_world_and_another_is_refused_in_words(start):
    graph = start()
    worlds = graph.call(GetAvailableWorlds, 'get_available_worlds').worlds
    assert [world.name for world in worlds] == [NAME]
    spec = graph.listen(WorldSpecMsg, 'world_spec', latched=True)
    graph.wait_for(lambda: spec, 'world_spec')
    assert (spec[0].engine, list(spec[0].scenes), spec[0].scene) == ('learned', [NAME], NAME)
    refused = graph.call(LoadWorld, 'load_world', asked_for('living_room'))
    assert refused.result.result != 1 and NAME in refused.result.error_message
    again = graph.call(LoadWorld, 'load_world', asked_for(NAME))
    assert again.result.result == 1, again.result.error_message


def test_pictures_are_scaled_and_the_world_may_be_far_away(start):
    graph = start('-p', 'image_width:=32', '-p', 'image_height:=24', '-p', 'isolate_engine:=true',
                  '-r', '__ns:=/robo')
    images, infos = (graph.listen(kind, f'/robo/camera/{name}') for kind, name in (
        (Image, 'image_raw'), (CameraInfo, 'camera_info')))
    graph.wait_for(lambda: images and infos, 'pictures')
    assert (images[0].width, images[0].height) == (32, 24) != (WIDTH_PX, HEIGHT_PX)
    assert infos[0].width == 32


@pytest.mark.parametrize('write', [
    str, lambda folder: folder.as_uri(), lambda folder: f'{folder}/world.yaml',
    lambda folder: f'../{folder.parent.name}/{folder.name}', lambda folder: f'~/{folder.name}'])
def test_a_folder_is_named_in_many_ways(open_graph, learned_world, write, monkeypatch):
    monkeypatch.chdir(learned_world.parent)
    monkeypatch.setenv('HOME', str(learned_world.parent))
    graph = open_graph(lambda: world_and_encoder(), given(write(learned_world)))
    assert graph.nodes[0].session.world.spec.model == NAME


@pytest.mark.parametrize('args, words', [
    (('-p', 'engine:=reference'), 'runs with engine .learned. only'),
    (('-p', 'scene:=office'), "Unknown scene 'office'"),
    (('-p', 'publish_bumper:=true'), 'no shapes to touch'),
    (('-p', 'robot:=room'), 'takes no robot')])
def test_what_cannot_be_is_refused_in_a_sentence(start, args, words):
    with pytest.raises(SpecError, match=words):
        start(*args)


@pytest.mark.parametrize('name, content, words', [
    ('map.safetensors', None, 'map.safetensors is missing'),
    ('map.safetensors', 'junk', 'map.safetensors cannot be read'),
    ('renderer.onnx', None, 'renderer.onnx is missing'),
    ('renderer.onnx', '', 'renderer.onnx cannot be read'),
    ('robot.yaml', None, 'robot.yaml is missing'), ('robot.yaml', 'urdf: [', 'robot.yaml'),
    ('robot.urdf', None, 'robot.urdf'), ('world.yaml', 'format: [', 'world.yaml cannot be read'),
    ('world.yaml', 'format: 1\nkind: mapped\nsha256: {}\n', 'world.yaml'),
    ('world.yaml', None, 'nor the folder of a learned world')])
def test_a_damaged_folder_is_told_in_a_sentence(start, learned_world, tmp_path, name, content,
                                                words):
    folder = Path(shutil.copytree(learned_world, tmp_path / 'damaged'))
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(SpecError, match=words) as error:
        start(world=folder)
    assert '\n' not in str(error.value)
