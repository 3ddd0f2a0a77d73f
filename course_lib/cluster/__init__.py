"""A Kubernetes cluster: made on this machine by kind, or the one that a learner has."""

from course_lib.cluster.deployer import Applied, Deployer
from course_lib.cluster.kind_cluster import KindCluster, Node, running
from course_lib.cluster.refusals import ApiError
from course_lib.cluster.rollout_wait import RolloutFailed

__all__ = ["ApiError", "Applied", "Deployer", "KindCluster", "Node", "RolloutFailed", "running"]
