"""The scenes of the extension on rollouts: its cluster, its releases (good ones and some that are bad on purpose), its users.

Its strategies are in `course_lib.cluster.strategies`. What belongs to several rooms meets here: the server's images and the stack's nginx
are handed to the cluster.
"""

from __future__ import annotations

import base64
import json
import secrets

from course_lib import images, shell, stacks
from course_lib.cluster import Deployer, KindCluster, make_key, serving
from course_lib.cluster.strategies import Release, UserLoad, Users
from course_lib.cluster.strategies.marks import MODEL, Row
from course_lib.cluster.strategies.release import empty, put
from course_lib.cluster.strategies.traffic import CANDIDATE, STABLE
from course_lib.exercises.cluster_scenes import EXERCISE_PORT
from course_lib.images import bases
from course_lib.images.course_image import SERVER
from course_lib.settings import CHECKOUT

LAB = "rollouts"
NAMESPACE = "rollouts"
MANIFESTS = CHECKOUT / "k8s" / "strategies"
_DOOR_IMAGE = "nginx:local"
#: What the label of each release is made of: (folder of models, model, version).
_BUILDS = {
    "1": ("models", MODEL, "1"),
    "2": ("models", MODEL, "2"),
    "3": ("models-bad", MODEL, "3"),
    "forgotten": ("models", "embedder", "1"),
}
#: CPU of the release whose manifest asks for too little.
_TOO_LITTLE = "50m"
#: A Secret with the key that we rehearse with and without the users'.
_OUR_KEYS = "inference-keys-of-ours"


def cluster(workers: int = 0) -> KindCluster:
    """The extension's cluster: one node is enough. Not started by this."""
    return KindCluster("rollouts", source=bases.source()[0], workers=workers)


def deployer(of: KindCluster) -> Deployer:
    """A Deployer for the namespace of all strategies."""
    return Deployer(NAMESPACE, kubeconfig=of.kubeconfig, kubectl=of.source)


def releases(of: KindCluster) -> dict[str, Release]:
    """The releases by their short names, built and on the nodes; and the door's nginx.

    Raises:
        CourseError: an image can't be built or loaded.
    """
    found, here = {}, {_DOOR_IMAGE: stacks.door_image(images.stack_variables())}
    for name, (folder, model, version) in _BUILDS.items():
        image = f"inference-server:{model}-{version}"
        here[image] = images.build_release(model, version, models=folder)  # type: ignore[arg-type]  # of _BUILDS
        found[name] = Release(image, f"version {version}" if model == MODEL else "the one without its model")
    of.load_all(here)
    return found | {
        "starved": Release(found["2"].image, "version 2 with too little CPU", cpu=_TOO_LITTLE),
        "locked": Release(found["2"].image, "version 2 with the wrong keys", keys=_OUR_KEYS),
    }


def cards() -> list[dict[str, object]]:
    """What the models' own pages say: a table of versions, their accuracy on held-out rows, and what they are."""
    rows: list[dict[str, object]] = []
    for folder, model, version in _BUILDS.values():
        card = json.loads((SERVER / folder / model / version / "model.json").read_text())
        accuracy = card.get("metrics", {}).get("accuracy")
        rows.append(
            {
                "image": f"inference-server:{model}-{version}",
                "accuracy": f"{accuracy:.1%}" if model == MODEL else "none: no digits inside",
                "what it is": card["description"],
            }
        )
    return rows


def rows(count: int = 100) -> list[Row]:
    """Digits that no version was trained on, and what they are: the exam, and what users ask."""
    return [(sample.pixels, sample.label) for sample in images.samples(count)]


def stage(of: KindCluster, strategy: str) -> Deployer:
    """Sets the stage for a strategy: an empty namespace, the manifests of its folder in k8s/strategies, every pod ready.

    Raises:
        CourseError: a manifest is refused, or a pod does not get ready.
    """
    found = deployer(of)
    clear(of)
    _make_keys(found)
    made = found.apply(MANIFESTS / strategy)
    for one in made:
        if one.kind == "Deployment":
            found.wait(one.name)
    return found


def _make_keys(found: Deployer) -> None:
    """A key for users and one for ourselves: a Secret with both, and another in which somebody forgot the users."""
    make_key(found)
    users = base64.b64decode(found.api.get("v1", "Secret", serving.KEYS, NAMESPACE)["data"]["keys"]).decode().strip()
    ours = f"ours:{secrets.token_hex(16)}"
    for name, keys in ((serving.KEYS, f"{users}\n{ours}"), (_OUR_KEYS, ours)):
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": "Opaque"}
        found.apply([secret | {"stringData": {"keys": keys}}])


def our_key(found: Deployer) -> dict[str, str]:
    """Headers with the key that we rehearse with."""
    keys = base64.b64decode(found.api.get("v1", "Secret", _OUR_KEYS, NAMESPACE)["data"]["keys"]).decode()
    return {"Authorization": f"Bearer {keys.partition(':')[2]}"}


def clear(of: KindCluster) -> None:
    """Takes everything away that a strategy has put there."""
    if deployer(of).api.find("v1", "Namespace", NAMESPACE):
        shell.announce(f"kubectl delete namespace {NAMESPACE}")
        of.release(NAMESPACE)


def start_over(found: Deployer, release: Release) -> None:
    """The door's trusted version is this one again, the other has no pods, and nobody leads to it."""
    put(found, STABLE, release)
    empty(found, CANDIDATE)
    found.wait(STABLE)


def address(of: KindCluster) -> str:
    """Where users ask, whatever is behind it."""
    return of.address(EXERCISE_PORT)


def users(of: KindCluster, found: Deployer, *, rate: float, many: int = 0) -> UserLoad:
    """A load of users who ask for digits, of which the right answers are known.

    Args:
        rate: requests a second.
        many: how many users take turns; with 0 each request is a user of its own.
    """
    return UserLoad(found, address(of), Users(rows(), many), rate=rate)
