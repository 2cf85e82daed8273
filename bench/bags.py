# SPDX-License-Identifier: Apache-2.0
"""Bags for tests and benchmarks: messages made with rosbags, so without ROS, in every storage."""
import json

import cv2
from lingbot_world_ros.geometry.rotation import quat_from_rotation
from lingbot_world_ros.recording.roles import (
    CLOCK, IMAGE, INFO, JOINTS, ODOMETRY, PACKED, SCAN, TF, TRAJECTORY, TWIST, TWIST_STAMPED)
import numpy as np
from rosbags.interfaces import Nodetype
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores

START_S = 1_700_000_000.0
KINDS = {'image': IMAGE, 'info': INFO, 'odom': ODOMETRY, 'twist': TWIST,
         'twist_stamped': TWIST_STAMPED, 'tf': TF, 'joints': JOINTS, 'scan': SCAN,
         'packed': PACKED, 'clock': CLOCK, 'trajectory': TRAJECTORY}
ACKERMANN_TEXT = 'float32 steering_angle\nfloat32 steering_angle_velocity\nfloat32 speed\n' \
    'float32 acceleration\nfloat32 jerk\n'

_store = get_typestore(Stores.LATEST)
_store.register(get_types_from_msg(ACKERMANN_TEXT, 'ackermann_msgs/msg/AckermannDrive'))


def make(kind, **fields):
    """Return a message, all fields that are not given 0 or empty."""
    return _filled(kind, fields)


def _filled(kind, fields):
    values = {}
    for name, (node, value) in _store.fielddefs[kind][1]:
        if name in fields:
            values[name] = fields[name]
        elif node == Nodetype.NAME:
            values[name] = _filled(value, {})
        elif node == Nodetype.BASE:
            values[name] = '' if value[0] == 'string' else 0
        else:
            inner, size = value
            is_number = inner[0] == Nodetype.BASE and inner[1][0] != 'string'
            values[name] = np.zeros(size, {'octet': 'u1', 'bool': '?'}.get(
                inner[1][0], inner[1][0])) if is_number else []
    return _store.types[kind](**values)


def ns(seconds):
    """Return seconds as nanoseconds, exact to the microsecond."""
    return int(round(seconds * 1e6)) * 1000


def header(stamp_s, frame=''):
    """Return a std_msgs/Header."""
    sec, nanosec = divmod(ns(stamp_s), 10 ** 9)
    stamp = make('builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec)
    return make('std_msgs/msg/Header', stamp=stamp, frame_id=frame)


def vector(kind, x=0.0, y=0.0, z=0.0, **more):
    """Return a Vector3, Point or Quaternion."""
    return make(f'geometry_msgs/msg/{kind}', x=float(x), y=float(y), z=float(z), **more)


def yaw_quat(yaw):
    """Return a turn about z."""
    return vector('Quaternion', z=np.sin(yaw / 2), w=float(np.cos(yaw / 2)))


def image(stamp_s, pixels, frame='camera_optical_frame', encoding='rgb8'):
    """Return an Image of (h, w, ...) pixels."""
    data = np.ascontiguousarray(pixels)
    return make(IMAGE, header=header(stamp_s, frame), height=data.shape[0], width=data.shape[1],
                encoding=encoding, step=data.nbytes // data.shape[0],
                data=data.view(np.uint8).ravel())


def grey(level, width=32, height=24):
    """Return pixels of one brightness."""
    return np.full((height, width, 3), level, np.uint8)


def packed(stamp_s, rgb, frame='camera_optical_frame', suffix='.png'):
    """Return a CompressedImage."""
    data = cv2.imencode(suffix, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))[1]
    return make(PACKED, header=header(stamp_s, frame), format=f'rgb8; {suffix[1:]} compressed',
                data=data.ravel())


