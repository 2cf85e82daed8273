# SPDX-License-Identifier: Apache-2.0
"""
Layouts for RViz and Foxglove: every name in them is there in a running graph, under any profile.

Neither tool is installed where this runs: class, panel and option names are compared with lists
taken from rviz_default_plugins and foxglove-sdk, nothing is drawn.
"""
from importlib import import_module
import json
from pathlib import Path
import re

from lingbot_world_ros.cli.main import main
from lingbot_world_ros.errors import SpecError
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.settings import layouts
from lingbot_world_ros.settings.description import description_of, link_publisher_parameters
from lingbot_world_ros.settings.layouts import (frame_names, profile_values, render_layout,
                                                shipped_layout, topic_names, write_layout)
from lingbot_world_ros.settings.profiles import load_profile
import pytest
import yaml

ROBOT = load_robot()
ROVER, ROVER_URDF = ((Path(__file__).parent / 'robots' / f'rover.{kind}').read_text()
                     for kind in ('yaml', 'urdf'))

PROFILES = sorted(path.stem for path in share_path('config').glob('*.yaml'))
NAMESPACE, PREFIX = 'farm/w', 'farm/w/'
DISPLAYS = {  # class of rviz_default_plugins -> type of its topic
    'Grid': None, 'TF': None, 'Image': 'sensor_msgs/msg/Image',
    'DepthCloud': 'sensor_msgs/msg/Image', 'LaserScan': 'sensor_msgs/msg/LaserScan',
    'RobotModel': 'std_msgs/msg/String', 'Path': 'nav_msgs/msg/Path',
    'Odometry': 'nav_msgs/msg/Odometry', 'Map': 'nav_msgs/msg/OccupancyGrid',
    'PointCloud2': 'sensor_msgs/msg/PointCloud2',
    'PoseWithCovariance': 'geometry_msgs/msg/PoseWithCovarianceStamped'}
OFF = {'map', 'points', 'ground_truth_pose', 'predicted_pose'}  # unless asked for
OTHERS = {'Interact', 'MoveCamera', 'Select', 'FocusCamera', 'Measure', 'Orbit', 'TF'}
PANELS = {'3D', 'Image', 'Plot', 'DiagnosticSummary', 'RawMessages', 'Teleop', 'CallService',
          'Publish', 'Indicator'}
SHOWN = {  # what the 3D panel can show -> types it takes
    'path': 'nav_msgs/msg/Path', 'odom': 'nav_msgs/msg/Odometry',
    'scan': 'sensor_msgs/msg/LaserScan', 'depth': 'sensor_msgs/msg/Image',
    'compressed': 'sensor_msgs/msg/CompressedImage', 'map': 'nav_msgs/msg/OccupancyGrid',
    'points': 'sensor_msgs/msg/PointCloud2',
    'ground_truth_pose': 'geometry_msgs/msg/PoseWithCovarianceStamped',
    'predicted_pose': 'geometry_msgs/msg/PoseWithCovarianceStamped'}
URDF = '<robot name="r"><link name="base_link"/>{}</robot>'


def rviz(values, namespace=''):
    return yaml.safe_load(render_layout('rviz', values, namespace))


def foxglove(values, namespace=''):
    return json.loads(render_layout('foxglove', values, namespace))


def in_namespace(profile):
    return {**profile_values(profile), 'frame_prefix': PREFIX}


def displays(layout):
    """Yield class, topic and QoS settings of everything RViz subscribes to."""
    for display in layout['Visualization Manager']['Displays']:
        name = display['Class'].removeprefix('rviz_default_plugins/')
        topic = display.get('Topic') or display.get('Description Topic')
        if topic:
            yield name, topic['Value'], topic
        if name == 'DepthCloud':
            reliability = {'Reliability Policy': display['Reliability Policy'].title(),
                           'Durability Policy': 'Volatile'}
            yield name, display['Depth Map Topic'], reliability
            yield name, display['Color Image Topic'], reliability


def panels(layout, kind):
    return {name.partition('!')[2]: panel for name, panel in layout['configById'].items()
            if name.startswith(f'{kind}!')}


