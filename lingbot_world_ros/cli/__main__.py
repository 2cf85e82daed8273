# SPDX-License-Identifier: Apache-2.0
"""Run ``lingbot-world`` as ``python -m lingbot_world_ros.cli``."""
from lingbot_world_ros.cli.main import main

if __name__ == '__main__':
    raise SystemExit(main())
