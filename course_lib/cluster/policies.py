"""What NetworkPolicies let through, worked out from their text: the answer is the same where a network enforces none.

The rules are those of the API (https://kubernetes.io/docs/concepts/services-networking/network-policies/): policies only
ever allow; a pod that none selects is open; one that some select is open to what any of them allows, in each direction by
itself; and a connection has to be allowed by both its ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Literal

from course_lib.cluster.api import Object

_Direction = Literal["Ingress", "Egress"]
_PEERS = {"Ingress": "from", "Egress": "to"}


@dataclass(frozen=True)
class End:
    """One end of a connection: a pod, or an address that is none."""

    what: str
    """It in words."""
    ip: str
    namespace: str = ""
    """Empty where it is no pod."""
    labels: Mapping[str, str] = field(default_factory=dict)
    namespace_labels: Mapping[str, str] = field(default_factory=dict)
    ports: Mapping[str, int] = field(default_factory=dict)
    """The named ports of its containers."""


@dataclass(frozen=True)
class Port:
    """Where a connection leads to: the pod's own port, whatever number its Service gives it."""

    number: int
    protocol: str = "TCP"

    def __str__(self) -> str:
        return f"{self.protocol} port {self.number}"


def allowed(policies: Sequence[Object], source: End, target: End, port: Port) -> bool:
    """Whether a connection from one end to another gets through.

    Args:
        policies: as the API has them, with their namespaces and with what the server filled in.
    """
    return leaves(policies, source, target, port) and enters(policies, source, target, port)


def leaves(policies: Sequence[Object], source: End, target: End, port: Port) -> bool:
    """Whether the end that calls may: its egress alone."""
    return _passes(policies, "Egress", source, target, target, port)


def enters(policies: Sequence[Object], source: End, target: End, port: Port) -> bool:
    """Whether the end that is called lets the other one in: its ingress alone."""
    return _passes(policies, "Ingress", target, source, target, port)


def selects(selector: Object, labels: Mapping[str, str]) -> bool:
    """Whether a label selector chooses an object; an empty one chooses each."""
    for key, value in (selector.get("matchLabels") or {}).items():
        if labels.get(key) != value:
            return False
    for one in selector.get("matchExpressions") or []:
        there, among = one["key"] in labels, labels.get(one["key"]) in (one.get("values") or [])
        fits = {"In": there and among, "NotIn": not (there and among), "Exists": there, "DoesNotExist": not there}
        if not fits[one["operator"]]:
            return False
    return True


def _passes(policies: Sequence[Object], direction: _Direction, pod: End, other: End, target: End, port: Port) -> bool:
    if not pod.namespace:
        return True
    about = [
        one["spec"]
        for one in policies
        if one["metadata"]["namespace"] == pod.namespace
        and direction in (one["spec"].get("policyTypes") or ["Ingress"])
        and selects(one["spec"].get("podSelector") or {}, pod.labels)
    ]
    rules = [rule for spec in about for rule in spec.get(direction.lower()) or []]
    return not about or any(
        _peer_fits(rule.get(_PEERS[direction]), pod.namespace, other) and _port_fits(rule.get("ports"), target, port)
        for rule in rules
    )


def _peer_fits(peers: Sequence[Object] | None, namespace: str, other: End) -> bool:
    """An empty list is everybody, and so is none."""
    return not peers or any(_is_peer(one, namespace, other) for one in peers)


def _is_peer(peer: Object, namespace: str, other: End) -> bool:
    if block := peer.get("ipBlock"):
        address = ip_address(other.ip)
        inside = address in ip_network(block["cidr"], strict=False)
        return inside and not any(address in ip_network(one, strict=False) for one in block.get("except") or [])
    if not other.namespace:
        return False
    if (chosen := peer.get("namespaceSelector")) is not None:
        near = selects(chosen, other.namespace_labels)
    else:
        near = other.namespace == namespace
    return near and selects(peer.get("podSelector") or {}, other.labels)


def _port_fits(ports: Sequence[Object] | None, target: End, port: Port) -> bool:
    return not ports or any(_is_port(one, target, port) for one in ports)


def _is_port(one: Object, target: End, port: Port) -> bool:
    if one.get("protocol", "TCP") != port.protocol:
        return False
    wanted = one.get("port")
    if wanted is None:
        return True
    if isinstance(wanted, str):
        return target.ports.get(wanted) == port.number
    last: int = one.get("endPort") or wanted
    return bool(wanted <= port.number <= last)
