# SPDX-License-Identifier: Apache-2.0
"""
Hostile files: worlds, calibrations, profiles, URDF; URIs; and a folder full of traps.

Paths in cases begin with ``{worlds}`` (may be read), ``{outside}`` (may not) or ``{files}``.
"""
import os
import pickle

from fuzz.values import (CHARACTERS, floats, INF, integers, LongText, NAN, plain, rarely, texts,
                         WORDS)
from hypothesis import strategies as st
import yaml

SECRET = 'fuzz-secret-4711'  # stands in files outside; must never come back
PNG = b'\x89PNG\r\n\x1a\n' + bytes(100)
BINARY = '\udcff\udcfe\udc80'  # becomes bytes that are not UTF-8

WORLD = {'name': 'mine', 'scene': 'a', 'seed': 3, 'prompt': 'a red mug',
         'images': ['file://{worlds}/start.png'],
         'camera': {'width_px': 640, 'height_px': 480, 'fx_px': 500.0, 'fy_px': 500.0,
                    'cx_px': 320.0, 'cy_px': 240.0},
         'start_pose': {'x_m': 1.0, 'y_m': 2.0, 'yaw_rad': 0.5},
         'joints': {'shoulder_pan_joint': 0.3, 'gripper_joint': 0.01},
         'named_poses': [{'name': 'goal', 'description': 'There.', 'tags': ['navigation_goal'],
                          'pose': {'x_m': 1.0, 'y_m': 2.0, 'z_m': 0.0, 'yaw_rad': 0.0}}],
         'description': 'A world.', 'tags': ['indoor']}
CALIBRATION = {'image_width': 640, 'image_height': 480, 'camera_name': 'head',
               'camera_matrix': {'rows': 3, 'cols': 3, 'data': [
                   500.0, 0.0, 320.0, 0.0, 500.0, 240.0, 0.0, 0.0, 1.0]},
               'distortion_model': 'plumb_bob',
               'distortion_coefficients': {'rows': 1, 'cols': 5,
                                           'data': [0.1, -0.05, 0.001, 0.001, 0.0]},
               'rectification_matrix': {'rows': 3, 'cols': 3, 'data': [
                   1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0]},
               'projection_matrix': {'rows': 3, 'cols': 4, 'data': [
                   500.0, 0.0, 320.0, 0.0, 0.0, 500.0, 240.0, 0.0, 0.0, 0.0, 1.0, 0.0]}}
PROFILE = {'/**': {'ros__parameters': {
    'seed': 1, 'mode': 'stepped', 'speed': 1.0, 'frames': {'odom': 'odom'}, 'jpeg_quality': 80,
    'topics': {'image': 'rgb', 'cmd_vel': 'cmd_vel'}, 'use_sim_time': False,
    'limits': {'joint_acceleration': 2.0}}}}
JOINTS = ('shoulder_pan_joint', 'shoulder_lift_joint', 'elbow_joint', 'wrist_joint',
          'gripper_joint')


def alias_bomb(levels=30):
    lines = ['a0: &a0 [x, x]'] + [f'a{n}: &a{n} [*a{n - 1}, *a{n - 1}]' for n in range(1, levels)]
    return '\n'.join(lines)


def merge_bomb(levels=30):
    lines = ['m0: &m0 {x: 1}'] + [f'm{n}: &m{n}\n  <<: [*m{n - 1}, *m{n - 1}]'
                                  for n in range(1, levels)]
    return '\n'.join(lines)


