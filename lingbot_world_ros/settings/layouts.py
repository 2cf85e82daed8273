# SPDX-License-Identifier: Apache-2.0
"""
Ready layouts for RViz 2 and Foxglove, with the names a world has under a profile.

One file per tool ships, ``config/rviz/sim.rviz`` and ``config/foxglove/sim.json``, with the names
of the default profile. For any other profile, namespace and frame prefix these names are replaced,
each as a whole; a name the default profile does not have is an error. The joints are those of the
robot. No ROS.
"""
import json
import os
from pathlib import Path
import re
import tempfile
from typing import Any, Dict, List, Union

from lingbot_world_ros.engines.registry import engine_entry
from lingbot_world_ros.errors import quoted, shown, SpecError, unknown_name
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.robots.load import load_robot
from lingbot_world_ros.robots.robot import Robot
from lingbot_world_ros.settings.profiles import DEFAULT_PROFILE, load_profile
from lingbot_world_ros.settings.robot_parameters import with_robot
import yaml

SHIPPED = {'rviz': ('config', 'rviz', 'sim.rviz'), 'foxglove': ('config', 'foxglove', 'sim.json')}
FIXED = ('world_spec', 'world_status', 'world_model/pause', 'world_model/reset',
         'world_model/step')  # topics and services without a parameter
NAMESPACE = re.compile(r'([A-Za-z_][A-Za-z0-9_]*(/[A-Za-z_][A-Za-z0-9_]*)*)?')
PATH_ENDS = re.compile(r'[.\[{]')  # /odom.pose.pose is a field of /odom
FRAME_KEYS = ('Fixed Frame', 'Target Frame', 'Reference Frame', 'followTf', 'fixedFrame',
              'frameId')
OF_RVIZ = ('Topic', 'Description Topic', 'Depth Map Topic')  # what makes a display useless
FIXED_FRAME = '<Fixed Frame>'  # what RViz calls the frame that is set as such


def profile_values(profile: str) -> dict:
    """
    Return all parameters under a profile.

    :param profile: name or path, as ``load_profile`` takes it
    :return: values by name
    :raises SpecError: as ``load_profile``
    """
    return {**load_profile(DEFAULT_PROFILE), **load_profile(profile)}


def topic_names(values: dict, namespace: str = '') -> dict:
    """
    Say what the topics of a world are called, and the services of its node.

    :param values: all parameters by name
    :param namespace: of the nodes, '' for none
    :return: full names by what ``topics.*`` calls them, and those that have no parameter
    :raises SpecError: no such namespace can be
    """
    namespace = namespace.strip('/')
    if not NAMESPACE.fullmatch(namespace):
        raise SpecError(f'{quoted(namespace)} is no namespace: expected letters, digits and '
                        'underscores, with slashes between the parts.')
    names = {name[len('topics.'):]: topic for name, topic in values.items()
             if name.startswith('topics.')}
    folder, slash, _ = names['depth'].rpartition('/')
    names['depth_camera_info'] = f'{folder}{slash}camera_info'
    names.update((name, name) for name in FIXED)
    before = f'/{namespace}/' if namespace else '/'
    return {key: name if name.startswith('/') else before + name for key, name in names.items()}


def frame_names(values: dict) -> dict:
    """Return the full names of all frames by what ``frames.*`` calls them."""
    return {name[len('frames.'):]: values['frame_prefix'] + frame
            for name, frame in values.items() if name.startswith('frames.') and frame}


def render_layout(tool: str, values: dict, namespace: str = '') -> str:
    """
    Write the layout of a tool for one world.

    :param tool: ``'rviz'`` or ``'foxglove'``
    :param values: all parameters of the world by name, as ``profile_values`` returns them
    :param namespace: of its nodes, '' for none
    :return: text of the file
    :raises SpecError: unknown tool, or names that the tool cannot have
    """
    text, values = shipped_layout(tool).read_text(), with_robot(values)
    rename = _Renaming(load_profile(DEFAULT_PROFILE), values, namespace)
    topics = topic_names(values, namespace)
    absent, asked = ([topics[key] for key in keys]
                     for keys in (absent_topics(values), asked_topics(values)))
    if tool == 'foxglove':
        layout = rename.tree(json.loads(text))
        _switch_in_foxglove(layout, absent, asked)
        _name_joints(layout, load_robot(values['robot'] or engine_entry(values['engine']).robot))
        return json.dumps(layout, indent=2) + '\n'
    head = ''.join(line for line in text.splitlines(True) if line.startswith('#'))
    layout = rename.tree(yaml.safe_load(text))
    _switch_in_rviz(layout, absent, asked)
    return head + yaml.safe_dump(layout, sort_keys=False)


def absent_topics(values: dict) -> list:
    """
    Say which topics a world does not have.

    :param values: all parameters by name
    :return: as ``topics.*`` calls them
    :raises SpecError: unknown engine
    """
    engine, values = engine_entry(values['engine']), with_robot(values)
    absent = [] if engine.has_depth else ['depth', 'depth_camera_info', 'points']
    absent += [] if engine.has_depth and values['publish_scan'] else ['scan']
    absent += [key for key in ('map', 'bumper') if not values[f'publish_{key}']]
    absent += [] if values['publish_wrist_camera'] else ['wrist_image', 'wrist_camera_info']
    return absent + ([] if engine.robot or values['robot_description'] else ['robot_description'])