def info(stamp_s, width=32, height=24, focal=20.0, d=(), model='plumb_bob'):
    """Return the CameraInfo of a camera that looks along the middle of its image."""
    k = np.array([focal, 0, width / 2 - 0.5, 0, focal, height / 2 - 0.5, 0, 0, 1])
    p = np.hstack([k.reshape(3, 3), np.zeros((3, 1))]).ravel()
    return make(INFO, header=header(stamp_s, 'camera_optical_frame'), width=width, height=height,
                distortion_model=model, d=np.array(d, float), k=k, r=np.eye(3).ravel(), p=p)


def twist(v, w, lateral=0.0):
    """Return a Twist."""
    return make(TWIST, linear=vector('Vector3', v, lateral), angular=vector('Vector3', z=w))


def twist_stamped(stamp_s, v, w):
    """Return a TwistStamped."""
    return make(TWIST_STAMPED, header=header(stamp_s), twist=twist(v, w))


def odom(stamp_s, x, y, yaw, frame='odom', child='base_link'):
    """Return an Odometry."""
    pose = make('geometry_msgs/msg/Pose', position=vector('Point', x, y),
                orientation=yaw_quat(yaw))
    return make(ODOMETRY, header=header(stamp_s, frame), child_frame_id=child,
                pose=make('geometry_msgs/msg/PoseWithCovariance', pose=pose))


def transform(stamp_s, parent, child, position=(0.0, 0.0, 0.0), quat=None):
    """Return a TransformStamped."""
    x, y, z, w = (0.0, 0.0, 0.0, 1.0) if quat is None else quat
    return make('geometry_msgs/msg/TransformStamped', header=header(stamp_s, parent),
                child_frame_id=child, transform=make(
                    'geometry_msgs/msg/Transform', translation=vector('Vector3', *position),
                    rotation=vector('Quaternion', x, y, z, w=float(w))))


def tf(*transforms):
    """Return a TFMessage."""
    return make(TF, transforms=list(transforms))


def joints(stamp_s, names, position=(), velocity=()):
    """Return a JointState."""
    return make(JOINTS, header=header(stamp_s), name=list(names),
                position=np.array(position, float), velocity=np.array(velocity, float))


def scan(stamp_s, ranges, frame='base_link'):
    """Return a LaserScan from 0.1 to 10 m, its first beam at -1 rad."""
    return make(SCAN, header=header(stamp_s, frame), angle_min=-1.0, angle_max=1.0,
                angle_increment=2.0 / max(1, len(ranges) - 1), range_min=0.1, range_max=10.0,
                ranges=np.array(ranges, np.float32))


def clock(stamp_s):
    """Return a Clock."""
    return make(CLOCK, clock=header(stamp_s).stamp)


def write_bag(folder, messages, *, storage='mcap', mode=None, with_text=True):
    """
    Write a bag.

    :param folder: to create
    :param messages: (topic, seconds of receipt, message) in the order to store
    :param storage: mcap or sqlite3
    :param mode: of zstd compression: file, message, or storage (chunks of MCAP)
    :param with_text: with definitions of the messages; bags of Humble have none
    :return: the folder
    """
    writer = Writer(folder, version=8, storage_plugin=StoragePlugin[storage.upper()])
    if mode:
        writer.set_compression(CompressionMode[mode.upper()], CompressionFormat.ZSTD)
    with writer:
        known = {}
        for topic, received_s, message in messages:
            kind = message.__msgtype__
            if topic not in known:
                known[topic] = writer.add_connection(topic, kind, typestore=_store)
            writer.write(known[topic], ns(received_s), _store.serialize_cdr(message, kind))
    if not with_text:
        _forget_definitions(folder)
    return folder


def _forget_definitions(folder):
    """Make a .db3 one that Humble wrote."""
    import sqlite3
    for file in folder.glob('*.db3'):
        with sqlite3.connect(file) as base:
            base.execute("UPDATE message_definitions SET encoded_message_definition = ''")
            base.execute('DROP TABLE message_definitions')
            base.execute('DELETE FROM schema')
            base.execute("INSERT INTO schema(schema_version, ros_distro) VALUES (3, 'humble')")
        base.close()