YAML_SNIPPETS = (
    alias_bomb(), merge_bomb(), LongText('[', 3000), LongText('{a: ', 3000),
    LongText('- ', 5000), LongText('a: b\n', 150_000), LongText('? ', 900),
    '!!python/object/apply:os.system ["touch {outside}/touched"]',
    'x: !!python/object/new:os.system ["touch {outside}/touched"]',
    'x: !!python/name:os.system ', 'x: !!python/module:antigravity ', 'x: !!binary "AAAA="',
    'x: !<tag:yaml.org,2002:python/object/apply:os._exit> [1]',
    'x: !include {outside}/secret.yaml',
    'x: &x [*x]', 'x: &x {y: *x}', 'seed: &s 1\ny: *s', '%YAML 9.9\n---', '---\n---\na: b', '...',
    '<<: {scene: b}', '? [a, b]\n: c', '? {a: b}\n: c', '1: 2', 'null: ~', '=: =', 'a: =',
    'd: 2001-99-99', 'd: 2001-01-01 99:99:99', 'n: 0x' + 'f' * 300, 'n: 1:2:3:4:5:6:7:8:9',
    'n: ' + '9' * 5000, 'n: 1e999', 'n: .inf', 'n: .nan', 'n: 0b' + '1' * 900, 'n: -0o7_7',
    'scene: a\nscene: b', 'x: "\\ud800"', 'x: "\\0"', 'x: "\\xff"', '\ufeffscene: a',
    'x: |2147483648\n a',
    'x: >-\n  a', "x: 'unclosed", 'x: [unclosed', '\tx: y', 'x:\n\t- y', BINARY, '\x07', '\u0085',
    '<?xml version="1.0"?><sdf/>', '#usda 1.0', 'prompt: "' + '\U0001f600' * 20_000 + '"',
    pickle.dumps(('posix.system', [1])).decode('latin-1'))

VALUES = st.one_of(texts, floats, integers(64, True), st.booleans(), st.none(),
                   st.sampled_from([[], {}, '', 'nan', '.inf', '-.inf', '1e400', '0x10', '٣',
                                    '1_000', ' 1', '1e-320', NAN, INF, 2 ** 70, -1, [[[]]],
                                    {'a': 1}, ['a'], [1.0, NAN]]))


class _Dumper(yaml.SafeDumper):
    """Writes what is there twice twice, without anchors."""

    def ignore_aliases(self, data):
        return True


def _dump(tree, flow=None):
    return yaml.dump(plain(tree), Dumper=_Dumper, sort_keys=False, allow_unicode=True,
                     default_flow_style=flow)


@st.composite
def _mutated_tree(draw, tree):
    """Change one to three places in nested data."""
    for _ in range(draw(st.integers(0, 3))):
        tree = _changed(draw, tree)
    return tree


def _changed(draw, tree):
    if not tree or not isinstance(tree, (dict, list)):
        return draw(VALUES)
    if isinstance(tree, dict):
        key = draw(st.sampled_from(list(tree)))
        how = draw(st.sampled_from(['into', 'into', 'into', 'value', 'drop', 'rename', 'add']))
        out = {k: v for k, v in tree.items() if how not in ('drop', 'rename') or k != key}
        if how == 'into':
            out[key] = _changed(draw, tree[key])
        elif how == 'value':
            out[key] = draw(VALUES)
        elif how == 'rename':
            out[draw(texts)[:10_000]] = tree[key]
        elif how == 'add':
            out[draw(st.sampled_from([*WORDS, *tree]))] = draw(VALUES)
        return out
    at = draw(st.integers(0, len(tree) - 1))
    how = draw(st.sampled_from(['into', 'into', 'drop', 'repeat', 'append']))
    if how == 'into':
        return [*tree[:at], _changed(draw, tree[at]), *tree[at + 1:]]
    if how == 'drop':
        return [*tree[:at], *tree[at + 1:]]
    if how == 'repeat':
        return list(tree) * draw(st.sampled_from([2, 3, 70, 1001]))
    return [*tree, draw(VALUES)]


@st.composite
def yaml_texts(draw, valid):
    """YAML of a tree near a valid one, with snippets that no honest file has."""
    how = draw(st.integers(0, 11))
    if how == 0:
        return draw(texts)
    if how == 1:
        return draw(st.sampled_from(YAML_SNIPPETS))
    tree = valid if how == 2 else draw(_mutated_tree(valid))
    text = _dump(tree, draw(st.sampled_from([None, True, False])))
    return _spoiled(draw, text, YAML_SNIPPETS) if how > 6 else text