def asked_topics(values: dict) -> list:
    """
    Say which topics, off in the shipped layouts, a world has because somebody asked for them.

    :param values: all parameters by name
    :return: as ``topics.*`` calls them: the map, and poses in it where its place is published
    """
    asked = ['map'] if values['publish_map'] else []
    return asked + (['ground_truth_pose', 'predicted_pose'] if values['publish_map_odom_tf']
                    else [])


def _switch_in_rviz(layout: Dict[str, Any], absent: List[str], asked: List[str]) -> None:
    """Switch displays off that would wait in vain, and on what was asked for."""
    for display in layout.get('Visualization Manager', {}).get('Displays', ()):
        topics = {topic['Value'] if isinstance(topic, dict) else topic
                  for topic in map(display.get, OF_RVIZ)}
        is_on = bool(topics & {*asked}) or display['Enabled'] and not topics & {*absent}
        display['Enabled'] = display['Value'] = is_on


def _switch_in_foxglove(layout: Dict[str, Any], absent: List[str], asked: List[str]) -> None:
    for panel in layout['configById'].values():
        for name, topic in panel.get('topics', {}).items():
            topic['visible'] = name in asked or topic['visible'] and name not in absent
        for layer in panel.get('layers', {}).values():
            layer['visible'] = layer['visible'] and layer.get('topic') not in absent


def _name_joints(layout: dict, robot: Robot) -> None:
    """Plot each joint by its name, and fill in a command for the first and the last."""
    for panel in layout['configById'].values():
        for path in panel.get('paths', [])[:1]:
            if path['value'].endswith('.position'):
                panel['paths'] = [{**path, 'value': f'{path["value"]}[{i}]', 'label': name}
                                  for i, name in enumerate(robot.joint_names)]
        if panel.get('datatype') == 'sensor_msgs/msg/JointState' and robot.joints:
            first, last = robot.joints[0], robot.joints[-1]
            wanted = {last.name: last.home, first.name: min(max(0.5, first.low), first.high)}
            names = [name for name in robot.joint_names if name in wanted]
            panel['value'] = json.dumps({'name': names,
                                         'position': [wanted[name] for name in names]})


def shipped_layout(tool: str) -> Path:
    """
    Find the layout that ships.

    :param tool: ``'rviz'`` or ``'foxglove'``
    :return: path of the file, with the names of the default profile
    :raises SpecError: no such tool
    """
    if tool not in SHIPPED:
        raise unknown_name('layout', tool, SHIPPED)
    return share_path(*SHIPPED[tool])


def write_layout(tool: str, values: dict, namespace: str = '',
                 path: Union[str, Path, None] = None) -> Path:
    """
    Write the layout of a tool into a file.

    :param tool: as ``render_layout`` takes it
    :param values: as ``render_layout`` takes them
    :param namespace: as ``render_layout`` takes it
    :param path: of the file; None makes one in a new temporary folder
    :return: its absolute path
    :raises SpecError: as ``render_layout``; the file cannot be written
    """
    text = render_layout(tool, values, namespace)
    try:
        if path is None:
            suffix = Path(SHIPPED[tool][-1]).suffix
            world = namespace.strip('/').replace('/', '_') or 'sim'
            path = Path(tempfile.mkdtemp(prefix='lingbot_world_ros_')) / f'{world}{suffix}'
        path = Path(os.path.abspath(path))
        path.write_text(text)
    except (OSError, ValueError) as error:
        problem = getattr(error, 'strerror', None) or error
        place = 'A temporary file' if path is None else shown(path)
        raise SpecError(f'{place} cannot be written ({problem}); give another path.') from error
    return path


class _Renaming:
    """Puts the names of one world in the place of those of the default profile."""

    def __init__(self, default: Dict[str, Any], values: Dict[str, Any], namespace: str) -> None:
        before, after = topic_names(default), topic_names(values, namespace)
        self._topics = {before[key]: after[key] for key in before}
        before, after = frame_names(default), frame_names(values)
        self._frames = {before[key]: after[key] for key in before}
        self._prefix = values['frame_prefix']

    def tree(self, node: Any, key: str = '') -> Any:
        """Return a copy of parsed YAML or JSON with all names replaced."""
        if isinstance(node, dict):
            return {self._text(name, ''): self.tree(value, name) for name, value in node.items()}
        if isinstance(node, list):
            return [self.tree(value) for value in node]
        return self._text(node, key) if isinstance(node, str) else node

    def _text(self, text: str, key: str) -> str:
        if key == 'framePrefix':
            return self._prefix
        if key == 'TF Prefix':
            return self._rviz_prefix()
        if key in FRAME_KEYS and text != FIXED_FRAME:
            return self._known('frame', text, self._frames)
        if text.startswith('/'):
            end = PATH_ENDS.search(text)
            name = text[:end.start()] if end else text
            return self._known('topic', name, self._topics) + text[len(name):]
        return text

    def _rviz_prefix(self) -> str:
        """RViz puts the slash between prefix and link by itself."""
        if self._prefix and not self._prefix.endswith('/'):
            raise SpecError(f'frame_prefix={quoted(self._prefix)} does not end with a slash; '
                            "RViz's robot model needs one there.")
        return self._prefix[:-1]

    def _known(self, kind: str, name: str, names: Dict[str, str]) -> str:
        if name not in names:
            raise unknown_name(f'{kind} of the layout', name, names)
        return names[name]
