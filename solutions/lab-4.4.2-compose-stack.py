# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 4.4.2 · Docker Compose: a stack that answers
#
# One container is a soloist. An application is an orchestra: a model, a database, a front door, somebody who listens for
# wrong notes. **Docker Compose** is the score: one file that says who plays, who waits for whom, and who may talk to whom.
#
# You start a **RAG** stack. RAG (retrieval-augmented generation) means: before the model answers, look up what your
# documents say, and answer from that. It is the difference between a student who guesses and one who may open the book.
# In two hours (extensions are marked) you will
#
# 1. start nine services with one command and see them get healthy,
# 2. prove that the database can't be reached from where the users are,
# 3. see what survives a restart, and what does not,
# 4. ask for a GPU in Compose, and read the request back,
# 5. let every service say for itself whether it is well,
# 6. ask a question, get an answer with its sources, and find the same question in the metrics and in a trace;
#
# then break it on purpose, mend it by a runbook, and write a Compose file of your own.
#
# Everything happens for real, on your Docker engine. What the notebook starts is removed when its kernel ends, however it
# ends. Run the cells from top to bottom with Shift+Enter; the *exercises* between the steps are yours.

# %% tags=["nbval-ignore-output"]
from course_lib import bench, images, lab, shell, stacks
from course_lib.exercises import lab_4_4_2 as exercises

lab.begin("4.4.2")

# %% [markdown]
# Settings of the load tests: how many requests a second, and for how many seconds. Leave them for now.

# %% tags=["parameters"]
load_rate = 50
load_seconds = 4

# %% [markdown]
# | word | meaning |
# |---|---|
# | service | one part of the application; Compose starts one container of it, or several (*replicas*) |
# | project | all services of one start; its name stands in front of every container, network and volume |
# | network | who is in it finds the others by their service names |
# | volume | storage that outlives containers |
# | profile | a label that switches services on or off, such as `development` |
# | secret | a file that only those containers see that need it |

# %% [markdown]
# ## 1 · Services
#
# ```
#            you ── https ──► proxy (nginx) ──┬──► inference × N     the model server of lab 4.4.1
#                                             └──► rag ──► chroma    answers from documents ──► vector database
#   prometheus ──► asks everybody for figures, tells alertmanager      traces: who called whom, and for how long
# ```
#
# Here is the score. Take a minute for `proxy`, `rag` and `chroma`: each says its image, its networks, whom it waits for
# (`depends_on`), how it is asked whether it is well (`healthcheck`), and how much it may take (`limits`).

# %%
lab.show_file("docker/stack/compose.yaml", first=1, last=105)

# %% [markdown]
# The images come first. The inference image is the one of lab 4.4.1 (built now, if this is the first lab you open). Where no
# image registry can be reached, the other services are built from packages by a second file, `compose.debian.yaml`, that is
# laid over the first: **same services, other origin**. Which one is it on this machine?

# %% tags=["nbval-ignore-output"]
references = images.stack_variables()
stack = stacks.course_stack(references)
lab.table([{"Compose files, laid over one another": str(file.relative_to(lab.path(".")))} for file in stack.project.files])

# %% [markdown]
# Now start it, service by service. Everything `docker compose` has to know (files, name, image names, ports) stands in one env
# file, so that the command stays short: you can type it in a terminal, too. First the database, alone:

# %% tags=["nbval-ignore-output"]
stack.up(services=["chroma"])
stack.show()

# %% [markdown]
# Next `rag`, and nothing else is asked for. Before you run the cell, look at the file again: who will come along, and in which
# order?

# %% tags=["nbval-ignore-output"]
stack.up(services=["rag"])
stack.show()

# %% [markdown]
# You asked for one, and three others came before it: `rag` waits for `chroma` (there already) and for `proxy`, which waits for
# `inference` and `traces`. Nobody had to know the order; each service names only its own neighbours. The rest of the stack
# watches, and nothing waits for it. The step starts all of it, and reads back what runs:

# %% tags=["step-4.4.2.1", "nbval-ignore-output"]
with lab.step("4.4.2.1"):
    stack.up()
    stacks.require_services(stack, "inference", "chroma", "prometheus")

