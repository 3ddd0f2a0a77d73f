"""A Kubernetes cluster: made on this machine by kind, or the one that a learner has."""

from course_lib.cluster.kind_cluster import KindCluster, Node, running

__all__ = ["KindCluster", "Node", "running"]
