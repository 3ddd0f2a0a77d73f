# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Extension · Rollouts: a new version, and how not to regret it
#
# Your model serves people. A new version is ready, better on every figure you have. Now comes the part that has cost the most
# sleep in this trade: giving it to everybody.
#
# A **rollout strategy** answers two questions. Who gets the new version first, and who decides that the others follow? Here
# are four answers, each under constant load, with every single request accounted for:
#
# 1. **rolling update**: pod after pod,
# 2. **blue/green**: a whole second set, and a switch that turns both ways,
# 3. **canary**: a few requests first, then more,
# 4. **shadow**: it hears everything, and nobody hears it;
#
# and then the question that comes after: of two good versions, which one is *better*? (5. **A/B test**)
#
# Everything happens for real, on a cluster of one node that is removed when the notebook's kernel ends. It takes some minutes
# to run and an hour to think about. You want lab 4.4.5 behind you: Deployments, Services, probes.

# %% tags=["nbval-ignore-output"]
from course_lib import bench, lab
from course_lib.cluster import strategies
from course_lib.cluster.strategies import blue_green, canary, rolling, shadow
from course_lib.exercises import lab_rollouts as scenes

lab.begin("rollouts")

# %% [markdown]
# Settings: requests a second, and how many seconds a gate looks before it judges.

# %% tags=["parameters"]
rate = 30
window = 7

# %% [markdown]
# ## The releases
#
# One release, one image: the course's server with one version of one model inside. So a pod is of a version, a rollback has
# something to go back to, and each reply says who answered (`X-Model-Version`).

# %%
lab.table(scenes.cards())

# %% [markdown]
# Version 1 is what people use. Version 2 is the one they should get. The other two are mistakes that happen:
#
# * **version 3** was trained on labels that were mixed up. It starts, it is healthy, it answers as fast as version 2, always with
#   status 200, and a third of its answers are wrong. With *confidence*.
# * **the one without its model**: somebody's build copied the wrong folder. It starts, it is healthy, it knows no digits.
#
# A third mistake is in no image: **version 2 with the wrong keys**. Its manifest mounts a Secret in which the team's own key stands, and
# nobody else's.
#
# Build them, load them onto the node, and start the cluster:

# %% tags=["nbval-ignore-output"]
cluster = scenes.cluster()
cluster.up()
versions = scenes.releases(cluster)
exam = scenes.rows()

# %% [markdown]
# ## The gate
#
# Somebody has to say *yes, go on*. At three in the morning that should be nobody's feeling, so it is a **gate**: questions with
# limits, written down before there is a figure to argue with. Ours asks three:

# %%
gate = strategies.Gate()
lab.table([{"limit": name, "value": value} for name, value in vars(gate).items()])

# %% [markdown]
# * **Errors** and **p95** (the time that 95 % of the answers keep to) come from the servers' own counters, old and new side by side
#   under the same load. Never compare with yesterday: yesterday had other users.
# * **Right answers** come from an exam, a hundred digits whose answers are known.
#
# And one rule above all: **a gate that reads nothing does not promote**. "No errors seen" is what a gate says when everything is
# well, and also when its question never arrived.

# %%
nothing = gate.judge(strategies.Seen())
lab.table(nothing.rows())
print("Decision:", nothing.decision)

# %% [markdown]
# ## 1 · Rolling update
#
# What Kubernetes does by itself: start one new pod, wait until it is *ready*, take one old pod away, and so on. Ready means that
# `/ready` answers 200. Version 3 would pass, for its server is in the best of health.
#
# So we look in between. `minReadySeconds` makes Kubernetes wait a little after a pod is ready; in that time the rollout is
# **paused**, the first new pod gets its share of the users, and the gate looks at it.

# %%
lab.show_file("k8s/strategies/rolling/deployment.yaml")

# %% [markdown]
# First version 2, then, on top of it, version 3. Before you run the cell: which of the gate's three questions will notice?

# %% tags=["step-rollouts.1", "nbval-ignore-output"]
with lab.step("rollouts.1"):
    deployer = scenes.stage(cluster, "rolling")
    journal = strategies.Journal()
    with scenes.users(cluster, deployer, rate=rate) as load:
        load.run_for(3)
        outcomes = [
            rolling.update(deployer, "inference", versions[name], gate=gate, rows=exam, journal=journal, seconds=window)
            for name in ("2", "3")
        ]
        load.run_for(2)
    accounts = strategies.require_accounted(load)

for outcome in outcomes:
    print(outcome.words())
    lab.table(outcome.rows())
lab.table(accounts, caption="Every request")

# %% tags=["nbval-ignore-output"]
lab.figure("rolling", bench.plot_rollout(load, journal), "Rolling update: version 2 goes through, version 3 is paused at its first pod and taken back")