def foxglove_topics(layout, values, namespace):
    """Return type by topic of everything Foxglove subscribes to; None: any type will do."""
    topics, scene = topic_names(values, namespace), panels(layout, '3D')['scene']
    found = {topics[key]: kind for key, kind in SHOWN.items() if topics[key] in scene['topics']}
    assert set(found) == set(scene['topics'])
    infos = [panel['cameraInfoTopic'] for panel in scene['topics'].values()
             if 'cameraInfoTopic' in panel]
    robot = scene['layers']['robot']
    found.update({robot['topic']: 'std_msgs/msg/String',
                  robot['jointStatesTopic']: 'sensor_msgs/msg/JointState'})
    for panel in panels(layout, 'Image').values():
        found[panel['imageMode']['imageTopic']] = None
        infos.append(panel['imageMode']['calibrationTopic'])
    found.update((name, 'sensor_msgs/msg/CameraInfo') for name in infos)
    for panel in panels(layout, 'DiagnosticSummary').values():
        found[panel['topicToRender']] = 'diagnostic_msgs/msg/DiagnosticArray'
    for panel in panels(layout, 'RawMessages').values():
        found[panel['topicPath']] = 'lingbot_world_ros/msg/WorldStatus'
    for panel in panels(layout, 'Indicator').values():
        found[panel['path'].removesuffix('.data')] = 'std_msgs/msg/Bool'
    return found


@pytest.fixture(scope='module')
def graph_of():
    """Start both nodes of a world over a fake engine, under a profile and in a namespace."""
    pytest.importorskip('rclpy')
    pytest.importorskip('lingbot_world_ros.msg')
    from fake_world import FakeWorld
    from lingbot_world_ros.nodes.action_encoder import ActionEncoderNode
    from lingbot_world_ros.nodes.world_model import WorldModelNode
    from ros_domain import Domain
    from ros_graph import Graph
    world = FakeWorld(robot=ROBOT)

    def nodes():
        encoder = ActionEncoderNode()
        return [WorldModelNode(world=lambda: world, encoder=encoder), encoder]
    with Domain() as number:
        yield lambda profile: Graph(nodes, number, (
            '--params-file', str(layouts.share_path('config', f'{profile}.yaml')),
            '-p', 'scene:=a', '-p', 'cmd_vel_type:=twist', '-p', f'frame_prefix:={PREFIX}',
            '-r', f'__ns:=/{NAMESPACE}'))


def offered(graph, name):
    """Return type and QoS of a topic that somebody publishes."""
    info = graph.wait_for(lambda: graph.probe.get_publishers_info_by_topic(name), name)[0]
    return info.topic_type, info.qos_profile


def fits(offer, wanted):
    """Return whether RViz's settings match what a publisher offers."""
    asked = (wanted['Reliability Policy'], wanted['Durability Policy'])
    can = offer.reliability.name == 'RELIABLE', offer.durability.name == 'TRANSIENT_LOCAL'
    return all(ok or name in ('Best Effort', 'Volatile') for ok, name in zip(can, asked))


@pytest.mark.parametrize('profile', PROFILES)
def test_every_name_is_there_in_a_running_graph(graph_of, profile):
    values = in_namespace(profile)
    with graph_of(profile) as graph:
        # A map is made of scenes, the fake engine has none; its poses are predicted.
        absent = {topic_names(values, NAMESPACE)[key] for key in ('map', 'ground_truth_pose')}
        for display, topic, wanted in displays(rviz(values, NAMESPACE)):
            if topic in absent:
                continue
            kind, offer = offered(graph, topic)
            assert kind == DISPLAYS[display] and fits(offer, wanted), (display, topic)
        layout = foxglove(values, NAMESPACE)
        for topic, kind in foxglove_topics(layout, values, NAMESPACE).items():
            assert topic in absent or kind in (None, offered(graph, topic)[0]), topic
        check_plots(graph, layout)
        check_commands(graph, layout)
        check_frames(graph, rviz(values, NAMESPACE), layout, values)


def interface(name):
    """Import a message or service type, for example ``'std_srvs/srv/Trigger'``."""
    package, kind, name = name.split('/')
    return getattr(import_module(f'{package}.{kind}'), name)


def filled(message, text):
    """Set the fields of a message as JSON names them."""
    for name, value in json.loads(text).items():
        setattr(message, name, value)
    return message


def check_plots(graph, layout):
    """Every line of every plot is a number in a message of that topic."""
    for panel in panels(layout, 'Plot').values():
        for series in panel['paths']:
            topic, *parts = series['value'].split('.')
            kind = offered(graph, topic)[0]
            for field in parts:
                name, index = re.fullmatch(r'(\w+)(?:\[(\d+)\])?', field).groups()
                kind = interface(kind).get_fields_and_field_types()[name]
                if '/' in kind:
                    kind = kind.replace('/', '/msg/')
            assert kind in ('double', 'float', 'sequence<double>'), series
            assert (index is not None) == kind.startswith('sequence')


