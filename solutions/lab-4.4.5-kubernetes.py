# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 4.4.5 · Kubernetes: a cluster that mends itself
#
# With Compose you were the conductor: you said *start*, *stop*, *scale*. That works as long as you are awake, and as long as
# there is one machine. **Kubernetes** takes another kind of order. You don't tell it what to do; you write down what *should
# be* ("three of these, each healthy, reached under this name"), and controllers work day and night to make it so. A pod dies:
# another takes its place. A machine goes: its pods move. The load grows: there are more of them.
#
# In two hours (extensions are marked) you will
#
# 1. start a cluster of three nodes on this machine,
# 2. deploy the image of lab 4.4.1, and see who makes whom,
# 3. ask it from outside the cluster,
# 4. ask for a GPU, and read why the scheduler lets you wait,
# 5. count which of three replicas answered what,
# 6. freeze a server, and watch it lose its traffic and be restarted,
# 7. let the load decide how many replicas there are;
#
# then empty a machine under load without losing a request, and write the manifests that you would sign.
#
# Everything happens for real: the nodes are containers of your Docker engine, made by **kind** (*Kubernetes in Docker*), with a
# whole Kubernetes in them. The grey lines that begin with `$` are what you would type. What the notebook starts is removed
# when its kernel ends, however it ends. Your own `~/.kube/config` is not touched.

# %% tags=["nbval-ignore-output"]
from course_lib import bench, cluster, images, lab, shell
from course_lib.exercises import lab_4_4_5 as exercises

lab.begin("4.4.5")

# %% [markdown]
# Settings of the load tests: chats a second for the autoscaler, predictions a second while a node is emptied. Leave them for now.

# %% tags=["parameters"]
chat_rate = 30
load_rate = 20

# %% [markdown]
# | word | meaning |
# |---|---|
# | node | a machine of the cluster; here: a container that behaves like one |
# | control plane | the node where the cluster's memory (etcd), its API server, its scheduler and its controllers run |
# | pod | one or a few containers that live and die together, on one node, with one address |
# | Deployment | how many pods of which template there should be; it makes a ReplicaSet for each version of the template |
# | Service | a name and an address that stay, in front of pods that come and go |
# | manifest | an object as a YAML file: what should be |
# | probe | a question that the node asks a container again and again |
#
# ## 1 · A cluster
#
# One control plane and two workers. The first start on a machine makes or fetches the nodes' image, which takes minutes; after
# that a cluster is up in under a minute. (Where no image registry can be reached, the image is built from packages, and its
# Kubernetes is an old one. The manifests are written for today's.)

# %% tags=["nbval-ignore-output"]
image = images.ensure_inference_image()
course = exercises.lab_cluster()
course.up()
lab.show_file(course.description)

# %% [markdown]
# That file is all that kind was told. To speak to this cluster from a terminal, go to the checkout's folder and say once which
# cluster you mean: the command is below. `kubectl get nodes` answers then. (With `TARGET=kube-context` the lab runs on a cluster
# that you have already: `k8s/README.md`.)
#
# On a machine with an NVIDIA GPU a node should see it. kind can't say `--gpus`; but NVIDIA's container runtime hands devices to
# whoever mounts a certain path, so the configuration for a GPU host has one mount more. The step reads the nodes back, from
# the API server *and* from the Docker engine, and has kind itself read the GPU host's configuration.

# %% tags=["step-4.4.5.1", "nbval-ignore-output"]
with lab.step("4.4.5.1"):
    nodes = cluster.require_nodes_ready(course)
    gpu_config = cluster.require_gpu_config(course)

lab.table([{"node": one.name, "role": one.role, "state": one.words(), "version": one.version} for one in nodes])
print(f"In a terminal: export KUBECONFIG=$(realpath {exercises.as_typed(course.kubeconfig)})")
print(f"For GPUs the last node gets: {gpu_config['nodes'][-1]['extraMounts']}")

# %% [markdown]
# A node has a container runtime of its own (containerd), and knows nothing of the images in your Docker engine. In a data centre
# it would pull from a registry. Here the image is carried over:

# %% tags=["nbval-ignore-output"]
course.load(image, name=cluster.IMAGE)
print("\n".join(name for name in course.images() if "inference" in name))

# %% [markdown]
# ## 2 · A Deployment
#
# The manifests are in `k8s/`: a `base` for every cluster, and an **overlay** for each kind of cluster that says only what differs
# (the same idea as Compose's overrides; the tool is called Kustomize, and is part of kubectl). Here is the heart of it. Take two
# minutes: every line is there because somebody's service once broke without it.

# %%
lab.show_file("k8s/base/deployment.yaml", first=8, last=72)

# %% [markdown]
# The server wants keys. A key belongs in no file of a repository, so it is made now, straight into a **Secret** of the cluster.
# Then everything else is applied: *make it so*. `--server-side` means that the API server compares, field by field, what you
# want with what there is.

# %% tags=["nbval-ignore-output"]
deployer = exercises.deployer(course)
cluster.make_key(deployer)
applied = deployer.apply(lab.path("k8s/overlays/local"))
lab.table([{"kind": one.kind, "name": one.name, "change": one.change} for one in applied])

# %% [markdown]
# Nine objects, and the answer came at once: nothing has *happened* yet, it has only been noted. Now the controllers work. The
# Deployment makes a ReplicaSet, the ReplicaSet a pod, the scheduler finds a node for it, the node's kubelet starts it and asks its
# probes. `wait` watches them, and would say why if it did not come to an end.

# %% tags=["nbval-ignore-output"]
rollout = deployer.wait(cluster.DEPLOYMENT)

# %% [markdown]
# The step reads the chain back, link by link; and looks *inside* the pod, whether the ConfigMap's settings are the process's
# variables and the Secret's key is the file it reads.

# %% tags=["step-4.4.5.2", "nbval-ignore-output"]
with lab.step("4.4.5.2"):
    chain = cluster.require_rolled_out(deployer, cluster.DEPLOYMENT, image=cluster.IMAGE)
    in_use = cluster.require_settings_in_use(deployer, cluster.DEPLOYMENT)

lab.table(chain)
lab.table([{"setting": key, "value in the process": value} for key, value in in_use.items()])

# %% [markdown]
# That long name is the chain itself: Deployment, ReplicaSet, pod. Change anything of the template, and the Deployment
# makes a *second* ReplicaSet, fills it pod by pod, and empties the first. The old one is kept, at zero: that is what a rollback
# goes back to. See it happen:

# %% tags=["nbval-ignore-output"]
course.kubectl("set", "env", "--namespace=inference", "deployment/inference", "LOG_LEVEL=debug")
deployer.wait(cluster.DEPLOYMENT)
lab.table([{"revision": one.number, "ReplicaSet": one.replica_set, "pods": one.replicas} for one in deployer.history(cluster.DEPLOYMENT)])

# %% tags=["nbval-ignore-output"]
deployer.rollback(cluster.DEPLOYMENT)
deployer.wait(cluster.DEPLOYMENT)
lab.table([{"revision": one.number, "ReplicaSet": one.replica_set, "pods": one.replicas} for one in deployer.history(cluster.DEPLOYMENT)])

# %% [markdown]
# Going back is a rollout as any other: the old ReplicaSet gets its pods again, under a *new* number.

# %% [markdown]
# ### Exercise: a Deployment that never gets ready
#
# A colleague's manifests: a Deployment, a Service, a ConfigMap. The API server takes all of it without a word. This is what waiting
# for it ends in:

# %% tags=["nbval-ignore-output"]
print(exercises.see_it_fail())

# %% [markdown]
# There are five faults, and each hides the next: a pod that can't be given its files never asks for its image, one without an image
# never starts, and one that never starts is never asked by a probe. **Mend them**; read what the check shows you: Kubernetes'
# reason, the events, the last log lines.
#
# *The check* applies your folder in a namespace of its own, waits for the rollout, and asks for a prediction through your Service, with
# the key and without. It got well by leaving out a probe, the limit or the key? That does not count.

# %% tags=["stub", "ex-never-ready", "nbval-ignore-output"]
lab.files("never-ready")
lab.check("never-ready")