# %% [markdown]
# No request was lost. But look at the lowest panel: while version 3 was being judged, one pod in three was wrong a third of
# the time, and **users got those answers**. With few replicas, a rolling update's first step is a large one.
#
# ## 2 · Blue/green
#
# Two complete sets, *blue* and *green*. Users are on one. The new version goes onto the other, gets ready and takes its exam
# while nobody rests on it. Then the Service turns to it as a whole, by one changed word in its selector. If the figures turn
# bad, it turns back, and the old pods are still there.

# %%
lab.show_file("k8s/strategies/blue-green/service.yaml")

# %% [markdown]
# Three releases in a row: version 2, version 3, and version 2 with the wrong keys. Guess for each: stopped *before* the switch,
# *after* it, or not at all? (We rehearse with the team's own key, as teams do.)

# %% tags=["step-rollouts.2", "nbval-ignore-output"]
with lab.step("rollouts.2"):
    deployer = scenes.stage(cluster, "blue-green")
    journal = strategies.Journal()
    with scenes.users(cluster, deployer, rate=rate) as load:
        load.run_for(3)
        outcomes = [
            blue_green.deploy(deployer, versions[name], gate=gate, rows=exam, journal=journal, seconds=window, key=scenes.our_key(deployer))
            for name in ("2", "3", "locked")
        ]
        load.run_for(2)
    # For a moment everybody was with the one that knows nobody.
    accounts = strategies.require_accounted(load, failed=len(load.sent) // 4)

for outcome in outcomes:
    print(outcome.words())
    lab.table(outcome.rows())
lab.table(accounts, caption="Every request")

# %% tags=["nbval-ignore-output"]
lab.figure("blue-green", bench.plot_rollout(load, journal), "Blue/green: version 2 takes over, version 3 never gets a user, the one with the wrong keys is switched back")

# %% [markdown]
# Not one user heard version 3. The wrong keys are the other lesson: the rehearsal went well, for it was *our* rehearsal with *our* key,
# and then **every** user stood before a locked door (status 401) until the switch was turned back. Only users do what users do, so the
# gate looks **again after the switch**, ends its window as soon as too much fails, and the way back is as short as the way there.
#
# The price: two sets of pods at once. With models that fill a GPU, that is a second GPU.
#
# ## 3 · Canary
#
# Miners took a canary along because it fainted before they did. Here a few *requests* are the canary. To send exactly a tenth
# of them to the new version, somebody has to look at each request: **nginx**, in front of both versions. This line does it, and
# it is the only thing that changes from step to step:

# %%
print(strategies.Traffic(candidate=10).files()["split.conf"])

# %% [markdown]
# Each request has a random number (`$request_id`); nginx hashes it into a hundred parts, and ten of them are the candidate's.
# The canary grows while the gate says yes (10 %, 50 %, everybody) and ends the moment it says no.
#
# Three releases again: version 2, the one without its model, and version 3.

# %% tags=["step-rollouts.3", "nbval-ignore-output"]
with lab.step("rollouts.3"):
    deployer, address = scenes.stage(cluster, "door"), scenes.address(cluster)
    journal = strategies.Journal()
    with scenes.users(cluster, deployer, rate=rate) as load:
        load.run_for(3)
        outcomes = [
            canary.release(deployer, address, versions[name], gate=gate, rows=exam, journal=journal, seconds=window)
            for name in ("2", "forgotten", "3")
        ]
        load.run_for(2)
    # The canary's part of the users pays for what the others are spared.
    accounts = strategies.require_accounted(load, failed=len(load.sent) // 20)

    canary.start(deployer, versions["3"])
    shares = [canary.by_replicas(deployer, address, exam)]

for outcome in outcomes:
    print(outcome.words())
    lab.table(outcome.rows())
lab.table(accounts, caption="Every request")

# %% tags=["nbval-ignore-output"]
lab.figure("canary", bench.plot_rollout(load, journal), "Canary: 10 %, 50 % and all for version 2; the other two end at 10 %")

# %% [markdown]
# The one without its model failed on every request that it got, and the gate did not wait for the end of its window: a few
# failures were enough. Version 3 had *no* errors and *good* latency. A canary that reads only those two, as most do, would have
# promoted it. Watch what tells that an answer is *right*, or something that follows from it.
#
# **Without nginx?** Many canaries are made by replicas: nine old pods, one new, one Service for all of them. Then the smallest
# step is one pod, and it is *connections* that are shared out. The last lines of the step tried it with the pods that were there:

# %% tags=["nbval-ignore-output"]
lab.table(shares)

# %% [markdown]
# ## 4 · Shadow
#
# The most careful of all: nginx sends each request a second time, to the new version (`mirror`), and throws that answer away.
# Users get what they got before, whatever the shadow says, and however long it takes to say it.
#
# We don't quite throw it away: the door keeps both answers for as long as they are compared. What stops a shadow is a **rule that
# is stated before**:

# %%
rule = strategies.Rule()
print(f"At most {rule.disagreement:.0%} of {rule.pairs} or more answers may differ; errors at most {rule.gate.error_rate:.0%}; p95 at most {rule.gate.slower:g} times the old one's.")

# %% [markdown]
# Why not 0 %? A better version *has* to differ: by its own page version 1 is wrong in 15 of 100 cases. Disagreement is no
# error, it is a place to look. Too much of it, and a person has to look before any user does.

# %% tags=["step-rollouts.4", "nbval-ignore-output"]
with lab.step("rollouts.4"):
    scenes.start_over(deployer, versions["1"])
    journal, followed = strategies.Journal(), []
    with scenes.users(cluster, deployer, rate=rate) as load:
        load.run_for(2)
        for name in ("2", "3"):
            followed.append(shadow.follow(deployer, address, versions[name], rule=rule, journal=journal, seconds=window))
        load.run_for(1)
    accounts = strategies.require_accounted(load)
    strategies.require_unseen(load, ["1"])

for outcome, compared in followed:
    print(outcome.words())
    lab.table(outcome.rows())
    lab.table([{"users were told": told, "the shadow said": said} for told, said in compared.examples], caption="Some that differ")
lab.table(accounts, caption="Every request")

# %% tags=["nbval-ignore-output"]
lab.figure("shadow", bench.plot_rollout(load, journal), "Shadow: two versions heard every request, and users heard version 1 throughout")

# %% [markdown]
# Look at the pairs. Between versions 1 and 2 there is one digit here and one there; between 1 and 3 it is always 3, 8 and 9. That
# pattern is worth more than the percentage: it says *what* was mixed up.
#
# The price: every request is computed twice, and whatever a request *does* (book, pay, send) it would do twice as well. Shadow what
# only answers.
#
# ## 5 · A/B test
#
# A canary asks whether something is *broken*. An **A/B test** asks which of two is *better*, so it has to be fair, and large enough.
#
# **Fair**: a user stays with one version. Who gets another answer at each click is confused, and counts on both sides. So nginx
# hashes the user's id now, not the request's:

# %%
print(strategies.Traffic(candidate=50, by="user").files()["split.conf"])

# %% [markdown]
# **Large enough**: worked out before, not "until it looks clear". Version 1 is right in about 90 of 100 of these digits. We would
# change for 97. How many users does each version need, so that such a difference is found 4 times in 5 (*power* 80 %), and one that
# isn't there in no more than 1 of 20 (*alpha* 5 %)?

# %%
needed = strategies.sample_size(0.90, 0.97)
print(f"{needed} users for each version. To tell 90 % from 91 %, it would be {strategies.sample_size(0.90, 0.91):,}.")

# %% [markdown]
# Each user asks twice. The second time shows whether the assignment holds; only the first answer counts, because two answers of one
# user are not two independent voices.

# %% tags=["step-rollouts.5", "nbval-ignore-output"]
with lab.step("rollouts.5"):
    canary.start(deployer, versions["2"], replicas=2)
    strategies.direct(deployer, address, strategies.Traffic(candidate=50, by="user"))
    many = round(2.3 * needed)
    with scenes.users(cluster, deployer, rate=2 * rate, many=many) as load:
        load.run_for(many / rate + 1)
    accounts = strategies.require_accounted(load)
    result = strategies.decide(strategies.arms(load), ["1", "2"], needed=needed)

lab.table(result.rows())
print(result.words())

# %% [markdown]
# Read it from the left: the decision, then how large the difference may be in truth (the *confidence interval*), then how often
# chance alone would make it (*p*). A tiny p with an interval from +0.1 % to +0.3 % is certain, and not worth a rollout.
#
# Before all that, the test looked at whether users were shared out as planned. If a coin that should be fair gives 60 to 40, the
# assignment is broken, and whatever comes out means nothing.
#
# ## Which one?
#
# | | who notices a bad version first | users it reached | pods meanwhile | way back |
# |---|---|---|---|---|
# | rolling update | a share of the users: one in (replicas + 1) | some | one more | a rollout: tens of seconds |
# | blue/green | a rehearsal, then everybody at once | none, or all for a moment | twice as many | a switch: a second |
# | canary | the share that you choose | few | a few more | a reload: a second |
# | shadow | nobody | none | twice as many | nothing to go back from |
#
# They are steps of one staircase rather than rivals: shadow it, canary it, and let the last step be a rolling update. What none of
# them replaces is the exam. All four caught version 3, and in three of them only because somebody had kept a hundred
# questions whose answers were known.
#
# Take it down; the kernel's end would do it, too.

# %% tags=["nbval-ignore-output"]
cluster.down()
lab.progress()