def check_commands(graph, layout):
    """Everything Foxglove sends has a listener of that type, every button its service."""
    publish, drive = (panels(layout, kind).popitem()[1] for kind in ('Publish', 'Teleop'))
    for topic, kind in ((publish['topicName'], publish['datatype']),
                        (drive['topic'], 'geometry_msgs/msg/Twist')):
        listeners = graph.wait_for(
            lambda topic=topic: graph.probe.get_subscriptions_info_by_topic(topic), topic)
        assert [listener.topic_type for listener in listeners] == [kind]
    message = filled(interface(publish['datatype'])(), publish['value'])
    assert set(message.name) <= set(ROBOT.joint_names)
    for panel in panels(layout, 'CallService').values():
        name = panel['serviceName']
        kinds = graph.wait_for(
            lambda name=name: dict(graph.probe.get_service_names_and_types()).get(name), name)
        filled(interface(kinds[0]).Request(), panel['requestPayload'])


def check_frames(graph, rviz_layout, foxglove_layout, values):
    """Every frame is in the tree that the world publishes, and no other name is in there."""
    from tf2_msgs.msg import TFMessage
    moving = graph.listen(TFMessage, values['topics.tf'])
    static = graph.listen(TFMessage, values['topics.tf_static'], latched=True)
    graph.wait_for(lambda: moving and static, 'transforms')
    links = [*moving[0].transforms, *static[0].transforms]
    known = {link.child_frame_id for link in links} | {link.header.frame_id for link in links}
    manager, scene = rviz_layout['Visualization Manager'], panels(foxglove_layout, '3D')['scene']
    used = {manager['Global Options']['Fixed Frame'], manager['Views']['Current']['Target Frame'],
            scene['followTf'], scene['fixedFrame'], scene['layers']['floor']['frameId']}
    own = frame_names(values)
    own.pop('map')  # nobody asked for its transform
    assert used <= known == set(own.values())


def test_buttons_pause_play_step_and_reset(graph_of):
    buttons = panels(foxglove(in_namespace('default'), NAMESPACE), 'CallService')
    with graph_of('default') as graph:
        graph.wait_for(lambda: graph.nodes[0].session is not None, 'a world')
        for name, state in (('pause', 'paused'), ('step', 'paused'), ('play', 'playing'),
                            ('reset', 'playing')):
            service = buttons[name]['serviceName']
            kind = graph.wait_for(lambda service=service: dict(
                graph.probe.get_service_names_and_types()).get(service), service)[0]
            request = filled(interface(kind).Request(), buttons[name]['requestPayload'])
            assert graph.call(interface(kind), service, request).success, name
            assert graph.nodes[0].session.status.state == state


def test_what_ships_has_the_names_of_the_default_profile():
    values = profile_values('default')
    assert rviz(values) == yaml.safe_load(shipped_layout('rviz').read_text())
    layout, shipped = foxglove(values), json.loads(shipped_layout('foxglove').read_text())
    for either in (layout, shipped):
        either['configById'].pop('Plot!joints'), either['configById'].pop('Publish!joints')
    assert layout == shipped
    assert render_layout('rviz', values).startswith('# SPDX-License-Identifier: Apache-2.0\n')


def test_rviz_knows_every_class():
    manager = rviz(profile_values('default'))['Visualization Manager']
    names = [display['Class'] for display in manager['Displays']]
    assert set(names) == {f'rviz_default_plugins/{name}' for name in DISPLAYS}
    others = [tool['Class'] for tool in manager['Tools']]
    others += [manager['Views']['Current']['Class'], manager['Transformation']['Current']['Class']]
    assert {name.removeprefix('rviz_default_plugins/') for name in others} == OTHERS
    assert all(display['Enabled'] is display['Value'] for display in manager['Displays'])


def switched_off(values):
    """Return the topics that neither tool shows at first, the same in both."""
    keys = {name: key for key, name in topic_names(values).items()}
    shown = rviz(values)['Visualization Manager']['Displays']
    off = {keys[display['Topic']['Value']] for display in shown if not display['Enabled']}
    topics = panels(foxglove(values), '3D')['scene']['topics']
    hidden = {keys[name] for name, topic in topics.items() if not topic['visible']}
    assert off == hidden - {'depth'}  # in RViz as an image
    return off


def test_the_map_and_poses_in_it_are_shown_where_they_were_asked_for():
    values = profile_values('default')
    assert switched_off(values) == OFF
    assert switched_off({**values, 'publish_map': True}) == OFF - {'map'}
    assert switched_off({**values, 'publish_map': True, 'publish_map_odom_tf': True}) == {'points'}