def _spoiled(draw, text, snippets):
    """Insert, cut or repeat something in a text."""
    at = draw(st.integers(0, len(text)))
    how = draw(st.sampled_from(['line', 'line', 'insert', 'cut', 'repeat', 'character']))
    if how == 'line':
        lines = text.splitlines()
        return '\n'.join([*lines, draw(st.sampled_from(snippets))])
    if how == 'insert':
        return text[:at] + draw(st.sampled_from(snippets)) + text[at:]
    if how == 'cut':
        return text[:at] + text[at + draw(st.integers(1, 60)):]
    if how == 'repeat':
        return text[:at] * draw(st.sampled_from([2, 100])) + text[at:]
    return text[:at] + draw(st.sampled_from([*CHARACTERS, '\0'])) + text[at:]


def world_texts():
    """Text of a world file."""
    return yaml_texts(WORLD)


def profile_texts():
    """Text of a parameter file."""
    return yaml_texts(PROFILE)


@st.composite
def calibration_texts(draw):
    """Text of a camera calibration."""
    model, count = draw(st.sampled_from([('plumb_bob', 5), ('rational_polynomial', 8),
                                         ('equidistant', 4)]))
    lens = {'data': draw(st.lists(st.one_of(st.floats(-0.5, 0.5), floats), min_size=count,
                                  max_size=count))}
    return draw(yaml_texts({**CALIBRATION, 'distortion_model': model,
                            'distortion_coefficients': lens}))


# URIs

TREE = ('good.yaml', 'good.yml', 'start.png', 'sub/good.yaml', 'link_in.yaml', 'link_out.yaml',
        'link_passwd.yaml', 'link_folder/secret.yaml', 'link_loop.yaml', 'link_fifo.yaml',
        'link_zero.yaml', 'link_environ.yaml', 'link_gone.yaml', 'fifo.yaml', 'folder.yaml',
        'folder.yaml/good.yaml', 'sparse.yaml', 'big.yaml', 'pickle.yaml', 'latin.yaml',
        'empty.yaml', 'secret.YAML', 'link_image.png', 'fifo.png', 'pickle.png', 'sparse.png',
        'socket.yaml', 'unreadable.yaml', 'image_out.yaml', 'bomb.yaml', '', '.', 'sub', 'sub/..')
BASES = ('{worlds}', '{outside}', '{worlds}/../outside', '{worlds}/sub/../..',
         '{worlds}/./sub/../', '{worlds}//', '/', '/proc/self', '/dev', '/etc', '{files}')
LEAVES = ('secret.yaml', 'passwd', 'environ', 'zero', 'stdin', 'fd/0', 'fd/1', 'mem', 'shadow',
          'cwd/setup.py', 'root/etc/passwd', 'good.yaml/', 'good.yaml.', 'good.yaml ', '~',
          'good.yaml\n', 'good.yaml;x', 'good.yaml?x', 'good.yaml#x', '*.yaml', 'good.yaml%00',
          '%2e%2e/outside/secret.yaml', '..%2foutside%2fsecret.yaml', '%252e%252e/x.yaml', '%',
          '%ff%fe.yaml', '%zz.yaml', '\u202e.yaml', 'a' * 300 + '.yaml', 'gооd.yaml')
PACKAGES = ('lingbot_world_ros', 'std_msgs', 'rclpy', '..', '.', '', 'no_such_package', '../..',
            'lingbot_world_ros/..', '%2e%2e', 'LINGBOT_WORLD_ROS', 'a' * 5000, '/etc', '~')
SCHEMES = ('file://', 'file://localhost', 'FILE://', 'file:', 'file:/', 'file:////', 'file://evil',
           'file://127.0.0.1', 'http://', 'https://x', 'ftp://', 'jar:file://', '', 'package:',
           'file://%2e', 'data:,', 'javascript:', 'smb://', '\\\\?\\')
