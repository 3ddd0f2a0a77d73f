# ---
# jupyter:
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Lab 4.4.1 · Docker: one image for a model
#
# Your model answers questions on your machine. On somebody else's it does not even start: another Python, another CUDA,
# a library that is missing. A **container image** ends that. It is the meal *and* the kitchen in one sealed box: the model,
# its libraries and the system under them travel together, and whoever opens the box gets the same dish.
#
# In two to three hours (skip what you know) you will
#
# 1. build an image for an inference server, in two stages,
# 2. read back from the Docker engine what is really in it,
# 3. see a health check notice a server that hangs,
# 4. ask the server and measure its answers,
# 5. find out what an image's size is made of,
#
# and then write a Dockerfile of your own. All seven labs deploy the image you build here.
#
# Everything in this notebook happens for real: cells start containers on your Docker engine, and each grey line that begins
# with `$` is the exact command that ran. Most can be pasted into a terminal in the course's folder;
# those with a `/tmp` folder worked on a copy that is gone. What the notebook starts is removed when
# its kernel ends, however it ends.
#
# **How to work with it.** Run the cells from top to bottom with Shift+Enter. The *steps* run as they are. The *exercises*
# between them are yours: try, run the check, read what it saw, try again. `lab.hint("name")` helps a little, and more when
# you run it again.

# %% tags=["nbval-ignore-output"]
from course_lib import bench, images, lab, shell
from course_lib.exercises import lab_4_4_1 as exercises

lab.begin("4.4.1")

# %% [markdown]
# A setting of step 6: how many requests its load test sends. Leave it for now.

# %% tags=["parameters"]
load_requests = 300

# %% [markdown]
# Some words before we start:
#
# | word | meaning |
# |---|---|
# | image | files and a few settings, stacked in layers; it does not change and does not run |
# | layer | the files that one instruction added, changed or removed |
# | container | a running process that sees an image as its disk; many can run from one image |
# | Dockerfile | the recipe of an image: `FROM` a base, `COPY` files in, `RUN` a command, `ENV` sets a variable, `USER` says as whom, `CMD` what starts |
# | build context | the folder that `COPY` reads from |
# | stage | a part of a Dockerfile that begins with `FROM`; `ARG` above the first one can be used in every `FROM` |
# | registry | a server that images are pushed to and pulled from |

# %% [markdown]
# ## 1 · A Dockerfile that extends its base
#
# Nobody builds an image from nothing. A Dockerfile's `FROM` names the image to stand on (only `ARG` may come before it), and that choice
# decides most of what follows: how large the result is, which CUDA it has, how often it needs a security update.
#
# | base | choose it when |
# |---|---|
# | Python slim | the model runs on a CPU, or brings its own runtime, as ours does (ONNX Runtime) |
# | CUDA runtime | you need CUDA's libraries, and install the framework yourself |
# | NVIDIA NGC PyTorch | you train or serve with PyTorch on NVIDIA GPUs, a DGX Spark among them: NVIDIA built torch, CUDA, cuDNN and NCCL to fit each other |
#
# One Dockerfile serves both worlds, because the base is a build argument. Which ones can *this* machine have? Sizes are
# read from your engine; what is not here is not guessed.

# %% tags=["nbval-ignore-output"]
lab.table(images.base_choices())

# %% [markdown]
# Here is the Dockerfile. Read the comments: each instruction says why it is there. Do you see the two `FROM`s? We come back
# to them in step 3.

# %%
lab.show_file("docker/inference-server/Dockerfile")

# %% [markdown]
# Now build it. The first time takes a minute or two; later builds reuse each layer whose inputs have not changed.
#
# The step then reads back from the engine that the new image's lowest layers *are* the base's layers. An image does not
# copy its base, it continues it.

# %% tags=["step-4.4.1.1", "nbval-ignore-output"]
with lab.step("4.4.1.1"):
    bases = images.ensure_bases()
    image = images.build_inference_image().reference
    images.extends(image, bases.runtime)

print(f"{image} stands on {bases.runtime}: {bases.why}.")

# %% [markdown]
# The tag has a version and the git revision in it, never `latest`. In three weeks, when something breaks, you will want to
# know *which* latest. (`-dirty` at its end means that a file of this checkout differs from that revision: yours, perhaps.)

