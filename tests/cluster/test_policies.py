"""What NetworkPolicies let through, held against what their documentation says of each sort of rule."""

from __future__ import annotations

from typing import Any

import pytest

from course_lib.cluster import policies
from course_lib.cluster.policies import End, Port

HERE, THERE = {"kubernetes.io/metadata.name": "here"}, {"kubernetes.io/metadata.name": "there", "team": "ops"}
SERVER = End("server", "10.0.0.1", "here", {"app": "server"}, HERE, {"http": 8080})
CLIENT = End("client", "10.0.0.2", "here", {"app": "client", "tier": "web"}, HERE)
FOREIGN = End("foreign", "10.0.1.3", "there", {"app": "client"}, THERE)
OUTSIDE = End("outside", "203.0.113.7")
ASKED = Port(8080)


def policy(namespace: str = "here", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", "namespace": namespace}, "spec": {"podSelector": {}, **spec}}


def ingress(*rules: Any, **spec: Any) -> dict[str, Any]:
    return policy(policyTypes=["Ingress"], ingress=list(rules), **spec)


def egress(*rules: Any, **spec: Any) -> dict[str, Any]:
    return policy(policyTypes=["Egress"], egress=list(rules), **spec)


def came_in(found: list[dict[str, Any]], port: Port = ASKED) -> str:
    """Who reaches the server, by their first letters."""
    return "".join(one.what[0] for one in (CLIENT, FOREIGN, OUTSIDE) if policies.allowed(found, one, SERVER, port))


@pytest.mark.parametrize(
    ("found", "who"),
    [
        ([], "cfo"),
        ([ingress()], ""),
        ([ingress({})], "cfo"),
        ([ingress({"from": []})], "cfo"),
        ([ingress({"from": [{"podSelector": {}}]})], "c"),
        ([ingress({"from": [{"podSelector": {"matchLabels": {"app": "client"}}}]})], "c"),
        ([ingress({"from": [{"podSelector": {"matchLabels": {"app": "other"}}}]})], ""),
        ([ingress({"from": [{"namespaceSelector": {}}]})], "cf"),
        ([ingress({"from": [{"namespaceSelector": {"matchLabels": {"team": "ops"}}}]})], "f"),
        # below one dash both have to hold; with two dashes one of them is enough
        ([ingress({"from": [{"namespaceSelector": {}, "podSelector": {"matchLabels": {"tier": "web"}}}]})], "c"),
        ([ingress({"from": [{"namespaceSelector": {}}, {"podSelector": {"matchLabels": {"app": "other"}}}]})], "cf"),
        ([ingress({"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]})], "cfo"),
        ([ingress({"from": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/16"]}}]})], "o"),
        # policies only add up
        ([ingress(), ingress({"from": [{"podSelector": {}}]})], "c"),
        # one for other pods, or of another namespace, says nothing of these
        ([ingress(podSelector={"matchLabels": {"app": "client"}})], "cfo"),
        ([policy("there", policyTypes=["Ingress"])], "cfo"),
        # the way out of the callers counts as well
        ([egress(podSelector={"matchLabels": {"app": "client"}})], "fo"),
        ([egress({"to": [{"podSelector": {"matchLabels": {"app": "server"}}}]})], "cfo"),
        ([policy("there", policyTypes=["Egress"])], "co"),
        # only the directions that are named
        ([policy(policyTypes=["Egress"], ingress=[{}])], "fo"),
        ([policy()], ""),
    ],
)
def test_who_comes_in(found: list[dict[str, Any]], who: str) -> None:
    assert came_in(found) == who


@pytest.mark.parametrize(
    ("ports", "opened"),
    [
        ([{"port": 8080}], {"TCP 8080"}),
        ([{"port": "http"}], {"TCP 8080"}),
        ([{"port": "other"}], set()),
        ([{"protocol": "UDP", "port": 53}], {"UDP 53"}),
        ([{"protocol": "UDP"}], {"UDP 53"}),
        ([{"port": 8000, "endPort": 8081}], {"TCP 8080", "TCP 8081"}),
        ([{"port": 8081}, {"protocol": "UDP", "port": 53}], {"TCP 8081", "UDP 53"}),
        ([], {"TCP 8080", "TCP 8081", "UDP 53"}),
    ],
)
def test_which_ports(ports: list[dict[str, Any]], opened: set[str]) -> None:
    each = (Port(8080), Port(8081), Port(53, "UDP"))
    found = [ingress({"ports": ports})]
    assert {f"{one.protocol} {one.number}" for one in each if policies.allowed(found, CLIENT, SERVER, one)} == opened


def test_each_end_by_itself() -> None:
    """The caller's way out is shut, and the door is open all the same."""
    found = [egress(podSelector={"matchLabels": {"app": "client"}}), ingress({"from": [{"podSelector": {}}]})]
    assert not policies.leaves(found, CLIENT, SERVER, ASKED) and policies.enters(found, CLIENT, SERVER, ASKED)
    assert policies.leaves(found, FOREIGN, SERVER, ASKED) and not policies.enters(found, FOREIGN, SERVER, ASKED)


def test_a_named_port_on_the_way_out_is_the_targets() -> None:
    found = [egress({"ports": [{"port": "http"}]}, podSelector={"matchLabels": {"app": "client"}})]
    assert policies.allowed(found, CLIENT, SERVER, ASKED)
    assert not policies.allowed(found, CLIENT, OUTSIDE, ASKED)


@pytest.mark.parametrize(
    ("operator", "key", "values", "fits"),
    [
        ("In", "app", ["server", "client"], True), ("In", "app", ["server"], False), ("In", "none", [""], False),
        ("NotIn", "app", ["server"], True), ("NotIn", "app", ["client"], False), ("NotIn", "none", ["x"], True),
        ("Exists", "tier", None, True), ("Exists", "none", None, False),
        ("DoesNotExist", "none", None, True), ("DoesNotExist", "tier", None, False),
    ],
)  # fmt: skip
def test_expressions(operator: str, key: str, values: list[str] | None, fits: bool) -> None:
    one = {"key": key, "operator": operator} | ({"values": values} if values else {})
    assert policies.selects({"matchExpressions": [one]}, CLIENT.labels) is fits