IN_PACKAGE = ('config/worlds/office.yaml', 'config/default.yaml', 'package.xml', 'config/worlds',
              '../../../../../../etc/passwd', '../lingbot_world_ros/package.xml',
              'config/../../secret.yaml', '//etc/passwd', 'config/worlds/%2e%2e/default.yaml',
              'environment', '', 'msg/String.msg')


@st.composite
def uris(draw):
    """URIs and names of worlds, most of them nearly good."""
    how = draw(st.integers(0, 9))
    if how == 0:
        return draw(st.one_of(texts, st.sampled_from(['a', 'b', 'office', 'c'])))
    if how <= 2:
        uri = f'package://{draw(st.sampled_from(PACKAGES))}/{draw(st.sampled_from(IN_PACKAGE))}'
    elif how <= 5:
        uri = f'file://{{worlds}}/{draw(st.sampled_from(TREE))}'
    else:
        leaf = draw(rarely(texts, st.sampled_from([*TREE, *LEAVES])))
        uri = (f'{draw(st.sampled_from(SCHEMES))}{draw(st.sampled_from(BASES))}/'
               f'{"../" * draw(st.sampled_from([0, 0, 0, 1, 3, 2000]))}{leaf}')
    if draw(st.integers(0, 5)) == 0:
        uri = _spoiled(draw, uri, ('..', '/', '//', '%2f', '%00', '\n', ' ', '\\', ':', '@', '[',
                                   '?'))
    if draw(st.integers(0, 7)) == 0:
        uri = ''.join(f'%{ord(c):02x}' if c in './:e' else c for c in uri)
    return uri


image_worlds = uris().map(lambda uri: _dump({'scene': 'a', 'images': [uri]}))


def make_traps(root):
    """
    Make the folders that cases speak of.

    :param root: empty folder
    :return: placeholder -> folder
    """
    worlds, outside, files = (root / name for name in ('worlds', 'outside', 'files'))
    for folder in (worlds / 'sub', worlds / 'folder.yaml', outside, files):
        folder.mkdir(parents=True)
    good = 'scene: a\nseed: 5\n'
    secret = f'scene: b\nname: {SECRET}\ndescription: {SECRET}\n'
    for path in (worlds / 'good.yaml', worlds / 'good.yml', worlds / 'sub' / 'good.yaml',
                 worlds / 'folder.yaml' / 'good.yaml', worlds / 'unreadable.yaml'):
        path.write_text(good)
    (worlds / 'unreadable.yaml').chmod(0)
    (worlds / 'start.png').write_bytes(PNG)
    for name in ('secret.yaml', 'secret.png', 'passwd'):
        (outside / name).write_text(secret)
    (worlds / 'secret.YAML').write_text(secret)
    for name, goal in (('link_in.yaml', worlds / 'good.yaml'),
                       ('link_out.yaml', outside / 'secret.yaml'),
                       ('link_passwd.yaml', '/etc/passwd'), ('link_folder', outside),
                       ('link_loop.yaml', worlds / 'link_loop.yaml'),
                       ('link_fifo.yaml', worlds / 'fifo.yaml'), ('link_zero.yaml', '/dev/zero'),
                       ('link_environ.yaml', '/proc/self/environ'),
                       ('link_gone.yaml', worlds / 'gone.yaml'),
                       ('link_image.png', outside / 'secret.png')):
        (worlds / name).symlink_to(goal)
    for name in ('fifo.yaml', 'fifo.png'):
        os.mkfifo(worlds / name)
    for name in ('sparse.yaml', 'sparse.png'):
        with (worlds / name).open('wb') as file:
            file.truncate(1 << 40)
    (worlds / 'big.yaml').write_text(good + '#' * (1 << 20))
    for name in ('pickle.yaml', 'pickle.png'):
        (worlds / name).write_bytes(pickle.dumps(_Touch(str(outside / 'touched'))))
    (worlds / 'latin.yaml').write_bytes('scene: a\nname: fän'.encode('latin-1'))
    (worlds / 'empty.yaml').write_text('')
    (worlds / 'bomb.yaml').write_text(merge_bomb())
    (worlds / 'image_out.yaml').write_text('scene: a\nimages: [../outside/secret.png]\n')
    os.mknod(worlds / 'socket.yaml', 0o140644)
    return {'{worlds}': str(worlds), '{outside}': str(outside), '{files}': str(files)}


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self._path = path

    def __reduce__(self):
        return os.mkdir, (self._path,)