def test_images_in_rviz_match_publishers_of_either_reliability():
    layout = rviz(profile_values('default'))
    for display, topic, wanted in displays(layout):
        if display in ('Image', 'DepthCloud'):
            assert wanted['Reliability Policy'] == 'Best Effort', topic


def test_foxglove_knows_every_panel_and_shows_each_once():
    layout = foxglove(profile_values('default'))
    assert {name.partition('!')[0] for name in layout['configById']} == PANELS

    def leaves(node):
        if isinstance(node, str):
            return [node]
        assert node['direction'] in ('row', 'column') and 0 < node['splitPercentage'] < 100
        return leaves(node['first']) + leaves(node['second'])
    assert sorted(leaves(layout['layout'])) == sorted(layout['configById'])
    joints = panels(layout, 'Plot')['joints']['paths']
    assert tuple(series['label'] for series in joints) == ROBOT.joint_names
    assert [series['value'] for series in joints] == [
        f'/joint_states.position[{i}]' for i in range(5)]


def test_foxglove_shows_pictures_of_a_recording_with_compressed_ones():
    recorder = pytest.importorskip('lingbot_world_ros.nodes.recorder')
    values = profile_values('default')
    pictures = [panel['imageMode']['imageTopic']
                for panel in panels(foxglove(values), 'Image').values()]
    assert topic_names(values)['compressed'] in pictures
    assert recorder.COMPRESSED not in recorder.LEFT_OUT['compressed']


@pytest.mark.parametrize('text, names, wanted', [
    (ROVER, ['mast_pan_joint'], {'name': ['mast_pan_joint'], 'position': [0.5]}),
    (ROVER.partition('joints:')[0], [], {'name': [], 'position': []})])
def test_a_layout_has_the_joints_of_the_robot(tmp_path, text, names, wanted):
    (tmp_path / 'rover.urdf').write_text(ROVER_URDF)
    path = tmp_path / 'rover.yaml'
    path.write_text(text)
    layout = foxglove({**profile_values('default'), 'engine': 'lingbot_world',
                       'robot': str(path)})
    assert [series['label'] for series in panels(layout, 'Plot')['joints']['paths']] == names
    assert json.loads(panels(layout, 'Publish')['joints']['value']) == wanted
    assert panels(layout, '3D')['scene']['layers']['robot']['visible']


@pytest.mark.parametrize('changes, absent', [
    ({}, set()), ({'publish_scan': False}, {'Scan'}),
    ({'engine': 'lingbot_world', 'robot_description': '<robot/>'},
     {'Depth', 'Coloured points', 'Scan'}),
    ({'engine': 'lingbot_world'}, {'Depth', 'Coloured points', 'Scan', 'Robot'})])
def test_what_a_world_does_not_publish_is_off(changes, absent):
    values = {**profile_values('default'), **changes}
    shown = rviz(values)['Visualization Manager']['Displays']
    off = {display['Name'] for display in shown if not display['Enabled']}
    assert off == absent | {'Map', 'Points', 'True pose in the map', 'Predicted pose in the map'}
    assert all(display['Enabled'] is display['Value'] for display in shown)
    scene = panels(foxglove(values), '3D')['scene']
    assert scene['topics']['/scan']['visible'] is ('Scan' not in absent)
    assert scene['layers']['robot']['visible'] is ('Robot' not in absent)


def test_robot_and_prefix_belong_together():
    layout = rviz(in_namespace('default'), NAMESPACE)
    robot = next(display for display in layout['Visualization Manager']['Displays']
                 if display['Name'] == 'Robot')
    assert robot['TF Prefix'] == PREFIX.rstrip('/')  # RViz puts the slash there
    assert robot['Description Topic']['Durability Policy'] == 'Transient Local'
    layer = panels(foxglove(in_namespace('default'), NAMESPACE), '3D')['scene']['layers']['robot']
    assert layer['framePrefix'] == PREFIX


@pytest.mark.parametrize('text, words', [
    ('{Topic: {Value: /camera/image_rwa}}', "topic of the layout '/camera/image_rwa'.*Did you"),
    ('{Fixed Frame: world}', "frame of the layout 'world'")])
def test_a_name_no_world_has_is_an_error(tmp_path, monkeypatch, text, words):
    path = tmp_path / 'sim.rviz'
    path.write_text(text)
    monkeypatch.setattr(layouts, 'shipped_layout', lambda tool: path)
    with pytest.raises(SpecError, match=words):
        render_layout('rviz', profile_values('default'))