# %% tags=["answer", "ex-never-ready", "nbval-ignore-output"]
lab.files("never-ready", instead="solutions/4.4.5/never-ready/answer")
lab.check("never-ready")

# %% [markdown]
# ## 3 · A Service, asked from outside
#
# Pods come and go, and each has another address. A **Service** is the name that stays. It lists the addresses of all *ready* pods
# that carry certain labels, and every node knows that list: whoever asks the Service's port on any node is led to one of them.
#
# The type `NodePort` opens a port on every node; kind leads one of them out to this machine, on the loopback address. (In a cloud
# you would say `LoadBalancer`, and the cloud would make one and write its address into the Service. Nobody does so here: try
# it, and it stays `<pending>`.)

# %%
lab.show_file("k8s/overlays/local/service.yaml")

# %% [markdown]
# The step asks for a digit from outside: once without a key, which has to be refused, and once with. The answer has to be right, a
# pod has to have counted it, and the Service's list has to be exactly the pods that are ready.

# %% tags=["step-4.4.5.3", "nbval-ignore-output"]
digit = images.samples(1)[0]
with lab.step("4.4.5.3"):
    answered = cluster.require_answered_outside(deployer, cluster.DEPLOYMENT, course.address(), digit.pixels, digit.label)

lab.table([answered])

# %% [markdown]
# ## 4 · A pod that asks for a GPU
#
# What a pod needs stands in its manifest: `requests` are set aside for it, `limits` are what it may take at most. The **scheduler**
# does nothing but arithmetic with the requests: it looks for a node where they still fit. A GPU is such a number, too.
# NVIDIA's *device plugin* tells each node how many it has, under the name `nvidia.com/gpu`.

# %%
lab.show_file("k8s/overlays/gpu/deployment.yaml", first=17, last=40)

# %% [markdown]
# The step starts a pod as that overlay has it. With a GPU, it has to see it from inside. Without one, the pod must stay
# `Pending`, and the scheduler has to say why; no node may claim to have a GPU.

# %% tags=["step-4.4.5.4", "nbval-ignore-output"]
with lab.step("4.4.5.4"):
    gpu = cluster.request_gpu(deployer, cluster.IMAGE)

print("The GPU, seen inside the pod:" if gpu.used else "No node has a GPU. The scheduler says:")
print(gpu.said)

# %% [markdown]
# Read such sentences slowly: the scheduler says of *every* node why not. One is the control plane, which takes no ordinary pods
# (a *taint*); the others don't have the label that the pod's affinity asks for.
#
# **The trap with one GPU.** A rolling update starts the new pod first, and takes the old one away when the new one is ready. With one
# GPU the new one waits for the device that the old one holds, and the old one waits for the new one to be ready. They wait
# for each other for ever. You don't need a GPU to see that: Kubernetes counts whatever a node says it has, so let a worker say
# that it has one `example.com/gpu`.

# %% tags=["nbval-ignore-output"]
lab.table(exercises.deadlock(course))

# %% [markdown]
# With the strategy `Recreate` the old pod goes first. For the time of one start nobody answers: that is its price. Without that
# gap you need a second GPU, or one that is shared (`k8s/gpu/time-slicing`).

# %% [markdown]
# ### Exercise: told from the events alone
#
# Every controller, the scheduler and each kubelet write down what they do: **events**, kept for an hour. Whoever can read them
# needs nothing else to say what is wrong. Here are those of ten Deployments with names by chance, nine of them broken:

# %% tags=["nbval-ignore-output"]
events = exercises.some_events()
lab.table([{"object": one.object, "reason": one.reason, "message": one.message[:110]} for one in events if one.type == "Warning"])

