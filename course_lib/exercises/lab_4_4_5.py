"""The exercises of lab 4.4.5: manifests that are mended and written, events that are read, load that is held, and a terminal.

A check applies what the learner wrote to the lab's cluster, in a namespace of its own, and looks at the API server, the pods
and the answers. Hints come in three: what to think about, where to look, how it is said.
"""

from __future__ import annotations

from course_lib.exercises import cluster_scenes as scenes

__all__ = ["lab_cluster"]

LAB = "4.4.5"

lab_cluster = scenes.lab_cluster