stack.show()

# %% [markdown]
# Nine containers, and the images they really run, as the engine says. `restart: unless-stopped` brings back what crashes;
# `read_only`, `cap_drop: ALL` and a numbered user leave a burglar little to work with.
#
# Give the stack something to read: this course's glossary, 30 pages. Each page is cut into **passages** at its headings, each
# passage becomes a vector (by the inference server), and Chroma keeps both.

# %% tags=["nbval-ignore-output"]
pages = sorted(lab.path("docs/glossary").glob("*.md"))
stored = stack.rag.put_files(pages)
print(f"{len(stored)} documents, {sum(stored.values())} passages")

# %% [markdown]
# ## 2 · Networks: front and back
#
# Whoever breaks into the front door should not stand in the archive. So there are two networks. On `front` is what answers
# and what watches; on `back` is the database. `rag` is in both, and so is `blackbox`, which looks
# whether the database is well. And `back` is `internal`: no way out into the world.

# %% tags=["step-4.4.2.2", "nbval-ignore-output"]
with lab.step("4.4.2.2"):
    table = stacks.networks(stack)
    refused = stacks.require_unreachable(stack, "chroma", 8000, from_="proxy")
    stacks.require_unreachable(stack, "database-door", 8000, from_="proxy")
    stacks.require_reachable(stack, "chroma", 8000, from_="rag")

lab.table(table)
print("From the proxy to chroma:8000\n" + refused)

# %% [markdown]
# Two proofs, from inside the proxy's container: its DNS does not even know the name `chroma`, and the address, once you
# know it, does not answer. The last line of the step is as important: from `rag` the same port *does* answer. A door that is
# closed to everybody proves nothing.
#
# (`database-door` is a service of the profile `development`: it lets you look into the database from this machine. It would be
# a back door for everybody on `front`, so it stands on a network of its own, `desk`, and the step tries it, too. In production
# it does not exist. We come back to profiles below.)

# %% [markdown]
# ## 3 · Volumes: what survives
#
# Containers are hotel rooms: whatever you leave inside is gone after check-out. What must stay goes into a **volume**, which
# is the safe at the reception. The database keeps its files in the volume `documents`.
#
# The step asks a question, takes the whole stack **down** (every container and network is deleted), brings it up again, and
# asks again. Then it goes down *with its volumes*, `down --volumes`, and looks once more.

# %% tags=["step-4.4.2.3", "nbval-ignore-output"]
with lab.step("4.4.2.3"):
    before = stacks.take_stock(stack, "What is a named volume?")
    stack.down()
    stack.up()
    stacks.require_survived(stack, before)
    stack.down(volumes=True)
    stack.up()
    stacks.require_gone(stack, before)

print(f"{sum(before.documents.values())} passages survived `down` and `up`, and none `down --volumes`.")

# %% [markdown]
# One letter of difference, `down -v`, and the archive is empty. Nobody is told, either: every service is *healthy* now,
# each answers, and knows nothing. Healthy is not the same as useful, so somebody has to watch for it. Prometheus does:

# %% tags=["nbval-ignore-output"]
alert = stacks.wait_firing(stack, "NoDocuments")
print(f"{alert.name} ({alert.severity}): {alert.summary}")

# %% [markdown]
# Each alert has a **runbook**: what it means, where to look first, what to do. At three in the morning nobody thinks well;
# whoever wrote the runbook did it in daylight. (To type its commands: open a terminal, go to the checkout's folder, and say once
# which stack you mean: `export COMPOSE_ENV_FILES=$(realpath work/stack/rag/.env)`.)

# %%
lab.show_file("docker/stack/runbooks/NoDocuments.md")

# %% [markdown]
# ### Extension: backup and restore
#
# A volume survives `down`. It does not survive a broken disk, or `down -v`. A **backup** that nobody has restored is a hope,
# so we do both: store the documents again, back them up, delete the volume of the database, restore, and ask.

# %% tags=["nbval-ignore-output"]
stack.rag.put_files(pages)
print(stack.backup("glossary.jsonl.gz"))
exercises.lose_documents(stack)
print(f"after the accident: {len(stack.rag.documents())} documents")
print(stack.restore("glossary.jsonl.gz"))
stack.rag.answer("What is a named volume?").show()