# %% [markdown]
# ## Your turn: a service with every flaw an image can have
#
# Between the steps you work. The patient is a small **ticket router**: it reads a learner's question and says whether it is
# about Docker, Compose, Kubernetes, a cloud or a demo. It is a few files of plain Python in
# `labs/starters/4.4.1/service` (have a look), so nothing has to be downloaded, and every flaw is in its Dockerfile.
#
# `lab.files("…")` copies a Dockerfile to `work/4.4.1/…`: open it there in JupyterLab's file browser, change it, save,
# and run the cell again. `lab.check("…")` builds and starts what you wrote and looks at the engine. `lab.hint("…")`
# gives a hint, and a longer one each time you ask. Skip what you like: the notebook goes on.
#
# The starters stand on `BASE_IMAGE` and `BUILDER_IMAGE`, which the checks pass as build arguments. To build by hand, pass
# them yourself; these are this machine's:

# %% tags=["nbval-ignore-output"]
lab.table([{"build argument": "BASE_IMAGE", "here": bases.runtime}, {"build argument": "BUILDER_IMAGE", "here": bases.builder}])

# %% [markdown]
# ### Exercise: layer order
#
# Somebody changes one character of `service.py` and waits until the model has been trained again. It is like cooking
# the stock anew because the salt was forgotten. **Mend the order** of the Dockerfile so that a change of `service.py`
# leaves the training in the cache.
#
# *The check* builds, changes `service.py` in a copy, builds again and asks BuildKit whether the training came from the
# cache. It shows how long a rebuild took before and takes now.

# %% tags=["stub", "ex-layer-order"]
lab.files("layer-order")
lab.check("layer-order")

# %% tags=["answer", "ex-layer-order", "nbval-ignore-output"]
lab.files("layer-order", instead="solutions/4.4.1/layer-order/answer")
lab.check("layer-order")

# %% [markdown]
# ## 2 · The model's dependencies, locked
#
# `pip install fastapi` gives you today's FastAPI. Tomorrow's build gives you tomorrow's. A **lock file** names each package
# with its version *and the hash of the file*, so the image you build next month is the one you tested.
#
# Here are the first packages of our lock. Each has one hash per platform, because one lock serves your laptop and an arm64
# DGX Spark alike.

# %%
lab.show_file("docker/inference-server/requirements.txt", last=12)

# %% [markdown]
# Trust, but read back: which packages does the image's own Python find, and do they fit each other? `pip check` answers the
# second question. Our image has no pip (why would a server need an installer?), so the helper copies one in beside it.

# %% tags=["step-4.4.1.2", "nbval-ignore-output"]
with lab.step("4.4.1.2"):
    packages = images.require_locked(image, images.LOCK, bases.runtime)
    images.pip_check(image, bases.runtime)

lab.table([{"package": name, "version": version} for name, version in sorted(packages.items())])

# %% [markdown]
# On NGC's image the same Dockerfile takes one more care. NGC brings hundreds of packages that were compiled to fit each
# other; a newer numpy on top could break its torch. `keep_base_packages.py` therefore leaves out of the lock whatever the
# base already has, unless that is too old for the server. Your packages move in; the landlord's furniture stays.

# %% [markdown]
# ## 3 · Two stages: build here, run there
#
# To *build* a Python environment you want compilers, headers, an installer and its cache. To *run* it you want none of them:
# they make the image larger, and each is a tool for whoever breaks in. A kitchen is not delivered with the scaffolding it was
# built from.
#
# The first `FROM … AS builder` starts a stage with everything. The second starts again, from a slim base, and copies only the
# finished environment across. The builder stage never leaves your machine.
#
# This step builds the first stage by itself, so that you can see what stays behind, then reads the final image's file
# system, file by file, for compilers, caches and headers.

# %% tags=["step-4.4.1.3", "nbval-ignore-output"]
with lab.step("4.4.1.3"):
    builder = images.build_builder_stage().reference
    images.require_stages(builder, image, bases.runtime)
    images.require_nothing_left_of_the_build(image, bases.runtime)

stages = {"builder": builder, "runtime": image}
lab.table([{"stage": name, "MB": f"{images.size(reference) / 1e6:,.0f}"} for name, reference in stages.items()])

# %% [markdown]
# What would a single stage have shipped? The builder stage still has it all:

# %% tags=["nbval-ignore-output"]
lab.table([{"left over": what, "for example": path} for what, path in images.build_leftovers(builder).items()])

# %% [markdown]
# ### Exercise: a small image
#
# This image holds compilers, headers and the training data: over a gigabyte that is pushed, stored, pulled and searched
# for vulnerabilities, for three small files that run. One does not deliver a house with the crane. **Write two stages**:
# train on `BUILDER_IMAGE`, run on `BASE_IMAGE`.
#
# *The check* builds both and wants yours at 40 % of the size or less, without build tools or training data in any layer,
# and with right answers.

# %% tags=["stub", "ex-small-image"]
lab.files("small-image")
lab.check("small-image")

# %% tags=["answer", "ex-small-image", "nbval-ignore-output"]
lab.files("small-image", instead="solutions/4.4.1/small-image/answer")
lab.check("small-image")

# %% [markdown]
# ## 4 · GPU support
#
# A container sees no GPU unless it is given one. `docker run --gpus all` asks for it; the NVIDIA Container Toolkit on the host
# then puts the devices and the driver's libraries into the container. Three versions have to agree:
#
# * the **driver** is the host's, and never in the image;
# * the **CUDA** version is the image's, and needs a driver that is new enough for it;
# * the GPU's **compute capability** (a DGX Spark's GB10 has 12.1) needs a CUDA that knows it.
#
# `make doctor` compares the three on a GPU host.
#
# This step creates a container with the request, reads the request back from the engine, and starts it. With a GPU, a small
# program inside uses CUDA: it fills some of the device's memory and reads it back, because a GPU that `nvidia-smi` lists can
# still be one that programs can't use. Without a GPU the engine has to *refuse*: a container that asked for a GPU and silently ran
# without it would be the slowest bug of your year. Either way, the server then answers on the device this machine has.

# %% tags=["step-4.4.1.4", "nbval-ignore-output"]
with lab.step("4.4.1.4"):
    gpu = images.request_gpus(image)
    with images.running(image, "device", options=gpu.options) as container:
        container.wait_healthy()
        images.InferenceServer(container.url).require_right(images.samples(10))

print("CUDA computed inside the container, on:" if gpu.used else "No GPU here. The engine refused, and the CPU took over:")
print(gpu.said)

# %% [markdown]
# ## 5 · A health check that notices
#
# "The process runs" and "the model answers" are different sentences. A server can hang in a deadlock for a week and look
# fine to `docker ps`. The `HEALTHCHECK` instruction gives Docker a question to ask from inside the container, again and
# again. Ours asks with Python, because a slim image has no `curl`, a trap that has marked many healthy containers unhealthy.
#
# Let us be unkind. We start the server, wait until it is *healthy*, and freeze it from outside with a signal, as if it hung.
# Nothing in the server helps us here: there is no route that makes it play dead. (We only make Docker ask more often than
# every five seconds, so that you don't wait.)

# %% tags=["step-4.4.1.5", "nbval-ignore-output"]
with lab.step("4.4.1.5"), images.running(image, "health", options=images.ASK_EVERY_SECOND) as container:
    container.wait_healthy()
    container.signal("STOP")
    container.wait_unhealthy()
    print("Docker noticed. The probe said:", container.last_probe())
    container.signal("CONT")
    container.wait_healthy(again=True)
    print("Thawed, and healthy again.")

# %% [markdown]
# Docker only *tells*. Acting on it is the job of an orchestrator: Compose waits for healthy services (lab 4.4.2), Kubernetes
# restarts and stops sending traffic (lab 4.4.5).

# %% [markdown]
# ### Exercise: a dead model
#
# The model lives in a process of its own. When the kernel kills it for its memory, HTTP still listens, every question
# fails, and `docker ps` says *healthy*: a shop with the lights on and nobody in. **Write a HEALTHCHECK** that notices.
#
# *The check* waits for *healthy*, kills the model's process from outside, and wants *unhealthy* within seconds.

# %% tags=["stub", "ex-dead-model"]
lab.files("dead-model")
lab.check("dead-model")

# %% tags=["answer", "ex-dead-model", "nbval-ignore-output"]
lab.files("dead-model", instead="solutions/4.4.1/dead-model/answer")
lab.check("dead-model")

