"""Lab 4.4.5's steps fail when the world is not as they say: each step's own cell, on a cluster that was tampered with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from course_lib import cluster, images, lab, shell, waits
from course_lib.authoring import source
from course_lib.cluster import Deployer, KindCluster, gpu, serving
from course_lib.cluster.tools import Source
from course_lib.errors import CourseError
from course_lib.exercises import cluster_scenes as scenes
from course_lib.exercises import lab_4_4_5 as exercises
from course_lib.lab import catalog, store
from course_lib.settings import CHECKOUT, settings
from tests.cluster.web import silent, web

pytestmark = [pytest.mark.docker, pytest.mark.cluster, pytest.mark.lab]

LAB = "4.4.5"
NAME = serving.DEPLOYMENT
OVERLAY = CHECKOUT / "k8s" / "overlays" / "local"


@dataclass(frozen=True)
class World:
    """What a step's cell finds in the notebook."""

    course: KindCluster
    deployer: Deployer

    def run(self, step_id: str, **settings_of_the_lab: Any) -> None:
        cells = source.read(catalog.lab(LAB)).cells
        text = "\n".join(c.node.source for c in cells if f"step-{step_id}" in c.tags)
        rows = [sample.pixels for sample in images.samples(20)]
        names = {"lab": lab, "cluster": cluster, "images": images, "exercises": exercises, "rows": rows}
        exec(text, {**names, "course": self.course, "deployer": self.deployer, "load_rate": 5, **settings_of_the_lab})

    def require_failed(self, step_id: str, *words: str, **settings_of_the_lab: Any) -> None:
        with pytest.raises(CourseError) as failed:
            self.run(step_id, **settings_of_the_lab)
        for word in words:
            assert word in str(failed.value)
        assert store.steps(store.run_id())[step_id][0] == "failed"

    def kubectl(self, *arguments: str) -> None:
        self.course.kubectl("--namespace=inference", *arguments)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, inference_image: str, image_source: Source) -> Iterator[World]:
    """The lab's Deployment on a cluster of this module's own: two replicas, no autoscaler."""
    folder = tmp_path_factory.mktemp("sabotage")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COURSE_STATE_DIR", str(folder / "state"))
        patch.setenv("COURSE_WORK_DIR", str(folder / "work"))
        patch.setenv("COURSE_RUN_ID", "test-sabotage-4-4-5")
        settings.cache_clear()
        lab.begin(LAB)
        with cluster.running(KindCluster("lab", source=image_source, workers=1)) as course:
            course.load(inference_image, name=cluster.IMAGE)
            found = World(course, scenes.deployer(course))
            cluster.make_key(found.deployer)
            found.deployer.apply(OVERLAY)
            found.deployer.wait(NAME)
            found.kubectl("delete", "hpa/inference")
            yield found
    settings.cache_clear()


@contextmanager
def patched(world: World, what: str, patch: str, back: str) -> Iterator[None]:
    """An object is changed by a JSON patch, and by another one afterwards to what it was."""
    world.kubectl("patch", what, "--type=json", f"--patch={patch}")
    try:
        yield
    finally:
        world.kubectl("patch", what, "--type=json", f"--patch={back}")


def replicas(world: World, number: int) -> None:
    world.deployer.scale(NAME, number)
    cluster.require_replicas(world.deployer, NAME, number)


def test_the_steps_are_the_catalogues() -> None:
    tags = {tag for cell in source.read(catalog.lab(LAB)).cells for tag in cell.tags}
    assert {f"step-{step.id}" for step in catalog.lab(LAB).steps} <= tags


# 1 · the cluster


def test_1_a_node_that_stands_still(world: World) -> None:
    """The API server believes in it for another forty seconds."""
    worker = world.course.containers[-1]
    shell.run(["docker", "pause", worker])
    try:
        world.require_failed("4.4.5.1", f"node {worker} is no running container")
    finally:
        shell.run(["docker", "unpause", worker])