def drive(num=40, rate=20.0, start=START_S):
    """
    Return the messages of a robot with everything: a straight drive at 0.5 m/s, then left.

    The image of frame i has brightness i, x is 0.025 i, and commands come 10 ms before images.
    """
    messages = [('/tf_static', start, tf(transform(
        start, 'base_link', 'camera_optical_frame', (0.1, 0.0, 0.3), (-0.5, 0.5, -0.5, 0.5))))]
    for i in range(num):
        at = start + i / rate
        messages += [
            ('/cmd_vel', at - 0.01, twist(0.5, 0.01 * i)),
            ('/odom', at, odom(at, 0.025 * i, 0.0, 0.1 * i)),
            ('/camera/camera_info', at + 0.002, info(at)),
            ('/camera/image_raw', at + 0.002, image(at, grey(i))),
            ('/camera/depth/image_raw', at + 0.003, image(
                at, np.full((24, 32), 1000 + i, np.uint16), encoding='16UC1')),
            ('/scan', at + 0.004, scan(at, [1.0, 2.0, np.inf]))]
    return messages


def write_tub(folder, frames, *, is_old=False, period_ms=50):
    """
    Write a Donkey tub.

    :param folder: to create
    :param frames: (rgb, angle, throttle) each
    :param is_old: with a file of its own for each frame
    :param period_ms: between stamps
    """
    images = folder if is_old else folder / 'images'
    images.mkdir(parents=True)
    lines = []
    for i, (rgb, angle, throttle) in enumerate(frames):
        name = f'{i}_cam-image_array_.jpg' if is_old else f'{i}_cam_image_array_.jpg'
        cv2.imwrite(str(images / name), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
        record = {'cam/image_array': name, 'user/angle': angle, 'user/throttle': throttle,
                  'user/mode': 'user'}
        if is_old:
            (folder / f'record_{i}.json').write_text(json.dumps(record))
        else:
            lines.append(json.dumps({'_index': i, '_timestamp_ms': 1602421393803 + period_ms * i,
                                     **record}))
    if not is_old:
        (folder / 'catalog_0.catalog').write_text('\n'.join(lines) + '\n')
        (folder / 'manifest.json').write_text(json.dumps(['cam/image_array']))


def write_drive(folder, drive, num, picture_lag_s=0.0):
    """
    Write what a robot publishes: pictures, depth, odometry, joints, commands, transforms.

    :param folder: to create
    :param drive: ``bench.new_rooms.Drive``
    :param num: frames of it
    :param picture_lag_s: pictures are stamped with the time of depth, though they were taken later
    :return: the folder
    """
    camera = drive.robot.camera
    turned = quat_from_rotation(camera.T_base_optical[:3, :3])
    names = list(drive.robot.joint_names)

    def messages():
        mounted = transform(START_S, 'base_link', 'camera_optical_frame', camera.position_m,
                            turned)
        yield '/tf_static', START_S, tf(mounted)
        yield '/camera/camera_info', START_S, _info_of(camera, START_S)
        for i in range(num):
            at = START_S + i / 15.0
            x, y, yaw = drive.odometry[i]
            yield '/odom', at, odom(at, x, y, yaw)
            if names:
                yield '/joint_states', at, joints(at, names, drive.joints[i])
                yield '/joint_command', at, joints(at, names, velocity=drive.action[i, 2:])
            yield '/camera/depth/image_rect_raw', at, image(
                at, drive.depth[i].astype(np.float32), encoding='32FC1')
            yield '/camera/image_raw/compressed', at, packed(at, drive.rgb[i])
            yield '/cmd_vel', at, twist(*map(float, drive.action[i, :2]))
    return write_bag(folder, messages())


def _info_of(camera, stamp_s):
    """Return the CameraInfo of a camera."""
    p = np.hstack([camera.k, np.zeros((3, 1))]).ravel()
    return make(INFO, header=header(stamp_s, 'camera_optical_frame'), width=camera.width_px,
                height=camera.height_px, distortion_model='plumb_bob', d=np.zeros(5),
                k=camera.k.ravel(), r=np.eye(3).ravel(), p=p)