# URDF

URDF = '<?xml version="1.0"?>\n<robot name="r">\n' + '\n'.join(
    f'<link name="link_{n}"/>\n<joint name="{name}" type="revolute"><parent link="'
    f'{"base_link" if not n else f"link_{n - 1}"}"/><child link="link_{n}"/><origin xyz="0 0 0.1" '
    'rpy="0 0 0"/><axis xyz="0 0 1"/><limit lower="-1.0" upper="1.0" effort="5" velocity="1.0"/>'
    '</joint>' for n, name in enumerate(JOINTS)) + '\n<link name="base_link"/>\n</robot>\n'
LAUGHS = ('<!DOCTYPE r [<!ENTITY a0 "lol">' + ''.join(
    f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 12)) + ']>')
URDF_SNIPPETS = (
    LAUGHS + '<robot name="&a11;"/>', '<robot name="r">&a11;</robot>',
    '<!DOCTYPE r [<!ENTITY x SYSTEM "file://{outside}/secret.yaml">]><robot name="&x;"/>',
    '<!DOCTYPE r SYSTEM "file://{outside}/secret.yaml"><robot name="r"/>',
    '<!DOCTYPE r [<!ENTITY % p SYSTEM "http://127.0.0.1:9/x"> %p;]><robot name="r"/>',
    LongText('<link>', 20_000), LongText('<link name="x"/>', 60_000), '<robot>', '<robot/>',
    '<link name="link_0"/>', '<joint name="elbow_joint"/>', '<![CDATA[', '<?pi?>', '&lt;', '&#0;',
    '&#xD800;', '&undefined;', '<joint name="j" type="revolute"><parent link="link_0"/>'
    '<child link="base_link"/></joint>', '<joint name="k" type="fixed"><parent link="link_1"/>'
    '<child link="link_1"/></joint>', '<xacro:include filename="{outside}/secret.yaml"/>',
    '<mesh filename="file://{outside}/secret.yaml"/>', 'nan', 'inf', '1e999', '-', '0 0',
    '0 0 0 0',
    'xyz="nan nan nan"', 'floating', 'continuous', 'prismatic', 'planar', 'mimic',
    '<mimic joint="elbow_joint" multiplier="1e308" offset="nan"/>', BINARY,
    '<xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file://{outside}/secret.yaml"/>')
URDF_WORDS = ('base_link', 'link_0', 'revolute', 'xyz', 'rpy', 'limit', 'axis', 'origin', 'joint',
              'parent', 'child', '0 0 1', '-1.0', '1.0', 'lower', 'velocity', 'name', 'robot')


@st.composite
def urdfs(draw):
    """URDF near a valid one."""
    how = draw(st.integers(0, 9))
    if how == 0:
        return draw(texts)
    if how == 1:
        return draw(st.sampled_from(URDF_SNIPPETS))
    text = URDF
    for _ in range(draw(st.integers(0, 3))):
        if draw(st.booleans()):
            word = draw(st.sampled_from(URDF_WORDS))
            other = draw(st.one_of(st.sampled_from(URDF_WORDS), st.sampled_from(URDF_SNIPPETS),
                                   floats.map(str), texts))
            text = text.replace(word, other, draw(st.sampled_from([1, 1, 2, -1])))
        else:
            text = _spoiled(draw, text, URDF_SNIPPETS)
    return text
