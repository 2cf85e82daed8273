# SPDX-License-Identifier: Apache-2.0
"""What programs offer to others: topics, services, parameters, arguments, texts, files."""
import json
import re
import time
from urllib.error import HTTPError
from urllib.request import urlopen

from client import parameter_table, TOPICS, World
from ros_domain import Domain
from scenarios import lingbot, scenario, sim_command
from sim import run, verb_command

VERBS = ('doctor', 'evaluate', 'follow', 'imagine', 'inspect', 'layout', 'quantise', 'record',
         'replay', 'report', 'sim', 'teleop', 'view')
OF_THE_WALL = re.compile(r'(?<=\[)\d{10}\.\d+(?=\])|(?<= in )[\d.]+(?= s\b)')
SETTLED_S = 4.0  # a graph that does not change for so long is complete: Fast DDS tells each 3 s


def texts(stage, commands, timeout_s=120.0) -> dict:
    """
    Run commands to their end and return what they say.

    :param commands: label -> arguments of ``lingbot-world``
    :return: label -> lines, the exit code among them
    """
    told = {}
    for label, arguments in commands.items():
        code, said, error = run(verb_command(*map(str, arguments)), stage.environment(),
                                stage.work, timeout_s)
        told[label] = [*lines(stage, said), f'exit code {code}', *lines(stage, error)]
    return told


def lines(stage, text) -> list:
    """Return the lines of a text without folders, times and progress of this run."""
    for folder, name in sorted(stage.folders, key=lambda pair: -len(pair[0])):
        text = text.replace(folder, name)
    text = OF_THE_WALL.sub('N', text)
    return [line for line in text.splitlines() if 'B/s]' not in line]


@scenario('interface/help', quick=True)
def interface_help(stage):
    """What ``--help`` says of every verb."""
    return {'texts': texts(stage, {
        'lingbot-world': ['--help'], 'no verb': [], 'unknown verb': ['dance'],
        **{verb: [verb, '--help'] for verb in VERBS}})}


@scenario('interface/files', quick=True)
def interface_files(stage):
    """Reference pages, messages, profiles, worlds and launch files."""
    told = {}
    for pattern in ('docs/reference/*.md', 'msg/*.msg', 'interfaces/*/*/*.*', 'config/*.yaml',
                    'config/*.xml', 'config/worlds/*.yaml', 'config/worlds/images/*.yaml',
                    'config/robots/room.urdf', 'config/rviz/*', 'config/foxglove/*'):
        for path in sorted(stage.tree.glob(pattern)):
            told[str(path.relative_to(stage.tree))] = path.read_text().splitlines()
    return {'texts': told}


@scenario('interface/refusals')
def interface_refusals(stage):
    """What is said of arguments that cannot be used."""
    image = stage.tree / 'config' / 'worlds' / 'images' / 'office.jpg'
    sims = {
        'engine': ['--engine', 'rom'], 'world': ['--world', 'cellar'],
        'world file': ['--world', 'nowhere.yaml'], 'mode': ['--mode', 'steped'],
        'profile': ['--profile', 'isac_sim'], 'parameter': ['--param', 'frames.bas:=b'],
        'type': ['--param', 'clock_rate_hz:=fast'], 'namespace': ['--namespace', '1/2'],
        'camera path': ['--camera-path', 'keys:w-4'],
        'camera link': ['--param', 'camera_link:=hand_link'],
        'same topics': ['--param', 'topics.odom:=path'],
        'description': ['--param', 'robot_description:=/nowhere.urdf'],
        'calibration': ['--param', 'camera_info_url:=/nowhere.yaml'],
        'no checkpoint': ['--engine', 'lingbot_world'],
        'checkpoint': ['--engine', 'lingbot_world', '--checkpoint', '/nowhere'],
        'no GPU': ['--profile', 'lingbot_world_fast', '--checkpoint', '/nowhere', '--param',
                   'lingbot.device:=tpu']}
    told = texts(stage, {f'sim: {label}': ['sim', *arguments]
                         for label, arguments in sims.items()})
    told.update(texts(stage, {
        'imagine: checkpoint': ['imagine', '--checkpoint', '/nowhere', '--image', image,
                                '--prompt', 'a', '--out', 'a.mp4'],
        'imagine: keys': ['imagine', '--checkpoint', '/nowhere', '--image', image, '--prompt',
                          'a', '--out', 'a.mp4', '--keys', 'x-3'],
        'inspect: nothing': ['inspect', '/nowhere'],
        'layout: profile': ['layout', 'rviz', '--profile', 'nowhere'],
        'evaluate: engine': ['evaluate', '--engine', 'lingbot_world', '--quick'],
        'doctor: engine': ['doctor', '--engine', 'rom']}))
    # Version numbers and the memory of this machine are none of its behaviour.
    told['doctor: engine'] = [line for line in told['doctor: engine'] if 'rom' in line]
    return {'texts': told}


@scenario('interface/layouts')
def interface_layouts(stage):
    """Layouts for RViz and Foxglove, with several names."""
    return {'texts': texts(stage, {
        f'{tool} {profile}': ['layout', tool, '--profile', profile, '--namespace', 'world_0',
                              '--frame-prefix', 'robot/']
        for tool in ('rviz', 'foxglove') for profile in ('default', 'isaac_sim', 'moveit')})}