# %% [markdown]
# ## 4 · GPU allocation
#
# `docker run --gpus all` has its counterpart in Compose: a *reservation* of a device. It stands in a file of its own, so
# that the same stack runs with and without a GPU: an **override** is laid over the first file, and adds what differs.

# %%
lab.show_file("docker/stack/compose.gpu.yaml", first=1, last=15)

# %% [markdown]
# The step lays it over the others, reads the merged result back from `docker compose config`, creates the one container and
# reads its *device request* back from the engine, then starts it. With a GPU, it has to be seen inside; without one, the
# engine has to refuse. (Where devices are given by CDI, `compose.cdi.yaml` comes on top.)

# %% tags=["step-4.4.2.4", "nbval-ignore-output"]
with lab.step("4.4.2.4"):
    gpu = stacks.request_gpu(stack)

print("The GPU, seen inside the container:" if gpu.used else "No GPU here. The engine refused to start the container:")
print(gpu.said)

# %% [markdown]
# On a DGX Spark (GB10), CPU and GPU share one memory, so GPU exporters have no memory figures: the override also starts an
# exporter that reads the host's.
#
# ### Extension: which value wins?
#
# The same variable can be set in several places: in the shell, in an env file, in the Compose file's default. Guessing who
# wins has cost many an evening; `docker compose config` shows it. Here is `INFERENCE_REPLICAS`, four times:

# %% tags=["nbval-ignore-output"]
lab.table(exercises.precedence(references))

# %% [markdown]
# ## 5 · Health checks for all services
#
# `depends_on` with `condition: service_healthy` makes a service wait until another one *answers*; without the condition it
# waits only until the process has started, which is how stacks get those "connection refused" lines at every start.
#
# Each image has other tools inside, and none can be relied on to have `curl`. So each service is asked with what it has: nginx
# and Chroma by bash, which can open a connection by itself; Prometheus by its `promtool`; ours by Python.

# %% tags=["step-4.4.2.5", "nbval-ignore-output"]
with lab.step("4.4.2.5"):
    states = stacks.require_all_healthy(stack)

lab.table([{"service": one.service, "health": one.health, "its probe said": one.probe[:70]} for one in states])

# %% [markdown]
# ### Exercise: a stack that never gets healthy
#
# A colleague's Compose file: model server, database, RAG service. This is what happens when it is started:

# %% tags=["nbval-ignore-output"]
print(exercises.see_it_fail())

# %% [markdown]
# There are four faults, and some show themselves only when the ones before are mended, as in life. **Mend it**; read what the
# check shows you: state, last probe, last log lines.
#
# *The check* starts your file, waits for every service to be healthy, stores a document, asks, takes everything down and up
# again, and asks again.

# %% tags=["stub", "ex-never-healthy", "nbval-ignore-output"]
lab.files("never-healthy")
lab.check("never-healthy")

# %% tags=["answer", "ex-never-healthy", "nbval-ignore-output"]
lab.files("never-healthy", instead="solutions/4.4.2/never-healthy/answer")
lab.check("never-healthy")

# %% [markdown]
# ## 6 · Ask the stack
#
# Now the whole way. A question comes in over TLS (trusting the stack's own certificate authority, made on the spot), nginx
# passes it to `rag`, which asks `inference` for the question's vector, Chroma for the nearest passages, and the model for an
# answer.
#
# The model in the image is small: it can point at words in a passage, and often can't do even that. So the service checks it:
# what the model says stands only if a passage has it (*answered by model*); else the nearest sentence is quoted (*answered
# by quote*). With a real model behind the same setting (`ANSWER_MODE=generative`), it writes the answer and cites.
#
# The step wants three things: an answer that rests on the right document, the question counted by Prometheus, and one trace
# that shows its way through all services.

# %% tags=["step-4.4.2.6", "nbval-ignore-output"]
answered = 'sum(rag_answers_total)'
with lab.step("4.4.2.6"):
    counted = stack.prometheus.value(answered)
    answer = stacks.require_answer(stack, "What is a named volume?", source="docs/glossary/volumes", about="name")
    stacks.require_counted(stack, answered, counted, more=1)
    spans = stacks.trace(stack, answer.trace)