@pytest.mark.parametrize('tool, changes, namespace, words', [
    ('rvis', {}, '', "Unknown layout 'rvis'. Did you mean 'rviz'"),
    ('rviz', {'frame_prefix': 'w_'}, '', 'does not end with a slash'),
    ('rviz', {}, 'a b', "'a b' is no namespace"), ('foxglove', {}, 'a//b', 'is no namespace')])
def test_what_cannot_be_is_refused_in_words(tool, changes, namespace, words):
    with pytest.raises(SpecError, match=words):
        render_layout(tool, {**profile_values('default'), **changes}, namespace)


def test_absolute_names_stay_out_of_the_namespace():
    values = {**profile_values('default'), 'topics.depth': '/front/depth', 'topics.image': 'rgb'}
    names = topic_names(values, '/w/')
    assert names['depth_camera_info'] == '/front/camera_info'
    assert (names['image'], names['clock']) == ('/w/rgb', '/clock')
    assert names['world_model/reset'] == '/w/world_model/reset'


def test_the_verb_prints_or_writes(tmp_path, capsys):
    assert main(['layout', 'foxglove', '--profile', 'gazebo']) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed) == foxglove(profile_values('gazebo'))
    path = tmp_path / 'mine.rviz'
    assert main(['layout', 'rviz', '--namespace', 'w', '--frame-prefix', 'w/',
                 '-o', str(path)]) == 0
    assert f'rviz2 -d {path} ' in capsys.readouterr().out
    assert yaml.safe_load(path.read_text())['Visualization Manager']['Global Options'][
        'Fixed Frame'] == 'w/odom'
    assert main(['layout', 'rviz', '-o', str(tmp_path / 'no' / 'x')]) == 2
    assert main(['layout', 'rviz', '--profile', 'gazbo']) == 2
    assert "Did you mean 'gazebo'" in capsys.readouterr().err


def test_a_file_of_its_own_for_every_layout():
    values = profile_values('default')
    first, second = (write_layout('rviz', values, 'farm/w') for _ in range(2))
    assert first != second and first.name == 'farm_w.rviz' and first.is_absolute()
    for path in (first, second):
        path.unlink()
        path.parent.rmdir()


@pytest.mark.parametrize('profile', PROFILES)
def test_links_of_the_urdf_join_the_frames_of_the_world(profile):
    values = {**in_namespace(profile), 'robot_description': ''}
    if load_profile(profile).get('engine') == 'lingbot_world':
        assert description_of(values) == ''
        with pytest.raises(SpecError, match='has no robot of its own'):
            link_publisher_parameters(values)
        return
    given = link_publisher_parameters(values)
    assert (given['frame_prefix'], given['use_sim_time']) == (PREFIX, True)
    assert given['robot_description'] == description_of(values)


@pytest.mark.parametrize('links, changes, words', [
    ('', {'frames.base': 'chassis'}, "frames.base='chassis' is no link of the URDF"),
    ('<link name="head"/><joint><parent link="head"/><child link="camera_link"/></joint>', {},
     "'camera_link' has parent 'base_link' in the world, but 'head' in the URDF"),
    ('<joint><parent link="base_link"/><child link="camera_optical_frame"/></joint>',
     {'camera_link': 'hand'}, "has parent 'hand' in the world, but 'base_link'"),
    ('<', {}, 'is no XML')])
def test_two_parents_of_one_frame_are_refused(links, changes, words):
    values = {**profile_values('default'), 'robot_description': URDF.format(links), **changes}
    with pytest.raises(SpecError, match=words):
        link_publisher_parameters(values)


def test_the_publisher_of_links_is_given_xml_that_begins_with_a_tag():
    text = URDF.format('')
    values = {**profile_values('default'),
              'robot_description': f'\ufeff\n<?xml version="1.0"?>{text}'}
    given = link_publisher_parameters(values)['robot_description']
    assert given == f'<?xml version="1.0"?>{text}'


def test_a_camera_on_a_link_of_its_own_is_fine():
    links = '<joint><parent link="arm"/><child link="eye_optical_frame"/></joint>'
    values = {**profile_values('default'), 'robot_description': URDF.format(links)}
    for changes in ({'camera_link': 'eye_optical_frame', 'frames.optical': 'eye_optical_frame'},
                    {'camera_link': 'arm', 'frames.optical': 'eye_optical_frame'}, {}):
        assert link_publisher_parameters({**values, **changes})
