# A robot workspace with this package, built as the README says ("In a ROS 2 workspace").
#   docker build --build-arg ROS_DISTRO=jazzy -t lingbot_world_ros .
#   docker run --rm -it --net=host --ipc=host lingbot_world_ros
ARG ROS_DISTRO=kilted

# All that the package needs, without the package: .devcontainer/ mounts the checkout here.
FROM ros:${ROS_DISTRO}-ros-base AS workspace
ENV DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1
# rosdep has no --no-install-recommends.
RUN echo 'APT::Install-Recommends "false";' > /etc/apt/apt.conf.d/50no-recommends
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-pip python3-venv \
    && rm -rf /var/lib/apt/lists/*
# Not root, and with the number that the first user of the host has: both then share memory with each other.
RUN id ubuntu || useradd --create-home --uid 1000 --shell /bin/bash ubuntu
WORKDIR /home/ubuntu/ros2_ws
COPY package.xml src/lingbot_world_ros/
RUN apt-get update \
    && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths src --ignore-src -y \
    && rm -rf /var/lib/apt/lists/*
RUN chown -R ubuntu:ubuntu /home/ubuntu/ros2_ws
USER ubuntu
# The system's Python takes no packages from pip; this one sees the system's and has its own.
RUN python3 -m venv --system-site-packages /home/ubuntu/venv
ENV VIRTUAL_ENV=/home/ubuntu/venv PATH=/home/ubuntu/venv/bin:$PATH
RUN pip install openvino safetensors rosbags google-re2

FROM workspace AS world
COPY --chown=ubuntu:ubuntu . src/lingbot_world_ros
RUN . "/opt/ros/$ROS_DISTRO/setup.sh" \
    && colcon build --packages-select lingbot_world_ros
ENTRYPOINT ["/bin/bash", "-c", "source ~/ros2_ws/install/setup.bash && exec \"$@\"", "--"]
CMD ["ros2", "launch", "lingbot_world_ros", "sim.launch.py", "view:=true"]
