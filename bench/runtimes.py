# SPDX-License-Identifier: Apache-2.0
"""
Run the embedded world's graphs on OpenVINO and on ONNX Runtime: same files, inputs, core, thread.

ONNX Runtime is needed by nothing else: ``pip install onnxruntime``. Prints one JSON object, with
``missing`` in it where a runtime is not installed.
"""
import argparse
import importlib.util
import json
import os
import time

from bench.latency import percentile
from bench.machine import cores
import numpy as np

RUNS_PER_TURN = 10


class OnnxRuntime:
    """One ONNX graph on ONNX Runtime, called as ``models.room.world.Graph`` is."""

    def __init__(self, path, tensors):
        """
        Load with one thread.

        :param path: ONNX file
        :param tensors: constant inputs, by name
        """
        import onnxruntime
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            str(path), options, providers=['CPUExecutionProvider'])
        self._wanted = [port.name for port in self._session.get_inputs()]
        self._constants = {name: onnxruntime.OrtValue.ortvalue_from_numpy(tensors[name])
                           for name in self._wanted if name in tensors}
        self._outputs = [port.name for port in self._session.get_outputs()]
        self._to_value = onnxruntime.OrtValue.ortvalue_from_numpy

    def __call__(self, inputs):
        """Run once; name -> array."""
        feed = {name: self._constants[name] if name in self._constants
                else self._to_value(np.ascontiguousarray(inputs[name], np.float32))
                for name in self._wanted}
        values = self._session.run_with_ort_values(self._outputs, feed)
        return {name: value.numpy() for name, value in zip(self._outputs, values)}


def start_inputs(scene: str) -> dict:
    """
    Inputs of both graphs: a robot at its start, told to drive and to move the arm.

    :param scene: scene to start in
    :return: name -> array, batch of one
    """
    from lingbot_world_ros.models.room.runtime import NUM_LATENT, read_about, WEIGHTS
    from lingbot_world_ros.robots.load import load_robot
    from lingbot_world_ros.worlds.scenes import get_scene
    robot = load_robot()
    start = get_scene(scene).start_state(0, robot)
    objects, j = np.float32(start.object_pose)[None], len(robot.joints)
    k = objects.shape[1]
    return {'pose': np.float32(start.base_pose)[None],
            'joints': np.float32(start.joint_position)[None], 'objects': objects,
            'twist': np.zeros((1, 3), np.float32), 'joint_speed': np.zeros((1, j), np.float32),
            'object_motion': np.zeros((1, k, 3), np.float32),
            'hidden': np.zeros((1, read_about(WEIGHTS)['hidden']), np.float32),
            'variance': np.zeros((1, 2 + j + k), np.float32),
            'noise': np.zeros((1, NUM_LATENT), np.float32),
            'action': np.full((1, 2 + j), 0.2, np.float32)}


def take_turns(calls: dict, turns: int) -> dict:
    """
    Time several functions in alternation, so that they meet the same machine.

    :param calls: name -> function without arguments
    :param turns: of ``RUNS_PER_TURN`` calls each; one more warms up
    :return: name -> (turns, RUNS_PER_TURN) times in ms
    """
    times_ms = {name: np.zeros((turns + 1, RUNS_PER_TURN)) for name in calls}
    for turn in range(turns + 1):
        for name, call in calls.items():
            for run in range(RUNS_PER_TURN):
                started_s = time.perf_counter()
                call()
                times_ms[name][turn, run] = (time.perf_counter() - started_s) * 1e3
    return {name: times[1:] for name, times in times_ms.items()}


def compare(graph: str, scene: str, turns: int) -> dict:
    """
    Run one graph on both runtimes.

    :param graph: ``'renderer'`` or ``'dynamics'``
    :param scene: whose tensors to use
    :param turns: how long to measure
    :return: per runtime p10, p50 [ms] and load time [s]; median over the turns of the ratio of
        their medians; largest difference
    """
    from lingbot_world_ros.models.room.lens import lens_tensors
    from lingbot_world_ros.models.room.runtime import Graph, scene_tensors, WEIGHTS
    from lingbot_world_ros.robots.load import load_robot
    path, tensors = WEIGHTS / f'{graph}.onnx', scene_tensors(WEIGHTS, scene)
    inputs, run, load_s, camera = start_inputs(scene), {}, {}, load_robot().camera
    for name, make in (('openvino', lambda: Graph(path, tensors, 1, camera=camera)),
                       ('onnxruntime', lambda: OnnxRuntime(path, {**tensors,
                                                                  **lens_tensors(camera)}))):
        started_s = time.perf_counter()
        run[name] = make()
        load_s[name] = time.perf_counter() - started_s
    answers = [run[name](inputs) for name in run]
    difference = max(float(np.abs(np.float32(answers[0][k]) - np.float32(answers[1][k])).max())
                     for k in answers[1])
    times_ms = take_turns({name: lambda call=call: call(inputs) for name, call in run.items()},
                          turns)
    turn_ms = {name: np.median(times, 1) for name, times in times_ms.items()}
    return {**{name: {'p10_ms': percentile(times, 10), 'p50_ms': percentile(times, 50),
                      'load_s': load_s[name]} for name, times in times_ms.items()},
            'onnxruntime_over_openvino': float(np.median(turn_ms['onnxruntime']
                                                         / turn_ms['openvino'])),
            'largest_difference': difference}


def main():
    """Compare and print the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[1])
    parser.add_argument('--turns', type=int, default=10)
    parser.add_argument('--scene', default='living_room')
    args = parser.parse_args()
    if importlib.util.find_spec('onnxruntime') is None:
        print(json.dumps({'missing': 'onnxruntime'}))
        return
    os.sched_setaffinity(0, {cores()[0]})
    print(json.dumps({graph: compare(graph, args.scene, args.turns)
                      for graph in ('renderer', 'dynamics')}))


if __name__ == '__main__':
    main()
