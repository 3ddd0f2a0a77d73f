"""The exercises of lab 4.4.5: manifests that are mended and written, events that are read, load that is held, and a terminal.

A check applies what the learner wrote to the lab's cluster, in a namespace of its own, and looks at the API server, the pods
and the answers. Hints come in three: what to think about, where to look, how it is said.
"""

from __future__ import annotations

from course_lib.exercises import cluster_one_gpu
from course_lib.exercises import cluster_scenes as scenes

__all__ = ["chats", "deadlock", "deployer", "drained", "lab_cluster", "left_of", "nodes_of", "predictions", "used_of"]

LAB = "4.4.5"

chats, predictions = scenes.chats, scenes.predictions
deployer, lab_cluster = scenes.deployer, scenes.lab_cluster
drained, left_of, nodes_of, used_of = scenes.drained, scenes.left_of, scenes.nodes_of, scenes.used_of
deadlock = cluster_one_gpu.deadlock
