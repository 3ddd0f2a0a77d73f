"""A Kubernetes cluster: made on this machine by kind, or there before; what is deployed to it, and what it says of that."""

from course_lib.cluster.accidents import crash, freeze
from course_lib.cluster.cluster import Cluster, Node
from course_lib.cluster.context_cluster import ContextCluster
from course_lib.cluster.deployer import Applied, Deployer
from course_lib.cluster.gpu import request as request_gpu
from course_lib.cluster.gpu import require_config as require_gpu_config
from course_lib.cluster.kind_cluster import KindCluster, running
from course_lib.cluster.readings import (
    endpoints,
    require_answered_outside,
    require_no_traffic,
    require_nodes_ready,
    require_replicas,
    require_restarted,
    require_rolled_out,
    require_settings_in_use,
    require_spread,
)
from course_lib.cluster.refusals import ApiError
from course_lib.cluster.rollout_wait import RolloutFailed
from course_lib.cluster.serving import DEPLOYMENT, IMAGE, Spread, ask_many, headers, make_key, predict
from course_lib.cluster.timeline import Timeline

__all__ = [
    "DEPLOYMENT", "IMAGE", "ApiError", "Applied", "Cluster", "ContextCluster", "Deployer", "KindCluster", "Node", "RolloutFailed", "Spread", "Timeline", "ask_many", "crash",
    "endpoints", "freeze", "headers", "make_key", "predict", "request_gpu", "require_answered_outside", "require_gpu_config",
    "require_no_traffic", "require_nodes_ready", "require_replicas", "require_restarted", "require_rolled_out",
    "require_settings_in_use", "require_spread", "running",
]  # fmt: skip