def test_1_a_configuration_for_gpus_that_kind_refuses(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    config = world.course.config(gpu=True)
    config["nodes"][-1]["extraMount"] = config["nodes"][-1].pop("extraMounts")
    with monkeypatch.context() as patch:
        patch.setattr(KindCluster, "config", lambda self, **_: config)
        world.require_failed("4.4.5.1", "kind refuses the configuration")


# 2 · the Deployment


def test_2_a_rollout_that_is_stuck(world: World) -> None:
    """Somebody brings out an image that no node has; the old pod still serves."""
    world.deployer.set_image(NAME, "inference-server:of-somebody")
    try:
        world.require_failed("4.4.5.2", "is not rolled out")
    finally:
        world.deployer.rollback(NAME)
        world.deployer.wait(NAME)


def test_2_an_image_of_somebody_elses(world: World, small_image: str) -> None:
    """It runs, it is ready, and it is not the one."""
    other = "course-test/somebodys-server:1"
    with scenes.room(world.course, "somebody") as found:
        world.course.load(small_image, name=other)
        found.apply([web(NAME, other)])
        found.wait(NAME)
        World(world.course, found).require_failed("4.4.5.2", f"runs {other}", "should name")


def test_2_settings_that_reach_no_process(world: World) -> None:
    """A ConfigMap that is changed in place."""
    pod = world.deployer.api.get("v1", "Pod", world.deployer.pods(NAME)[0].name, serving.NAMESPACE)
    name = pod["spec"]["containers"][0]["envFrom"][0]["configMapRef"]["name"]
    before = world.deployer.api.get("v1", "ConfigMap", name, serving.NAMESPACE)["data"]["DRAIN_SECONDS"]
    world.kubectl("patch", f"configmap/{name}", '--patch={"data": {"DRAIN_SECONDS": "7"}}')
    try:
        world.require_failed("4.4.5.2", f"DRAIN_SECONDS is '{before}' in pod", "'7' in ConfigMap")
    finally:
        world.kubectl("patch", f"configmap/{name}", f'--patch={{"data": {{"DRAIN_SECONDS": "{before}"}}}}')


# 3 · the Service

SELECTOR = "/spec/selector/app.kubernetes.io~1name"


def keyless(world: World, status: int) -> None:
    """A prediction without a key is answered so: the lab's own server refuses it."""
    try:
        answer = httpx.post(
            f"{world.course.address()}/predict", json={"inputs": [0.0] * 64}, timeout=10, trust_env=False
        )
    except httpx.HTTPError as error:
        raise waits.NotYet(str(error) or type(error).__name__) from None
    if answer.status_code != status:
        raise waits.NotYet(f"it answered {answer.status_code}")


def test_3_a_service_that_sends_to_nobody(world: World) -> None:
    back = f'[{{"op": "replace", "path": "{SELECTOR}", "value": "inference-server"}}]'
    with patched(world, "service/inference", back.replace("inference-server", "nobody"), back):
        waits.until(lambda: silent(world.course.address()), what="the nodes to send to nobody", timeout=90)
        world.require_failed("4.4.5.3", "an answer at http", "kubectl get endpoints")
    waits.until(lambda: keyless(world, 401), what="the nodes to send to the server again", timeout=180)


def test_3_a_server_that_says_yes_to_everybody(world: World, small_image: str) -> None:
    """A pod of somebody's, which the Service sends to: it answers 200 to whatever it is asked, key or none."""
    name, says = "somebodys-pod", '{"predicted_class": 3}'
    script = (
        "import http.server as h\n"
        "class Yes(h.BaseHTTPRequestHandler):\n"
        "    def do_POST(self):\n"
        "        self.rfile.read(int(self.headers['Content-Length'])); self.send_response(200); self.end_headers()\n"
        f"        self.wfile.write(b'{says}')\n"
        "h.HTTPServer(('', 8080), Yes).serve_forever()\n"
    )
    other = "course-test/somebodys-server:1"
    world.course.load(small_image, name=other)
    container = {"command": ["python3", "-u", "-c", script], "ports": [{"containerPort": 8080, "name": "http"}]}
    found = web(name, other, container=container)
    del found["spec"]["template"]["spec"]["containers"][0]["readinessProbe"]
    world.deployer.apply([found])
    back = f'[{{"op": "replace", "path": "/spec/selector", "value": {SELECTORS}}}]'
    theirs = f'[{{"op": "replace", "path": "/spec/selector", "value": {{"app": "{name}"}}}}]'
    try:
        world.deployer.wait(name)
        with patched(world, "service/inference", theirs, back):
            waits.until(lambda: keyless(world, 200), what="the nodes to send to the other pod", timeout=180)
            world.require_failed("4.4.5.3", "the server answers without a key")
        waits.until(lambda: keyless(world, 401), what="the nodes to send to the server again", timeout=180)
    finally:
        world.kubectl("delete", f"deployment/{name}", "--wait=false")


SELECTORS = '{"app.kubernetes.io/name": "inference-server", "app.kubernetes.io/part-of": "inference"}'


def test_3_an_answer_that_is_wrong(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes with a status of 200, and another digit is the right one."""
    digit = images.samples(1)[0]
    other = type(digit)(digit.pixels, str((int(digit.label) + 1) % 10))
    with monkeypatch.context() as patch:
        patch.setattr(images, "samples", lambda count: [other])
        world.require_failed("4.4.5.3", f"the answer is '{digit.label}'")


# 4 · a GPU


def test_4_a_node_that_only_says_that_it_has_one(world: World) -> None:
    """The pod finds no room beside it, or is put there and sees none: it did not wait for want of a GPU."""
    worker, path = world.course.containers[-1], f"/status/capacity/{gpu.GPU.replace('/', '~1')}"

    def offered() -> None:
        if world.course.nodes()[-1].gpus != "1":
            raise waits.NotYet("the kubelet has not taken it over")

    world.course.kubectl("label", "node", worker, f"{gpu.GPU}.present=true")
    scenes.json_patch(world.course, worker, {"op": "add", "path": path, "value": "1"})
    try:
        waits.until(offered, what="the node to offer a GPU", timeout=180, every=0.5)
        with pytest.raises(CourseError, match=r"a node has a GPU|nvidia-smi"):
            world.run("4.4.5.4")
    finally:
        scenes.json_patch(world.course, worker, {"op": "remove", "path": path})
        world.course.kubectl("label", "node", worker, f"{gpu.GPU}.present-")


def test_4_a_pod_that_asks_for_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The overlay without its one line."""
    with monkeypatch.context() as patch:
        patch.setattr(gpu, "OVERLAY", OVERLAY)
        world.require_failed("4.4.5.4", "and for no GPU")


# 5 · replicas


def test_5_a_service_that_prefers_one(world: World) -> None:
    """Who comes from one address stays with one pod: three replicas, and two of them idle."""
    on = '[{"op": "add", "path": "/spec/sessionAffinity", "value": "ClientIP"}]'
    with patched(world, "service/inference", on, on.replace("ClientIP", "None")):
        world.require_failed("4.4.5.5", "1 of 3 replicas have answered")


def test_5_somebody_who_scales_it_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """An autoscaler that was left in place."""
    replicas(world, 1)
    real = Deployer.scale

    def and_back(self: Deployer, name: str, number: int) -> None:
        real(self, name, number)
        real(self, name, 1)

    with monkeypatch.context() as patch:
        patch.setattr(Deployer, "scale", and_back)
        _only_for(patch, 10)
        world.require_failed("4.4.5.5", "for 3 pods of inference, all ready")


# 6 · unwell pods


def test_6_a_pod_that_nobody_restarts(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a liveness probe it loses its traffic, and stays as it is for ever."""
    probe = "/spec/template/spec/containers/0/livenessProbe"
    world.kubectl("patch", "deployment/inference", "--type=json", f'--patch=[{{"op": "remove", "path": "{probe}"}}]')
    template = world.deployer.wait(NAME).new[0].template
    try:
        with monkeypatch.context() as patch:
            _only_for(patch, 45, "to be restarted")
            world.require_failed("4.4.5.6", "to be restarted")
        # A probe would have failed three times by now. Pods of earlier tests had one.
        pods = f"Pod/{NAME}-{template}-"
        seen = [one.message.lower() for one in world.deployer.events() if one.object.startswith(pods)]
        assert seen and not [message for message in seen if "liveness" in message]
    finally:
        world.deployer.rollback(NAME)
        for pod in world.deployer.pods(NAME):
            world.kubectl("delete", f"pod/{pod.name}", "--grace-period=0", "--force", "--ignore-not-found")
        replicas(world, 1)
        world.deployer.wait(NAME)


def test_6_a_pod_that_is_not_frozen(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(cluster, "freeze", lambda *what: None)
        _only_for(patch, 15, "to be left out")  # twice as long as the probe takes
        world.require_failed("4.4.5.6", "to be left out")
    replicas(world, 1)


# 7 · the autoscaler


def test_7_an_autoscaler_that_may_not(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It measures the load, and one replica is the most that it is allowed."""
    replicas(world, 1)
    world.deployer.apply(OVERLAY)
    only_one = '[{"op": "replace", "path": "/spec/maxReplicas", "value": 1}]'
    world.kubectl("patch", "hpa/inference", "--type=json", f"--patch={only_one}")
    timelines: list[cluster.Timeline] = []

    class Kept(cluster.Timeline):
        def __init__(self, *what: Any) -> None:
            super().__init__(*what)
            timelines.append(self)

    real = waits.until

    def until(probe: Any, **how: Any) -> Any:
        """Not to its end, but for three looks of the autoscaler from when it had a reason to act."""

        def tried() -> Any:
            moments = timelines[0].moments
            hot = next((one.at for one in moments if one.cpu and one.cpu > one.target), None)
            if hot is not None and moments[-1].at - hot > 45:
                raise waits.WaitTimeout(f"waited in vain for {how['what']}")
            return probe()

        return real(tried if "2 replicas or more" in how["what"] else probe, **how)

    try:
        world.course.wait_metrics()
        with monkeypatch.context() as patch:
            patch.setattr(cluster, "Timeline", Kept)
            patch.setattr(waits, "until", until)
            world.require_failed("4.4.5.7", "2 replicas or more", chat_rate=25)
        moments = timelines[0].moments  # the last ones may be of after the load
        assert any(one.cpu and one.cpu > one.target for one in moments)
        assert all(one.desired <= 1 for one in moments)
    finally:
        world.kubectl("delete", "hpa/inference")


def test_7_a_load_that_is_none(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two replicas were there before it came."""
    replicas(world, 2)
    world.deployer.apply(OVERLAY)
    two = '[{"op": "replace", "path": "/spec/minReplicas", "value": 2}]'
    try:
        # Else it takes one of them away before a slow machine gets to the step.
        world.kubectl("patch", "hpa/inference", "--type=json", f"--patch={two}")
        world.require_failed("4.4.5.7", "had 2 replicas already", chat_rate=1)
    finally:
        world.kubectl("delete", "hpa/inference")


def _only_for(patch: pytest.MonkeyPatch, seconds: float, what: str = "") -> None:
    """A wait for something that can't come ends sooner."""
    real = waits.until

    def until(probe: Any, **how: Any) -> Any:
        limit = seconds if what in how["what"] else how["timeout"]
        return real(probe, **{**how, "timeout": min(how["timeout"], limit)})

    patch.setattr(waits, "until", until)