answer.show()

# %% [markdown]
# Where did the time go? The trace is the request's diary: who called whom, when, for how long.

# %% tags=["nbval-ignore-output"]
lab.figure("trace", bench.plot_trace(spans), "One question's way through the stack")

# %% [markdown]
# (Chroma keeps a diary of its own, under another number: it does not take over the trace of who calls it. So its part is seen
# from outside, as `search`.)
#
# ### Load, and figures about it
#
# One request says little. Here are some hundred, at a steady rate: each begins at its time, whether or not earlier ones have
# been answered, for users don't queue up politely either.

# %% tags=["nbval-ignore-output"]
chat = {"model": "tutor", "messages": [{"role": "user", "content": "What is an image layer?"}], "max_tokens": 40}
with exercises.load(stack, chat, rate=load_rate) as load:
    load.run_for(load_seconds)
lab.table([load.row()])

# %% [markdown]
# The same load as Prometheus saw it. A **recording rule** has these figures ready, so that a plot is one short name:

# %% tags=["nbval-ignore-output"]
lab.show_file("docker/stack/prometheus/rules/recording.yaml", first=32, last=43)
lab.figure("metrics", bench.plot_metrics(exercises.dashboard(stack)), "What Prometheus recorded: latency, tokens, queue, errors, CPU, memory")

# %% [markdown]
# ### Exercise: three replicas
#
# More users than one replica can serve? Start more of it. **Write a function** `spread(stack, requests)` that scales
# `inference` to 3, sends that many requests through the front door (`exercises.ask(stack)` sends one, to `/predict`), and
# returns how many each replica answered, as a dictionary from its address (Prometheus' label `instance`) to a number.
# `stack.scale(…)` and `stack.prometheus.query(…)` are what you need; `http_requests_total` counts, with the labels
# `instance` and `route`.
#
# *The check* calls your function on a stack with one replica, and compares with what each replica says itself.

# %% tags=["stub", "ex-three-replicas"]
spread = lab.TODO
lab.check("three-replicas", spread)

# %% tags=["answer", "ex-three-replicas", "nbval-ignore-output"]
def spread(stack: stacks.Stack, requests: int) -> dict[str, float]:
    stack.scale("inference", 3)
    counter = 'sum by (instance) (http_requests_total{job="inference", route="/predict"})'
    before = stack.prometheus.query(counter)
    known = dict(zip(before.get("instance", []), before.get("value", [])))
    total = sum(known.values())
    for _ in range(requests):
        exercises.ask(stack)
    stack.prometheus.wait_for(f"sum({counter}) >= {total + requests}")
    after = stack.prometheus.query(counter)
    return {row.instance: row.value - known.get(row.instance, 0) for row in after.itertuples()}

lab.check("three-replicas", spread)

# %% tags=["wrong", "ex-three-replicas"]
# refused: and 3 were asked for
def spread(stack: stacks.Stack, requests: int) -> dict[str, float]:
    for _ in range(requests):
        exercises.ask(stack)
    return {"all": requests}

lab.check("three-replicas", spread)

# %% tags=["wrong", "ex-three-replicas"]
# refused: replicas say themselves
def spread(stack: stacks.Stack, requests: int) -> dict[str, float]:
    stack.scale("inference", 3)
    for _ in range(requests):
        exercises.ask(stack)
    targets = stack.prometheus.targets()
    return {instance: requests / 3 for instance in targets[targets["job"] == "inference"]["instance"]}

lab.check("three-replicas", spread)

# %% tags=["wrong", "ex-three-replicas"]
# refused: a function
lab.check("three-replicas", {"a": 1})

# %% [markdown]
# ### A replica dies
#
# Now three replicas answer, and one of them is killed in the middle of the load, as the kernel does it when memory runs out.
# How many requests are lost?
#
# nginx asks Docker's DNS for the replicas' addresses each second, notices a dead one within half a second, and asks the next.
# It may do so even for a `POST`, because an inference *changes nothing*: computing it twice costs time and does no harm. (For a
# bank transfer, that setting would be a disaster.) A **stream** that has begun can't be moved; it would be cut.