# %% [markdown]
# ### Exercise: least privilege
#
# Whoever breaks into this service is root, and can change its code. Many clusters refuse to start such a container.
# **Make it run** without root, without capabilities, and on a file system that can't be written to.
#
# *The check* starts it with `--read-only --cap-drop=ALL --security-opt=no-new-privileges --tmpfs=/tmp`, reads the uid of
# its process from inside, and asks it. It also builds it on a base where uid 1000 is somebody already, as on Ubuntu's.

# %% tags=["stub", "ex-least-privilege"]
lab.files("least-privilege")
lab.check("least-privilege")

# %% tags=["answer", "ex-least-privilege", "nbval-ignore-output"]
lab.files("least-privilege", instead="solutions/4.4.1/least-privilege/answer")
lab.check("least-privilege")

# %% [markdown]
# ## 6 · Build, run, ask
#
# Now the whole way in one go: build (watch how much comes from the cache), run, ask.
#
# Two small models are inside, so that nothing has to be downloaded. *digits* reads hand-written digits. The *tutor* is a
# language model of a few million parameters that learned a glossary of this course: a stand-in for the model you will bring,
# which it does not pretend to be. Ask it about layers, not about life.
#
# The step compares the server's predictions with labels it has never seen, checks that the container really runs this image
# (a tag can move, an id can't), and asks the tutor.

# %% tags=["step-4.4.1.6", "nbval-ignore-output"]
with lab.step("4.4.1.6"):
    image = images.build_inference_image().reference
    with images.running(image, "ask") as container:
        container.wait_healthy()
        images.require_runs(container, image)
        server = images.InferenceServer(container.url)
        asked = server.require_right(images.samples(20))
        answer = server.chat("What is an image layer?", about="layer")
        request = server.digit_request(images.samples(1)[0])
        latencies = bench.measure(container.url, "/predict", request, requests=load_requests)

print(f"{asked.right} of {asked.total} digits right, by version {asked.version}.\n\nWhat is an image layer?\n{answer}")

# %% [markdown]
# One answer's latency says little; the slow ones are what users remember. That is why people speak of **p99**: 99 of 100
# requests were at least this fast.

# %% tags=["nbval-ignore-output"]
lab.figure("latency", bench.plot_latencies(latencies, "/predict"), "How long the server took to answer, from four clients at once")

# %% [markdown]
# Will this image start everywhere? It is built for one platform. A DGX Spark is arm64, most cloud GPU machines are amd64, and
# the wrong one fails only when it starts, with `exec format error`. So look before you push:

# %% tags=["nbval-ignore-output"]
lab.table(images.where_it_starts(image))

# %% [markdown]
# ### Exercise: a leaked secret
#
# `exercises.leak()` builds an image with the Dockerfile shown below. A token was needed while building, and its file was
# deleted afterwards. Layers are sheets laid on a pile: covering a page does not tear it out. **Find the token** (each
# session of this notebook has another one) and give it as a string.
#
# *The check* compares it with the fingerprint of what was baked in.

# %% tags=["stub", "ex-leaked-secret", "nbval-ignore-output"]
lab.show_file("labs/starters/4.4.1/leaked-secret/Dockerfile")
leaky = exercises.leak()
token = lab.TODO
lab.check("leaked-secret", token)

# %% tags=["answer", "ex-leaked-secret", "nbval-ignore-output"]
lab.show_file("labs/starters/4.4.1/leaked-secret/Dockerfile")
leaky = exercises.leak()
found = {path: content for _, held in images.layer_files(leaky) for path, content in held.items() if path.endswith("/.env")}
token = found["/srv/.env"].decode().strip().removeprefix("ROUTER_TOKEN=")
lab.check("leaked-secret", token)

# %% tags=["wrong", "ex-leaked-secret"]
# refused: is the name of what holds the token
leaky = exercises.leak()
lab.check("leaked-secret", "/srv/.env")

# %% tags=["wrong", "ex-leaked-secret"]
# refused: has the right form, and is not what is in
leaky = exercises.leak()
lab.check("leaked-secret", "tkt_000000000000000000000000")

# %% tags=["wrong", "ex-leaked-secret"]
# refused: is not the token
leaky = exercises.leak()
lab.check("leaked-secret", images.image_id(leaky))