@scenario('interface/introduction')
def interface_introduction(stage):
    """What ``sim`` says of itself once it runs."""
    told = {}
    for label, arguments in {'default': [], 'isaac_sim': ['--profile', 'isaac_sim',
                                                          '--namespace', 'here'],
                             'inactive': ['--param', 'autostart:=false']}.items():
        with Domain() as stage.domain, stage.program(sim_command(*arguments)) as program:
            program.wait_for_line('Ctrl-C ends', 60.0)
            told[label] = lines(stage, '\n'.join(line for line in program.lines
                                                 if 'ROS domain' in line or 'First' not in line))
            told[label] = [line.replace(f'domain {stage.domain}', 'domain N')
                           for line in told[label][:told[label].index('Ctrl-C ends.') + 1]]
    return {'texts': told}


@scenario('interface/room', quick=True)
def interface_room(stage):
    """Nodes of ``sim`` with the default profile."""
    return {'values': graph_of(stage, sim_command(deep=False))}


@scenario('interface/room_isolated')
def interface_room_isolated(stage):
    """Nodes of ``sim`` with stamped velocities, best-effort images and the engine elsewhere."""
    return {'values': graph_of(stage, sim_command(
        '--isolate-engine', {'cmd_vel_type': 'twist_stamped', 'image_reliability': 'best_effort',
                             'service_prefix': '/gzserver'}, deep=False))}


@scenario('interface/reference')
def interface_reference(stage):
    """Nodes of ``sim --truth`` with the reference engine, the page beside them."""
    return {'values': graph_of(stage, sim_command(
        '--engine', 'reference', '--truth', '--view', '--namespace', 'here', deep=False),
        nodes=('world_model', 'action_encoder', 'view', 'follower'), namespace='/here')}


@scenario('interface/lingbot_world', needs=('causal',))
def interface_lingbot_world(stage):
    """Nodes of ``sim`` with a tiny checkpoint."""
    return {'values': graph_of(stage, sim_command(*lingbot(stage), deep=False))}


def graph_of(stage, command, nodes=('world_model', 'action_encoder'), namespace='') -> dict:
    """
    Look at the nodes that a command starts.

    :return: node -> topics, services, actions and parameters
    """
    with Domain() as stage.domain, stage.program(command) as program:
        world = World(stage.domain, namespace=namespace.strip('/'), without=tuple(TOPICS))
        try:
            program.wait_for_line('Ctrl-C ends', 180.0)
            seen, since_s = {}, time.monotonic()
            while time.monotonic() - since_s < SETTLED_S:
                now = {name: node_of(world.node, name, namespace or '/') for name in nodes}
                if now != seen:
                    seen, since_s = now, time.monotonic()
                time.sleep(0.2)
            for name in nodes:
                seen[name]['parameters'] = parameters_of(world, f'{namespace}/{name}', stage)
        finally:
            world.close()
        return seen


def node_of(node, name, namespace) -> dict:
    """Return the topics, services and actions of a node; empty while it is not known."""
    from rclpy.action import (get_action_client_names_and_types_by_node,
                              get_action_server_names_and_types_by_node)
    if (name, namespace) not in node.get_node_names_and_namespaces():
        return {}
    found = {'publishes': {}, 'hears': {}}
    for what, names, infos in (
            ('publishes', node.get_publisher_names_and_types_by_node,
             node.get_publishers_info_by_topic),
            ('hears', node.get_subscriber_names_and_types_by_node,
             node.get_subscriptions_info_by_topic)):
        for topic, types in names(name, namespace):
            profiles = [info.qos_profile for info in infos(topic)
                        if (info.node_name, info.node_namespace) == (name, namespace)]
            found[what][topic] = [types, sorted(
                f'{p.reliability.name} {p.durability.name}' for p in profiles)]
    found['services'] = dict(node.get_service_names_and_types_by_node(name, namespace))
    found['asks'] = dict(node.get_client_names_and_types_by_node(name, namespace))
    found['actions'] = dict(get_action_server_names_and_types_by_node(node, name, namespace))
    found['asks actions'] = dict(get_action_client_names_and_types_by_node(node, name, namespace))
    return found


def parameters_of(world, name, stage) -> dict:
    """Return type, range, meaning and value of each parameter of a node."""
    table = parameter_table(world, name)
    text = '\n'.join(lines(stage, json.dumps(table)))
    return json.loads(text)


@scenario('interface/page')
def interface_page(stage):
    """What the operator's page is made of, and what it is told."""
    told = {}
    with Domain() as stage.domain, stage.program(sim_command('--view')) as program:
        line = program.wait_for_line('http://', 60.0)
        url = re.search(r'http://[\w.:]+/', line).group(0)
        told['line'] = [re.sub(r':\d{4,5}\b', ':PORT', line)]

        def get(path):
            try:
                with urlopen(url + path, timeout=20.0) as answer:
                    return [f'{answer.status} {answer.headers["content-type"]}',
                            *answer.read().decode(errors='replace').splitlines()]
            except HTTPError as error:
                return [f'{error.code}']
        names = ['', 'nothing', '../cli.py', 'style.css', 'icon.svg', 'index.html']
        for name in names:
            told[f'/{name}'] = get(name)
            for found in re.findall(r'(?:src|href|from)=?\s*["\'](?:\./)?([\w.-]+)["\']',
                                    '\n'.join(told[f'/{name}'])):
                if found not in names and not found.startswith('#'):
                    names.append(found)
    return {'texts': told}
