# SPDX-License-Identifier: Apache-2.0
"""
Start LingBot-World in the place of a simulator: ``sim.launch.py`` with a profile for it.

``ros2 launch lingbot_world_ros lingbot_world.launch.py checkpoint:=/models/lingbot-world-fast
start_image:=street.png prompt:='A quiet street in autumn.'``; with ``camera_path:=`` a recorded
camera moves instead of cmd_vel, with ``camera_link:=`` and ``robot_description:=`` the camera sits
on a link of the robot. ``--show-args`` lists all arguments.
"""
from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource

PROFILES = ('lingbot_world_fast', 'lingbot_world_nf4_24gb', 'lingbot_world_1_3b')


def generate_launch_description():
    """Take another profile for granted; what the arguments mean is up to ``sim.launch.py``."""
    return LaunchDescription([
        DeclareLaunchArgument('profile', default_value=PROFILES[0], description=(
            f'Parameter file: {", ".join(PROFILES)}, or the path of a YAML file.')),
        IncludeLaunchDescription(PythonLaunchDescriptionSource(
            str(Path(__file__).with_name('sim.launch.py'))))])