# %% [markdown]
# ### Exercise: pin by digest
#
# `router:stable` is one image today and another tomorrow: a tag is a name on a door, and people move. A digest is a
# fingerprint. **Write a function** `pin(registry_address, name)` that asks for the image which `name` (such as
# `router:stable`) means now in the registry at `registry_address` (such as `127.0.0.1:49153`), and returns a reference
# that will always mean this very image. `shell.run([...]).output` runs a command and gives what it printed.
#
# *The check* starts a registry, pushes an image, calls your function, moves the tag to another image, and pulls your
# reference. The image is in the registry alone: what isn't pulled can't be inspected here.

# %% tags=["stub", "ex-pin-by-digest"]
pin = lab.TODO
lab.check("pin-by-digest", pin)

# %% tags=["answer", "ex-pin-by-digest", "nbval-ignore-output"]
def pin(registry_address: str, name: str) -> str:
    tag = f"{registry_address}/{name}"
    shell.run(["docker", "pull", "--quiet", tag])
    known = shell.run(["docker", "image", "inspect", "--format={{join .RepoDigests \" \"}}", tag]).output.split()
    return next(reference for reference in known if reference.startswith(registry_address))

lab.check("pin-by-digest", pin)

# %% tags=["wrong", "ex-pin-by-digest"]
# refused: means another image
def pin(registry_address: str, name: str) -> str:
    return f"{registry_address}/{name}"

lab.check("pin-by-digest", pin)

# %% tags=["wrong", "ex-pin-by-digest"]
# refused: as soon as somebody pushes to that tag
def pin(registry_address: str, name: str) -> str:
    frozen = f"{registry_address}/{name.partition(':')[0]}:frozen"
    shell.run(["docker", "pull", "--quiet", f"{registry_address}/{name}"])
    shell.run(["docker", "tag", f"{registry_address}/{name}", frozen])
    shell.run(["docker", "push", "--quiet", frozen])
    return frozen

lab.check("pin-by-digest", pin)

# %% tags=["wrong", "ex-pin-by-digest"]
# refused: can't be pulled
def pin(registry_address: str, name: str) -> str:
    shell.run(["docker", "pull", "--quiet", f"{registry_address}/{name}"])
    layer = shell.run(["docker", "image", "inspect", "--format={{index .RootFS.Layers 0}}", f"{registry_address}/{name}"]).output
    return f"{registry_address}/{name.partition(':')[0]}@{layer}"

lab.check("pin-by-digest", pin)

# %% tags=["wrong", "ex-pin-by-digest"]
# refused: No such image
def pin(registry_address: str, name: str) -> str:
    tag = f"{registry_address}/{name}"
    return shell.run(["docker", "image", "inspect", "--format={{index .RepoDigests 0}}", tag]).output

lab.check("pin-by-digest", pin)

# %% tags=["wrong", "ex-pin-by-digest"]
# refused: expected: a function
lab.check("pin-by-digest", "router@sha256:0123")

# %% [markdown]
# ## 7 · What the size is made of
#
# Size is download time on every new node, storage in every registry, and surface for every scanner. The largest share of it
# is usually an accident. Here is the Dockerfile that one writes first, with the same server and the same lock:

# %%
lab.show_file("docker/inference-server/naive.Dockerfile")

# %% [markdown]
# Nothing was added to make it look bad: it stands on the full Python image, as most tutorials do, and copies its folder. The
# step builds it, reads both images' layers from the engine, and puts them side by side.

# %% tags=["step-4.4.1.7", "nbval-ignore-output"]
with lab.step("4.4.1.7"):
    naive = images.build_naive_image().reference
    comparison = images.compare(naive, image)

lab.figure("layers", bench.plot_layers(comparison), "The layers of the naive and of the optimised image, to scale")

# %% [markdown]
# Which instructions does the optimised image still spend its megabytes on? Start at the top when you want it smaller:

# %% tags=["nbval-ignore-output"]
lab.table(comparison.rows("after"))

# %% [markdown]
# Fewer packages also mean fewer that can have a hole in them. What does each image carry? A scanner (trivy or grype) is asked
# if one is on this machine; without one the table says so rather than nothing.

# %% tags=["nbval-ignore-output"]
lab.table(images.software_table(naive, image))

# %% [markdown]
# And where does the naive one spend its megabytes?

