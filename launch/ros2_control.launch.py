# SPDX-License-Identifier: Apache-2.0
"""
Start an imagined world with ros2_control in front of it: stock hardware component and controllers.

``ros2 launch lingbot_world_ros ros2_control.launch.py scene:=office``; then
``ros2 control list_controllers``. It needs ``ros2_control``, ``ros2_controllers``,
``joint_state_topic_hardware_interface`` and ``robot_state_publisher``, of Jazzy or later.
"""
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch_ros.actions import Node
from lingbot_world_ros.paths import share_path
from lingbot_world_ros.settings.description import with_ros2_control
from lingbot_world_ros.settings.layouts import profile_values

FOLDER = share_path('config', 'ros2_control')
CONTROLLERS = ('joint_state_broadcaster', 'arm_controller')


def generate_launch_description():
    """Take the profile for granted whose topics the hardware component has."""
    return LaunchDescription([
        DeclareLaunchArgument('profile', default_value='moveit', description=(
            'Parameter file of the world: a name from config/ or the path of a YAML file.')),
        DeclareLaunchArgument('ros2_control', default_value='', description=(
            'File with the ros2_control element that is put into the URDF of the robot, unless '
            'that has one; empty: config/ros2_control/room.xml.')),
        DeclareLaunchArgument('controllers', default_value='', description=(
            'Parameter file of the controller manager and its controllers; empty: '
            'config/ros2_control/controllers.yaml.')),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(
            str(Path(__file__).with_name('sim.launch.py')))),
        OpaqueFunction(function=_nodes)])


def _nodes(context):
    """Start what reads the joints and moves them."""
    given = dict(context.launch_configurations)
    values = profile_values(given['profile'])
    values.update({name: given[name] for name in ('engine', 'robot', 'robot_description')
                   if given.get(name)})
    element = Path(given['ros2_control'] or FOLDER / 'room.xml')
    description = with_ros2_control(values, element.read_text())
    in_sim_time = {'use_sim_time': True}
    return [
        Node(package='robot_state_publisher', executable='robot_state_publisher',
             parameters=[{'robot_description': description, **in_sim_time}]),
        Node(package='controller_manager', executable='ros2_control_node',
             parameters=[given['controllers'] or str(FOLDER / 'controllers.yaml'), in_sim_time],
             remappings=[('~/robot_description', '/robot_description')]),
        Node(package='controller_manager', executable='spawner', arguments=list(CONTROLLERS),
             parameters=[in_sim_time])]