# %% [markdown]
# **Write a function** `diagnose(events)` that returns a word for each Deployment, as a dictionary from its name to one of these:
#
# | word | means |
# |---|---|
# | `"image"` | its image can't be had |
# | `"missing"` | a ConfigMap or a Secret that it needs is not there |
# | `"no room"` | no node has what it requests |
# | `"crashes"` | its program ends, and is started again and again |
# | `"probe"` | its program runs, and does not answer its liveness or readiness probe |
# | `"well"` | nothing is wrong with it |
#
# An event has `object` (as in `Pod/web-6d9f-x2k4p`), `container`, `type`, `reason`, `message`, `count` and `last`, the time. Two traps:
# one word of Kubernetes can stand for two troubles, and one trouble can bring about the word of another.
#
# *The check* starts such Deployments anew, under other names, and hands your function their events, and nothing else.

# %% tags=["stub", "ex-from-events", "nbval-ignore-output"]
diagnose = lab.TODO
lab.check("from-events", diagnose)

# %% tags=["answer", "ex-from-events", "nbval-ignore-output"]
import re

# The most telling first: whoever is killed by a probe restarts as well, and whoever lacks a ConfigMap has `Failed`, too.
SIGNS = [
    ("probe", "Unhealthy: "),
    ("missing", "FailedMount: |Failed: .*(configmap|secret)"),
    ("no room", "FailedScheduling: "),
    ("image", "ErrImageNeverPull: |Failed: .*[iI]mage"),
    ("crashes", "BackOff: .*restarting"),
    ("well", ""),
]

def diagnose(events: list) -> dict[str, str]:
    noted: dict[str, list[str]] = {}
    for event in events:
        kind, _, name = event.object.partition("/")
        if kind == "Pod":
            noted.setdefault(name.rsplit("-", 2)[0], []).append(f"{event.reason}: {event.message}")
    return {
        name: next(word for word, sign in SIGNS if any(re.match(sign, line) for line in lines))
        for name, lines in noted.items()
    }

lab.check("from-events", diagnose)

# %% tags=["wrong", "ex-from-events"]
# refused: you say 'crashes'
import re

def diagnose(events: list) -> dict[str, str]:
    signs = [
        ("crashes", "BackOff: .*restarting"),
        ("probe", "Unhealthy: "),
        ("missing", "FailedMount: |Failed: .*(configmap|secret)"),
        ("no room", "FailedScheduling: "),
        ("image", "ErrImageNeverPull: |Failed: .*[iI]mage"),
        ("well", ""),
    ]
    noted: dict[str, list[str]] = {}
    for event in events:
        if event.object.startswith("Pod/"):
            name = event.object.removeprefix("Pod/").rsplit("-", 2)[0]
            noted.setdefault(name, []).append(f"{event.reason}: {event.message}")
    return {
        name: next(word for word, sign in signs if any(re.match(sign, line) for line in lines))
        for name, lines in noted.items()
    }

lab.check("from-events", diagnose)

# %% tags=["wrong", "ex-from-events"]
# refused: nothing is said of Deployment
def diagnose(events: list) -> dict[str, str]:
    return {event.object.removeprefix("Pod/"): "image" for event in events if event.object.startswith("Pod/")}

lab.check("from-events", diagnose)

# %% tags=["wrong", "ex-from-events"]
# refused: a function
lab.check("from-events", {"web": "image"})

# %% [markdown]
# ## 5 · Replicas
#
# In the overlay there is an **autoscaler**, which decides how many replicas there are. Before it does that work, do it by hand: so
# it has to go for a while. (Two who set the same number would fight over it. This is the most common reason why `kubectl scale`
# "does not work".)

# %% tags=["nbval-ignore-output"]
print(course.kubectl("delete", "--namespace=inference", "hpa/inference").output)

# %% [markdown]
# The step asks for 3 replicas, sends predictions, each on a connection of its own, and has every pod say how many it
# counted. Their sum has to be what was sent. Then back to 1.

# %% tags=["step-4.4.5.5", "nbval-ignore-output"]
rows = [sample.pixels for sample in images.samples(20)]
with lab.step("4.4.5.5"):
    deployer.scale(cluster.DEPLOYMENT, 3)
    cluster.require_replicas(deployer, cluster.DEPLOYMENT, 3)
    spread = cluster.ask_many(deployer, course.address(), rows, 90)
    cluster.require_spread(deployer, cluster.DEPLOYMENT, spread, replicas=3)
    where = exercises.nodes_of(course, deployer)
    deployer.scale(cluster.DEPLOYMENT, 1)
    cluster.require_replicas(deployer, cluster.DEPLOYMENT, 1)