# %% tags=["nbval-ignore-output"]
lab.table(comparison.rows("before")[:8])

# %% [markdown]
# ### Exercise: mounted weights
#
# Weights are often gigabytes and change on another day than the code. Baked in, one image is all you need; mounted, new
# weights need no new image: a record player and its records. **Make a variant** that holds no weights and reads them
# from a volume at `/models`.
#
# *The check* builds and runs both and measures size, rebuild after new weights, and time to the first answer. These
# weights are small, so the differences are, too; which of them grow with the size of a model?

# %% tags=["stub", "ex-mounted-weights"]
lab.files("mounted-weights")
lab.check("mounted-weights")

# %% tags=["answer", "ex-mounted-weights", "nbval-ignore-output"]
lab.files("mounted-weights", instead="solutions/4.4.1/mounted-weights/answer")
lab.check("mounted-weights")

# %% [markdown]
# ### Exercise: in a terminal
#
# Up to now helpers typed for you. **Open a terminal** (in JupyterLab: File, New, Terminal), go to the checkout's folder,
# build the service and start it by hand, as the table says. What you make there is removed when this notebook's session
# ends.
#
# *The check* looks for the container by its name and reads its settings from the engine, and which image it runs.

# %% tags=["stub", "ex-in-a-terminal", "nbval-ignore-output"]
task = exercises.terminal_task()
lab.check("in-a-terminal")

# %% tags=["answer", "ex-in-a-terminal", "nbval-ignore-output"]
task = exercises.terminal_task()
typed = ["solutions/4.4.1/in-a-terminal/answer.sh", task.container, task.image, task.base_image]
shell.run(["sh", *typed], cwd=task.folder)
lab.check("in-a-terminal")

# %% tags=["wrong", "ex-in-a-terminal"]
# refused: is published on
task = exercises.terminal_task()
typed = ["solutions/4.4.1/in-a-terminal/open-to-everyone.sh", task.container, task.image, task.base_image]
shell.run(["sh", *typed], cwd=task.folder)
lab.check("in-a-terminal")

# %% tags=["wrong", "ex-in-a-terminal"]
# refused: no memory limit
task = exercises.terminal_task()
typed = ["solutions/4.4.1/in-a-terminal/no-limit.sh", task.container, task.image, task.base_image]
shell.run(["sh", *typed], cwd=task.folder)
lab.check("in-a-terminal")

# %% tags=["wrong", "ex-in-a-terminal"]
# refused: that is not
task = exercises.terminal_task()
typed = ["solutions/4.4.1/in-a-terminal/never-built.sh", task.container, task.image, task.base_image]
shell.run(["sh", *typed], cwd=task.folder)
lab.check("in-a-terminal")

# %% tags=["wrong", "ex-in-a-terminal"]
# refused: the container is created
task = exercises.terminal_task()
typed = ["solutions/4.4.1/in-a-terminal/stopped.sh", task.container, task.image, task.base_image]
shell.run(["sh", *typed], cwd=task.folder)
lab.check("in-a-terminal")

# %% [markdown]
# ### What you take with you: your own Dockerfile
#
# An empty page, and the service's facts in its comments. **Write the Dockerfile you would sign**: all of the above, in
# one. Once it passes, it stands in the run's report with its size, its layers and its start time.
#
# *The check* builds it, searches every layer for build tools, training data and credentials (for these the environment and
# the history, too), starts it locked down, asks five questions that the model has never seen, kills the model, and waits
# for the health check to notice.

# %% tags=["stub", "ex-own-dockerfile"]
lab.files("own-dockerfile")
lab.check("own-dockerfile")

# %% tags=["answer", "ex-own-dockerfile", "nbval-ignore-output"]
lab.files("own-dockerfile", instead="solutions/4.4.1/own-dockerfile/answer")
lab.check("own-dockerfile")

# %% [markdown]
# ## Where you are
#
# You built an image that starts small, says who made it, admits when it is sick, and runs without rights it does not need.
# The next lab gives it company: a vector database, monitoring and a proxy, all in one Compose file.
#
# The containers of this notebook are gone already, or go when you shut its kernel down. Base images and the course's image
# stay, so that the next lab starts at once; `make clean ARGS=--all` removes them, too.

# %% tags=["nbval-ignore-output"]
lab.progress()
