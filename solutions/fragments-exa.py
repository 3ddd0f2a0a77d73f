# Cells of four exercises, to be moved to the markers INSERT never-ready, from-events, closed-door, in-a-terminal.

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
