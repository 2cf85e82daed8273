# SPDX-License-Identifier: Apache-2.0
"""Cases that once found something; all of them are tried first, in every campaign."""
from fuzz.targets import EMBEDDING, WORLD_SPEC
from fuzz.texts import merge_bomb, URDF
from fuzz.values import LongList, LongText

LINE = 'a' * 80
CASES = [
    # Read for ever, or not read at all.
    ('calibration', merge_bomb()),
    ('profile', merge_bomb()),
    ('profile', LongText('[', 3000)),
    ('profile', LongText('{a: ', 3000)),
    ('profile', LongText('a: b\n', 150_000)),
    ('profile', 'x: &x {y: *x}'),
    ('profile', f'n: {"9" * 5000}'),
    ('profile', 'd: 2001-99-99'),
    ('profile_name', LongText('a/', 5000)),
    ('profile_name', '~nobody/x.yaml'),
    ('profile_name', 'x\0.yaml'),
    ('profile_name', LongText('../', 333_333)),
    ('calibration_url', LongText('../', 333_333)),
    ('world_uri', 'package://lingbot_world_ros/' + 'config/../' * 90_000 + 'x.yaml'),
    ('load_world', {'world_resource': {
        'uri': 'package://lingbot_world_ros/' + 'config/../' * 90_000 + 'x.yaml'}}),
    # Does not give the same world again.
    ('world_text', "name: ''\nscene: a\n"),
    # Errors of pages, or of several lines.
    ('calibration_url', 'package://lingbot_world_ros/config/worlds/office.yaml\n..'),
    ('calibration_url', f'package://{LINE * 60}/x'),
    ('profile_name', LongText('(', 1246)),
    ('urdf_url', 'a\x1b[31m\nb'),
    ('urdf_url', LongText('a', 20_000)),
    ('urdf', URDF.replace('revolute', 'x' * 3000, 1)),
    ('urdf', URDF.replace('link_0"/>', f'{LINE * 60}"/>')),
    ('set_entity_state', {'entity': 'robot', 'set_pose': True,
                          'state': {'header': {'frame_id': LongText('\u202e', 818)}}}),
    ('get_entity_state', {'entity': LongText('\U0010ffff', 900)}),
    # End the node, or keep it from answering others.
    ('world_model/set_parameters', {'parameters': [{'name': 'seed', 'value': {'type': 10}}]}),
    ('world_model/set_parameters_atomically',
     {'parameters': [{'name': 'no_such', 'value': {'type': 255}}]}),
    ('action_encoder/set_parameters', {'parameters': [{'name': 'x', 'value': {'type': 99}}]}),
    ('world_model/set_parameters', {'parameters': LongList(
        [{'name': 'use_sim_time', 'value': {'type': 2, 'integer_value': 76}}], 3000)}),
    ('world_spec (separate)', {**WORLD_SPEC, 'frame_rate': 5e-324}),
    ('world_spec (separate)', {**WORLD_SPEC, 'frame_rate': 1e308}),
    ('world_spec (separate)', {**WORLD_SPEC, 'frames_per_step': 2 ** 32 - 1}),
    # Log pages.
    ('world_spec (separate)', {**WORLD_SPEC, 'joint_names': LongList([LINE], 500)}),
    ('action_embedding (world)', {**EMBEDDING, 'layout': LongList([LINE], 500)}),
]