lab.table(spread.rows())
lab.table(where)

# %% [markdown]
# Not 30 each: a Service draws a pod by lot, for every new *connection*. Who keeps one connection open stays with one pod, however
# many replicas there are. And both workers have pods (`topologySpreadConstraints` asked for it), so that the end of one machine is
# not the end of the service.

# %% [markdown]
# ### Exercise: the right size
#
# Requests are what a node sets aside; limits are where a container is stopped. Guessed too small, neighbours get in each other's way and
# containers are killed; too large, and machines stand idle that somebody pays for. A colleague guessed, to be on the safe side:

# %%
lab.show_file("labs/starters/4.4.5/right-size/server.yaml", first=1, last=27)

# %% [markdown]
# **Write a function** `right_size(measured)` that makes requests and limits of what was measured, in the form that manifests have.
# `measured` is a data frame, one row a measurement of the metrics API: `at` (seconds after the load began; negative before it), `cpu`
# (cores) and `memory` (bytes). `exercises.usage_under_load()` makes the measurement, which takes a minute and a half, once; look at it
# before you write.
#
# Wanted: a request of what is used under load, and at most twice that. A CPU limit of at least one and a half times (a mean hides its
# peaks), a memory limit with at least a tenth to spare and at most three times, so that a leak meets it.
#
# *The check* gives your sizes to the server and brings the same load again: it must not be killed, and must not stand still at its limit.

# %% tags=["stub", "ex-right-size", "nbval-ignore-output"]
# lab.table(exercises.usage_under_load().to_dict("records"))
right_size = lab.TODO
lab.check("right-size", right_size)

# %% tags=["answer", "ex-right-size", "nbval-ignore-output"]
def right_size(measured):
    loaded = measured[measured["at"] >= 20]  # a row is the mean of the seconds before it
    cores, size = loaded["cpu"].max(), loaded["memory"].max()
    return {
        "requests": {"cpu": f"{1.2 * cores * 1000:.0f}m", "memory": f"{1.2 * size / 2**20:.0f}Mi"},
        "limits": {"cpu": f"{2.5 * cores * 1000:.0f}m", "memory": f"{1.5 * size / 2**20:.0f}Mi"},
    }

lab.table(exercises.usage_under_load().to_dict("records"))
lab.check("right-size", right_size)

# %% tags=["wrong", "ex-right-size"]
# refused: no less than is used
def right_size(measured):
    cores, size = measured["cpu"].mean(), measured["memory"].max()  # the quiet before the load is in the mean, too
    return {
        "requests": {"cpu": f"{cores * 1000:.0f}m", "memory": f"{1.2 * size / 2**20:.0f}Mi"},
        "limits": {"cpu": f"{3 * cores * 1000:.0f}m", "memory": f"{1.5 * size / 2**20:.0f}Mi"},
    }

lab.check("right-size", right_size)