# %% tags=["nbval-ignore-output"]
stack.scale("inference", 3)
with exercises.load(stack, chat, rate=load_rate) as load:
    load.run_for(2)
    killed = stack.crash("inference")
    load.run_for(load_seconds + 2)
lab.table([load.row()])
print(f"{killed} was killed after 2 s; {len(load.lost)} of {len(load.sent)} requests were lost.")

# %% tags=["nbval-ignore-output"]
lab.figure("replica-killed", bench.plot_load(load, {"a replica is killed": 2}), "Each request's time to its answer, while a replica is killed")

# %% [markdown]
# ### Exercise: an answer cache
#
# Half of a helpdesk's questions are the same ten. The RAG service can keep its answers in **Redis**, a store in memory: it
# does so when `CACHE_URL` names one. **Write an override** `compose.cache.yaml` that adds the service `cache` to the stack and
# tells `rag` of it. The image is `${CACHE_IMAGE}`. A guest in this house has manners: a health check, a memory limit, no
# port to the world, only the network it needs, and `rag` waits until it is well.
#
# *The check* lays your file over the stack, asks the same question twice, and looks for the hit in Prometheus and for the
# answer in Redis; then it stops Redis, and wants an answer all the same.

# %% tags=["stub", "ex-answer-cache", "nbval-ignore-output"]
lab.files("answer-cache")
lab.check("answer-cache")

# %% tags=["answer", "ex-answer-cache", "nbval-ignore-output"]
lab.files("answer-cache", instead="solutions/4.4.2/answer-cache/answer")
lab.check("answer-cache")

# %% [markdown]
# ## Break it on purpose
#
# You know a stack when you have seen it sick. Three accidents; for each one: what do the users notice, what does `docker
# compose ps` say, which alert comes, and what does its runbook want?
#
# **The database is gone.**

# %% tags=["nbval-ignore-output"]
stack.stop("chroma")
print(exercises.what_users_see(stack))
alert = stacks.wait_firing(stack, "VectorDatabaseDown")
print(f"\n{alert.name} ({alert.severity}): {alert.summary}")
lab.table([{"service": one.service, "state": one.words()} for one in stack.states() if not one.well])
lab.show_file(alert.runbook)

# %% [markdown]
# The service says which part is missing (*503, and try again later*) instead of hanging or inventing. `rag` calls itself
# unhealthy, too, because it can't do its work; but restarting it would mend nothing, and Compose rightly does not. Look at
# what the others wait for. The runbook's advice, then:

# %% tags=["nbval-ignore-output"]
stack.start("chroma")
stacks.wait_resolved(stack, "VectorDatabaseDown")
stack.rag.answer("What is a bind mount?").show()

# %% [markdown]
# **The wrong network.** Somebody "tidied up" and took `rag` out of `back`. The database is well, `rag` is well, and they
# can't find each other:

# %% tags=["nbval-ignore-output"]
stacks.wait_resolved(stack, "RagDependencyDown")
with exercises.disconnected(stack, "rag", "back"):
    print(exercises.what_users_see(stack))
    alert = stacks.wait_firing(stack, "RagDependencyDown")
    print(f"\n{alert.name} ({alert.severity}): {alert.summary}")
    print("\n".join(line[:200] for line in stack.logs("rag", 3).splitlines()))
lab.show_file(alert.runbook)

# %% [markdown]
# The users see the same as before, and the alert is another one: `VectorDatabaseDown` is silent, for the database *is* well. The
# runbook sends you to the networks. The end of the cell has put `rag` back where it belongs:

# %% tags=["nbval-ignore-output"]
stack.wait_healthy()
stacks.wait_resolved(stack, "RagDependencyDown")
print(exercises.what_users_see(stack))

# %% [markdown]
# **Extension: a queue that fills.** Somebody sets a container's CPU limit by guess: a tenth of one. Nothing fails. But now each answer
# takes a slot for longer; more users than slots, and they wait. What a server does then is a choice: wait without end, or say
# *429, come back later* while it still can. Ours has a limit (`MAX_QUEUE`).

