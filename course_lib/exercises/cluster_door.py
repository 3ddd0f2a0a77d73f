"""The exercise closed-door: NetworkPolicies of the learner's own, read as they were applied, and then tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Literal

from course_lib.cluster import Deployer, policies, serving
from course_lib.cluster.api import Object
from course_lib.cluster.policies import End, Port
from course_lib.errors import CourseError
from course_lib.exercises import cluster_checks as checks
from course_lib.exercises import cluster_connections as connections
from course_lib.exercises import cluster_scenes as scenes
from course_lib.exercises.cluster_checks import require
from course_lib.exercises.cluster_connections import CLIENT, CLIENT_PORT, DENY_ALL, NAME, SERVER, STRANGER
from course_lib.lab.exercise import NotYet, Skipped

_POLICY = ("networking.k8s.io/v1", "NetworkPolicy")
#: What a namespace's name is as a label; Kubernetes sets it since 1.21.
_NAMESPACE = "kubernetes.io/metadata.name"


@dataclass(frozen=True)
class _Wanted:
    """A connection, and whether it should get through: by both ends, or by the one alone that has to keep it shut."""

    end: Literal["both", "called", "calling"]
    source: End
    target: End
    port: Port
    open: bool
    look: str

    def through(self, read: Sequence[Object]) -> bool:
        ends = {"both": policies.allowed, "called": policies.enters, "calling": policies.leaves}
        return ends[self.end](read, self.source, self.target, self.port)

    def words(self) -> str:
        """What is so where it is not as wanted."""
        does = "does not reach" if self.open else "may call"
        if self.end == "called":
            return f"{self.target.what} lets {self.source.what} in at {self.port}"
        return f"{self.source.what} {does} {self.target.what} at {self.port}"


def require_closed(folder: Path) -> dict[str, object]:
    """Works out what a learner's policies let through beside a deny-all, applies them, and tries it from real pods.

    Raises:
        NotYet: something gets through that should not, or does not and should.
        Skipped: by their text they are right, and this cluster's network enforces none, so there was nothing to try.
    """
    found = checks.objects(folder, kinds=("NetworkPolicy",))
    cluster = scenes.ready_cluster()
    wanted = _wanted(scenes.deployer(cluster))
    _require_said(_as_taken(scenes.deployer(cluster, "default"), found), wanted)
    with scenes.room(cluster, NAME) as deployer:
        connections.start(deployer)
        enforced = connections.enforced(deployer)
        checks.applied(deployer, found)
        _require_said(deployer.api.objects(*_POLICY, NAME), wanted)
        if not enforced:
            raise Skipped(
                f"your {len(found)} policies were applied, read back, and say what they should: {len(wanted)} connections were "
                "worked out from their text. None of that was tried, for this cluster's network enforces no policies: under "
                "deny-all one pod still reached the other. Kind's own current nodes have a network that does enforce them."
            )
        return {"by their text": f"{len(wanted)} connections as wanted", **connections.require_tried(deployer)}


def _as_taken(deployer: Deployer, found: Sequence[Object]) -> list[Object]:
    """What the API server makes of the policies, beside deny-all: with all it fills in, and nothing changed yet.

    Raises:
        NotYet: it does not take one; with its words.
    """
    taken = []
    by_name = {one["metadata"]["name"]: one for one in (DENY_ALL, *found)}
    for one in by_name.values():
        try:
            said = deployer.api.apply(one, deployer.namespace, dry_run=True)
        except CourseError as error:
            raise NotYet(
                f"{error.what}\n{error.why}", expected="policies that the API server takes", look=error.do
            ) from None
        taken.append(said | {"metadata": said["metadata"] | {"namespace": NAME}})
    return taken


def _require_said(read: Sequence[Object], wanted: Sequence[_Wanted]) -> None:
    for one in wanted:
        require(
            one.through(read) == one.open,
            one.words(),
            expected="it does" if one.open else "neither now, nor when the other end is opened one day",
            look=one.look,
        )


def _wanted(deployer: Deployer) -> list[_Wanted]:
    """The connections that say whether the door is closed, the most telling first."""
    node = deployer.api.objects("v1", "Node")[-1]["spec"]
    network = ip_network(node.get("podCIDR") or "10.244.0.0/24")
    near = [str(network[number]) for number in range(9)]
    here = {_NAMESPACE: NAME}
    server = End("the server", near[4], NAME, SERVER, here, {"http": serving.PORT})
    client = End('a pod with the label inference-client: "true"', near[5], NAME, CLIENT, here)
    stranger = End("a pod without that label", near[6], NAME, STRANGER, here)
    foreign = End("a pod with that label in another namespace", near[7], "default", CLIENT, {_NAMESPACE: "default"})
    outside = End("an address outside the cluster", "203.0.113.7")
    dns = _dns(deployer, near[8])
    asked, web = Port(serving.PORT), Port(443)
    who = "`from`, in the ingress rule of the server's policy"
    only = "egress, and whom each policy's podSelector selects"
    return [
        _Wanted("both", client, server, asked, True, "both directions: the server's ingress and the client's egress; a policy sees the pod's port, not the Service's"),
        _Wanted("called", stranger, server, asked, False, who),
        _Wanted("called", foreign, server, asked, False, f"{who}: each `-` is one more way in, what stands below the same `-` has to hold together"),
        _Wanted("called", outside, server, asked, False, who),
        _Wanted("called", client, server, Port(serving.PORT + 1), False, "`ports`, beside `from`"),
        _Wanted("both", client, dns, Port(53, "UDP"), True, "a client asks for the server by its name: who answers that?"),
        _Wanted("both", client, dns, Port(53, "TCP"), True, "long answers of DNS come by TCP"),
        _Wanted("calling", client, outside, web, False, "`to`: an egress rule without it is for everybody"),
        _Wanted("calling", client, stranger, asked, False, "`to`, in the egress rule of the client's policy"),
        _Wanted("calling", server, outside, web, False, only),
        _Wanted("calling", server, dns, Port(53, "UDP"), False, f"{only}; the server calls nobody, so it needs no names"),
        _Wanted("calling", server, client, Port(CLIENT_PORT), False, only),
        _Wanted("calling", stranger, outside, web, False, only),
    ]  # fmt: skip


def _dns(deployer: Deployer, otherwise: str) -> End:
    """The cluster's DNS, as it runs."""
    found = deployer.api.objects("v1", "Pod", "kube-system", labels="k8s-app=kube-dns")
    pod = found[0] if found else {"metadata": {"labels": {"k8s-app": "kube-dns"}}}
    return End(
        "the cluster's DNS",
        checks.part(pod, "status", "podIP") or otherwise,
        "kube-system",
        pod["metadata"]["labels"],
        {_NAMESPACE: "kube-system"},
        {"dns": 53, "dns-tcp": 53},
    )