# %% tags=["wrong", "ex-right-size"]
# refused: at most 2 times as much
def right_size(measured):
    return {"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "2Gi"}}

lab.check("right-size", right_size)

# %% tags=["wrong", "ex-right-size"]
# refused: one byte more, and the container is killed
def right_size(measured):
    loaded = measured[measured["at"] >= 20]
    cores, size = loaded["cpu"].max(), loaded["memory"].max()
    same = {"memory": f"{size / 2**20 + 1:.0f}Mi"}
    return {"requests": {"cpu": f"{cores * 1000 + 1:.0f}m", **same}, "limits": {"cpu": f"{2 * cores * 1000:.0f}m", **same}}

lab.check("right-size", right_size)

# %% tags=["wrong", "ex-right-size"]
# refused: a mean of 15 s hides its peaks
def right_size(measured):
    loaded = measured[measured["at"] >= 20]
    cores, size = loaded["cpu"].max(), loaded["memory"].max()
    both = {"cpu": f"{1.1 * cores * 1000:.0f}m", "memory": f"{1.2 * size / 2**20:.0f}Mi"}
    return {"requests": both, "limits": both}

lab.check("right-size", right_size)

# %% tags=["wrong", "ex-right-size"]
# refused: a function of what was measured
lab.check("right-size", {"requests": {"cpu": "200m"}})

# %% [markdown]
# ## 6 · Pods that are unwell
#
# Three probes, three questions. They look alike, and mixing them up is expensive:
#
# | probe | asks | if not |
# |---|---|---|
# | startup | are you up at all? | the other two don't ask yet |
# | readiness | may I send you work? | no traffic; the pod stays as it is |
# | liveness | are you stuck? | the container is killed and started again |
#
# Is it *busy*? Then it must not be killed: its work would fall on the others, which get busier. So liveness judges slowly.
#
# The step starts a second replica and **freezes** the first: every process in it stops where it stands, as with a deadlock (a signal
# from outside, on the node). It has to lose its traffic first, while the other one is listed; then it has to be restarted, *by the
# liveness probe*, and be ready again.

# %% tags=["step-4.4.5.6", "nbval-ignore-output"]
with lab.step("4.4.5.6"):
    deployer.scale(cluster.DEPLOYMENT, 2)
    cluster.require_replicas(deployer, cluster.DEPLOYMENT, 2)
    frozen = deployer.pods(cluster.DEPLOYMENT)[0]
    with exercises.predictions(course, deployer, rate=load_rate) as load:
        load.run_for(2)
        cluster.freeze(course, deployer, frozen)
        cluster.require_no_traffic(deployer, cluster.DEPLOYMENT, frozen)
        restarted = cluster.require_restarted(deployer, cluster.DEPLOYMENT, frozen)

print("\n".join(one.words() for one in deployer.events(frozen.name)[-6:]))
print(f"{frozen.name}: restarted {frozen.restarts} times before, {restarted.restarts} times now")

# %% tags=["nbval-ignore-output"]
lab.figure("frozen-pod", bench.plot_load(load, {"a pod is frozen": 2}), "Each request's time to its answer, while one of two pods is frozen")

# %% [markdown]
# The users noticed: whoever was sent to the frozen pod before its readiness probe had failed twice waited in vain. Those are the
# crosses high up. Faster probes would let fewer of them in, and would take healthy but busy pods out of service. There is no
# right number, only a choice that you should make knowingly.

# %% [markdown]
# ### Exercise: no request lost
#
# A rollout replaces every pod: each new one has to be ready before it is sent anything, and each old one has to be forgotten before it
# refuses anything. This Deployment does neither, and users notice every release. **Mend it**: there are four faults.
#
# *The check* reads how your pods come and go, starts two of them, sends 25 predictions a second, each on a connection of its own, has all
# pods replaced meanwhile, and counts. A single lost request is one too many.

# %% tags=["stub", "ex-no-request-lost", "nbval-ignore-output"]
lab.files("no-request-lost")
lab.check("no-request-lost")

# %% tags=["answer", "ex-no-request-lost", "nbval-ignore-output"]
lab.files("no-request-lost", instead="solutions/4.4.5/no-request-lost/answer")
lab.check("no-request-lost")

# %% [markdown]
# ## 7 · Replicas that follow the load
#
# The **HorizontalPodAutoscaler** looks every 15 seconds: how much CPU do the pods use, compared with what they *requested*? At twice its
# target it wants twice as many pods. Up at once, since requests are waiting; down slowly, since the next wave may be near. (In the
# lab's overlay "slowly" is 15 seconds, so that you need not wait for five minutes.)

# %%
lab.show_file("k8s/base/autoscaler.yaml")

# %% [markdown]
# Bring the autoscaler back (applying again changes only what differs) and begin with one replica.

# %% tags=["nbval-ignore-output"]
deployer.scale(cluster.DEPLOYMENT, 1)
cluster.require_replicas(deployer, cluster.DEPLOYMENT, 1)
applied = deployer.apply(lab.path("k8s/overlays/local"))
lab.table([{"kind": one.kind, "name": one.name, "change": one.change} for one in applied if one.change != "unchanged"])
course.wait_metrics()

# %% [markdown]
# Then chats, which cost a model server real work. The step needs to see the autoscaler want more, the new pods ready, and, when the load
# is gone, only one left. It takes two to three minutes: watch it in a terminal with `kubectl get hpa --namespace=inference --watch`.

# %% tags=["step-4.4.5.7", "nbval-ignore-output"]
with lab.step("4.4.5.7"), cluster.Timeline(deployer, cluster.DEPLOYMENT) as timeline:
    with exercises.chats(course, deployer, rate=chat_rate) as load:
        up_after = timeline.require_scaled_up(2)
        load.run_for(10)
        used = exercises.used_of(deployer)
    down_after = timeline.require_scaled_down(1)

print(f"Two replicas were ready {up_after:.0f} s after the load began; one was left after {down_after:.0f} s.")
lab.table(used)
lab.table([load.row()])

# %% tags=["nbval-ignore-output"]
lab.figure("autoscaler", bench.plot_timeline(timeline, load), "Requests offered, CPU against its target, replicas wanted and ready")

# %% [markdown]
# Between the load and the first new pod lies up to half a minute: the kubelet measures, the metrics server collects, the
# autoscaler looks. An autoscaler answers the *trend*; what comes within seconds has to fit into the replicas you have. So the
# target is 70 % and not 95.

# %% [markdown]
# ### Exercise: hold the p95
#
# What users feel is how long the slow answers take: the **p95** is the time within which 95 of 100 come. `server.yaml` is a server that
# says *come back later* (429) rather than letting people wait for ever, and one replica of it is not much. **Write its autoscaler**,
# so that the p95 holds when the load comes.
#
# *The check* measures what one chat costs and takes at rest, on this machine. Then it brings 1.8 times the load that one replica can
# bear, and gives your autoscaler two minutes until 95 of 100 answers come within twenty-five times that, refusals not counted as answers.
# While the load is on, no replica may be taken away.

# %% tags=["stub", "ex-hold-p95", "nbval-ignore-output"]
lab.files("hold-p95")
lab.check("hold-p95")

# %% tags=["answer", "ex-hold-p95", "nbval-ignore-output"]
lab.files("hold-p95", instead="solutions/4.4.5/hold-p95/answer")
lab.check("hold-p95")

# %% [markdown]
# ## A machine is emptied
#
# Nodes get new kernels, and die. `kubectl drain` asks every pod on a node to go, one after the other if the **PodDisruptionBudget**
# says so, and lets nothing new in. With two replicas on two workers, under load: how many requests are lost?

# %% tags=["nbval-ignore-output"]
course.kubectl("delete", "--namespace=inference", "hpa/inference")
deployer.scale(cluster.DEPLOYMENT, 2)
cluster.require_replicas(deployer, cluster.DEPLOYMENT, 2)
lab.table(exercises.nodes_of(course, deployer))
emptied = deployer.pods(cluster.DEPLOYMENT)[-1].node
with exercises.predictions(course, deployer, rate=load_rate) as load:
    load.run_for(2)
    with exercises.drained(course, emptied):
        cluster.require_replicas(deployer, cluster.DEPLOYMENT, 2)
        load.run_for(2)
        while_drained = exercises.nodes_of(course, deployer)
lab.table(while_drained)
lab.table([load.row()])

# %% tags=["nbval-ignore-output"]
lab.figure("drained", bench.plot_load(load, {"kubectl drain": 2}), "Each request's time to its answer, while a node is emptied")

# %% [markdown]
# None should be lost, and that is no luck. The pod that has to go is taken off the Service's list and goes on answering for five seconds
# (`preStop`), until every node has heard of it; then it sends its clients away politely and finishes what it has begun. Take any of these
# out, and requests are lost: you tried it in the exercise above.

# %% [markdown]
# ### Exercise: a door for those with a label
#
# In a cluster every pod can speak to every other one, in whatever namespace: one burgled pod stands in front of all the others.
# **NetworkPolicies** say who may speak to whom. The base has a `deny-all`: nothing in, nothing out. **Write the policies** that
# let the pods with the label `inference-client: "true"` ask the server, and nobody else; those pods otherwise only reach DNS, and
# the server calls nobody.
#
# *The check* has the API server take your policies, works out from their text which of thirteen connections they let through, and then
# tries it for real, with one pod that has the label and one that has not. Policies are carried out by the nodes' network, and not
# every network does: one that does not takes them without a word. The check finds that out by a deny-all and a connection that goes through
# all the same; then it says so, and the exercise counts as skipped.

# %% tags=["stub", "ex-closed-door", "nbval-ignore-output"]
lab.files("closed-door")
lab.check("closed-door")

# %% tags=["answer", "ex-closed-door", "nbval-ignore-output"]
lab.files("closed-door", instead="solutions/4.4.5/closed-door/answer")
lab.check("closed-door")

# %% [markdown]
# ### Exercise: in a terminal
#
# It is six in the morning, and you are on call. In the night somebody rolled out a new release of the helpdesk, then another one to
# mend it. The users have noticed nothing so far: the pod of the old release still answers, because a rolling update takes none
# away before a new one is ready. **Open a terminal** (in JupyterLab: File, New, Terminal), go to the checkout's folder, and
# put it right before they come.
#
# *The check* asks the API server.

# %% tags=["stub", "ex-in-a-terminal", "nbval-ignore-output"]
task = exercises.terminal_task()
lab.check("in-a-terminal")

# %% tags=["answer", "ex-in-a-terminal", "nbval-ignore-output"]
task = exercises.terminal_task()
shell.run(["sh", "solutions/4.4.5/in-a-terminal/answer.sh", task.namespace, task.incident], cwd=task.folder, env=task.environment)
lab.check("in-a-terminal")

# %% tags=["wrong", "ex-in-a-terminal"]
# refused: release 7.3 is what
task = exercises.terminal_task()
shell.run(["sh", "solutions/4.4.5/in-a-terminal/plain-undo.sh", task.namespace, task.incident], cwd=task.folder, env=task.environment)
lab.check("in-a-terminal")

# %% tags=["wrong", "ex-in-a-terminal"]
# refused: 1 replicas are asked for
task = exercises.terminal_task()
shell.run(["sh", "solutions/4.4.5/in-a-terminal/no-scale.sh", task.namespace, task.incident], cwd=task.folder, env=task.environment)
lab.check("in-a-terminal")

# %% tags=["wrong", "ex-in-a-terminal"]
# refused: the annotation incident is None
task = exercises.terminal_task()
shell.run(["sh", "solutions/4.4.5/in-a-terminal/no-note.sh", task.namespace, task.incident], cwd=task.folder, env=task.environment)
lab.check("in-a-terminal")

# %% [markdown]
# ### What you take with you: your own manifests
#
# An empty page, and what is wanted in its comments. **Write the manifests you would sign**: Deployment, Service, settings, autoscaler
# and disruption budget, with all of the above. Once they pass, they stand in the run's report with what was measured.
#
# *The check* reads them and has the API server read them, applies them, asks through your Service with the key and without, brings so
# much load that your autoscaler has to follow, kills a pod's processes and waits for it to come back, and replaces all pods while
# it counts every request.

# %% tags=["stub", "ex-own-manifests", "nbval-ignore-output"]
lab.files("own-manifests")
lab.check("own-manifests")

# %% tags=["answer", "ex-own-manifests", "nbval-ignore-output"]
lab.files("own-manifests", instead="solutions/4.4.5/own-manifests/answer")
lab.check("own-manifests")

# %% [markdown]
# ## Where you are
#
# You wrote down what should be, and saw controllers make it so: after a crash, under load, and with a machine less. The same
# manifests, with `k8s/overlays/cloud` on top, run on any Kubernetes that you can rent. How to bring a *new version* out
# without a bad one reaching everybody (blue/green, canary, shadow) is an extension of its own.
#
# The cluster goes when this notebook's kernel ends. It can go by hand, too; then the engine is asked what is left of it:

# %% tags=["nbval-ignore-output"]
course.down()
print("Left of it:", ", ".join(exercises.left_of(course)) or "nothing")

# %% tags=["nbval-ignore-output"]
lab.progress()
