# Cells of four exercises, to be moved to the markers INSERT right-size, no-request-lost, hold-p95, own-manifests.

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
# *The check* gives your sizes to the server and brings the same load again: it must not be killed, and has to be about as quick.

# %% tags=["stub", "ex-right-size", "nbval-ignore-output"]
# lab.table(exercises.usage_under_load().to_dict("records"))
right_size = lab.TODO
lab.check("right-size", right_size)

# %% tags=["answer", "ex-right-size", "nbval-ignore-output"]
def right_size(measured):
    loaded = measured[measured["at"] >= 20]  # a row is the mean of the 15 s before it
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