# %% tags=["nbval-ignore-output"]
stack.scale("inference", 1)
long = {"model": "tutor", "messages": [{"role": "user", "content": "Tell me about volumes."}], "max_tokens": 400}
flood = exercises.flood(stack, long)
lab.table(flood)

# %% [markdown]
# A flood of some seconds makes no alert: `QueueFilling` wants ten of them, so that nobody is woken for a burst. This is what it would
# tell you:

# %% tags=["nbval-ignore-output"]
lab.show_file(lab.path("docker/stack/runbooks/QueueFilling.md"))

# %% [markdown]
# ### Exercise: an alert of your own (extension)
#
# Two replicas are the least this service may run with; below that, one crash is an outage. **Write an alert** `TooFewReplicas`
# that fires when fewer than two replicas of `inference` are up for some seconds, and resolves when there are two again.
# Careful: what does your expression give when *none* is left? An alert that falls silent when everything is dead is a smoke
# detector that burns first.
#
# *The check* plays it through in `promtool`, Prometheus' rule tester: two replicas, one, none, two again. Then it does so for
# real: two replicas start, one goes, and the alert has to fire and to reach Alertmanager; two again, and it has to resolve.

# %% tags=["stub", "ex-replica-alert", "nbval-ignore-output"]
lab.files("replica-alert")
lab.check("replica-alert")

# %% tags=["answer", "ex-replica-alert", "nbval-ignore-output"]
lab.files("replica-alert", instead="solutions/4.4.2/replica-alert/answer")
lab.check("replica-alert")

# %% [markdown]
# ### Exercise: in a terminal
#
# Up to now helpers typed for you. **Open a terminal** (in JupyterLab: File, New, Terminal), go to the checkout's folder, and
# do with the stack that runs here what the table says.
#
# *The check* looks at the running stack and reads the backup.

# %% tags=["stub", "ex-in-a-terminal", "nbval-ignore-output"]
task = exercises.terminal_task()
lab.check("in-a-terminal")

# %% tags=["answer", "ex-in-a-terminal", "nbval-ignore-output"]
task = exercises.terminal_task()
shell.run(["sh", "solutions/4.4.2/in-a-terminal/answer.sh", task.env_file, task.backup], cwd=task.folder)
lab.check("in-a-terminal")

# %% tags=["wrong", "ex-in-a-terminal"]
# refused: replicas of inference run
task = exercises.terminal_task()
shell.run(["sh", "solutions/4.4.2/in-a-terminal/only-backup.sh", task.env_file, task.backup], cwd=task.folder)
lab.check("in-a-terminal")

# %% tags=["wrong", "ex-in-a-terminal"]
# refused: no readable backup
task = exercises.terminal_task()
shell.run(["sh", "solutions/4.4.2/in-a-terminal/empty-file.sh", task.env_file, task.backup], cwd=task.folder)
lab.check("in-a-terminal")

# %% [markdown]
# ### What you take with you: your own Compose file
#
# An empty page, and what is wanted in its comments. **Write the Compose file you would sign**: model server, vector database
# and RAG service, with all of the above. Once it passes, it stands in the run's report with its start time and its latency.
#
# *The check* reads the merged configuration, starts it, stores documents, asks, tries to reach the database from the model
# server, kills the RAG service and waits for it to come back, takes all down and up, and asks again.

# %% tags=["stub", "ex-own-stack", "nbval-ignore-output"]
lab.files("own-stack")
lab.check("own-stack")

# %% tags=["answer", "ex-own-stack", "nbval-ignore-output"]
lab.files("own-stack", instead="solutions/4.4.2/own-stack/answer")
lab.check("own-stack")

# %% [markdown]
# ## Where you are
#
# You started an application with one command, separated what must not meet, saw it survive a crash without losing a request,
# and learned of its troubles before the users did. All on one machine. The next labs take the same image where machines are
# rented (4.4.3, 4.4.4), and to a cluster of them (4.4.5).
#
# The stack goes when this notebook's kernel ends (File, Shut Down Kernel). Its images stay, so that the next start is quick.

# %% tags=["nbval-ignore-output"]
lab.progress()
