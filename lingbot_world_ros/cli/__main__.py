# SPDX-License-Identifier: Apache-2.0
"""Run ``lingbot-world`` as ``python -m lingbot_world_ros.cli``."""

if __name__ == '__main__':
    try:
        from lingbot_world_ros.cli.main import main
        code = main()
    except KeyboardInterrupt:  # while it is imported
        code = 130
    raise SystemExit(code)
