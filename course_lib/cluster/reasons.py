"""Why a pod does not get ready: Kubernetes' word for it, what it means, what to do, and for how long it may mend itself."""

from __future__ import annotations

import re
from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class Reason:
    """What is known of a reason."""

    what: str
    """A sentence without a full stop, about the pod or its container."""
    do: str
    patience: float = inf
    """Seconds after which waiting won't help any more; `inf` where only time can tell."""


_PULL = r"ErrImagePull|ImagePullBackOff"
#: A container that starts and ends, however Kubernetes calls the moment at which it was looked at.
_CRASH = r"CrashLoopBackOff|RunContainerError|CreateContainerError|StartError|ContainerCannotRun|Error|Completed|OOMKilled|ContainerStatusUnknown"
_LOAD = "If it was built on this machine, the nodes need a copy: `course cluster load IMAGE`"

#: (reason, message, what is known), most telling first; both are patterns, and the message may be several sources' words.
_KNOWN: tuple[tuple[str, str, Reason], ...] = (
    # The image. The kubelet tries at 0 s, about 10 s, 30 s: what fails twice is not a hiccup of the network.
    ("InvalidImageName", "", Reason("the image's name is none", "Names are lower case, as in `registry/name:tag`.", 0)),
    ("ErrImageNeverPull", "", Reason("the image is not on the node, and imagePullPolicy `Never` forbids to fetch it", f"{_LOAD}.", 0)),
    (_PULL, "no match for platform|no matching manifest|exec format", Reason("there is no image of that name for the node's processor", "Build it for that platform: `docker build --platform=linux/…`.", 15)),
    (_PULL, "no space left", Reason("the node's disk is full", "Free some on it; on this machine `docker system df` shows what holds it.", 30)),
    (_PULL, "manifest unknown|not found|does not exist", Reason("the image's registry has none of that name", f"Compare name and tag. {_LOAD}.", 15)),
    (_PULL, "denied|unauthorized|authentication required", Reason("the image's registry does not give it to the node", f"Compare the name (registries say the same of images that don't exist), or give imagePullSecrets. {_LOAD}.", 15)),
    (_PULL, "no such host|dial tcp|i/o timeout|refused|x509|EOF|TLS", Reason("the image is not on the node, and its registry can't be reached from there", f"{_LOAD}. Else compare its name, and look at the network.", 15)),
    (_PULL, "", Reason("the image is not on the node, and can't be pulled", f"Compare its name. {_LOAD}.", 15)),
    # What the container is given. The kubelet looks again every 10 to 15 s, later on a busy node: what is applied a moment later
    # comes in time.
    ("CreateContainerConfigError", "couldn't find key|non-existent config key", Reason("a ConfigMap or Secret that the container takes a variable from has no such key", "Compare `valueFrom` with `kubectl describe configmap` (or `secret`).", 45)),
    ("CreateContainerConfigError", "configmap .*not found", Reason("the container needs a ConfigMap that is not there", "Create it, or mend its name in the Deployment: `kubectl get configmaps`.", 45)),
    ("CreateContainerConfigError", "secret .*not found", Reason("the container needs a Secret that is not there", "Create it, or mend its name in the Deployment: `kubectl get secrets`.", 45)),
    ("CreateContainerConfigError", "runAsNonRoot|non-root", Reason("the image runs as root, or as a user without a number, which runAsNonRoot forbids", "Give the image a numeric USER, or the container `securityContext.runAsUser`.", 20)),
    ("CreateContainerConfigError", "", Reason("the container can't be made as the manifest says", "Kubernetes' words above name what is wrong or missing.", 20)),
    ("FailedMount", "(configmap|secret) .*not found|non-existent", Reason("a volume needs a ConfigMap or a Secret that is not there", "Create it, or mend its name under `volumes`.", 20)),
    ("FailedMount|FailedAttachVolume|FailedMapVolume", "", Reason("a volume can't be mounted", "`kubectl describe pvc` shows what the claim waits for; a volume that is read and written by one node is free only when its last pod is gone.", 90)),
    ("FailedCreatePodSandBox", "", Reason("the node can't give the pod a network or a sandbox", "Look at the node: `kubectl get pods --namespace=kube-system`, and the node's own log (`journalctl -u kubelet`).", 60)),
    # The program. A second start is quick, the third waits 10 s, the fourth 20 s: what it waits for gets its chance.
    (_CRASH, "exec format error", Reason("the program in the image is for another processor than the node's", "Build the image for the node's platform: `docker build --platform=linux/…`.", 5)),
    (_CRASH, "executable file not found|no such file or directory.*(unknown|exec|start)|(unable to start|failed to (create|start)).*no such file", Reason("the container's command is not in the image", "Compare `command` with what is in it: `docker run --rm -it --entrypoint=sh IMAGE`.", 5)),
    (_CRASH, r"(unable to start|failed to (create|start)).*permission denied", Reason("the container's command may not be executed", "Make it executable in the image (chmod +x), for the user that runs it.", 5)),
    (_CRASH, "OOMKilled", Reason("the container needs more memory than its limit, and was killed for it", "Raise resources.limits.memory, or make it need less: `kubectl top pod --containers`.", 25)),
    (_CRASH, "Liveness probe", Reason("the container's liveness probe fails, so that it is started again and again", "Compare the probe's path and port with the program's. A slow start wants a startupProbe, not a patient livenessProbe.", 25)),
    (_CRASH, "Startup probe", Reason("the container did not start within what its startup probe allows", "Raise the startupProbe's failureThreshold, or compare its path and port with the program's.", 25)),
    (_CRASH, r"(?i)read-only file system", Reason("the container writes to a place that is read-only", "Give it an emptyDir volume there.", 25)),
    (_CRASH, r"(?i)permission denied|operation not permitted", Reason("the container may not do something that it tries", "Compare the user that it runs as with the owner of what it opens; ports below 1024 want a capability.", 25)),
    (_CRASH, r"(?i)address already in use", Reason("the port that the container listens on is taken inside the pod", "Two containers of a pod share its ports.", 25)),
    (_CRASH, "exit code 0|Completed", Reason("the container's command comes to an end, and a Deployment keeps containers running", "Give it a command that stays; what ends when it is done is a Job.", 25)),
    (_CRASH, "exit code 127", Reason("the container's command was not found (exit code 127)", "Compare `command` and `args` with what is in the image.", 25)),
    (_CRASH, "", Reason("the container starts, ends, and is started again", "Its last words above say why; `kubectl logs POD --previous` has all of them.", 25)),
    # The place. Pods on their way out may make room, and so may a node that is only just starting.
    ("Unschedulable", "Insufficient nvidia.com/gpu", Reason("no node has a free GPU", "A node offers GPUs once NVIDIA's device plugin runs on it: `kubectl describe nodes` lists nvidia.com/gpu. An update with one GPU needs maxSurge 0.", 20)),
    ("Unschedulable", "node.kubernetes.io/(not-ready|unreachable|network-unavailable|uninitialized)", Reason("no node is ready for it", "`kubectl get nodes`, and `kubectl describe nodes` for the conditions.", 60)),
    ("Unschedulable", "persistentvolumeclaim .*not found", Reason("it needs a PersistentVolumeClaim that is not there", "Create it, or mend its name: `kubectl get pvc`.", 15)),
    ("Unschedulable", "unbound immediate PersistentVolumeClaims", Reason("its PersistentVolumeClaim has no volume yet", "`kubectl describe pvc` says what it waits for; a storage class may be missing.", 60)),
    ("Unschedulable", "Insufficient|Too many pods", Reason("no node has as much left as it requests", "Lower resources.requests: `kubectl describe nodes` shows what a node has (Allocatable) and what is taken.", 20)),
    ("Unschedulable", "topology spread|anti-affinity", Reason("no node is left on which it would be spread as demanded", "Take whenUnsatisfiable: ScheduleAnyway, fewer replicas, or more nodes.", 20)),
    ("Unschedulable", "affinity|node selector", Reason("no node carries the labels that it asks for", "Compare nodeSelector and affinity with `kubectl get nodes --show-labels`.", 20)),
    ("Unschedulable", "taint", Reason("each node has a taint that it does not tolerate", "`kubectl describe nodes` lists the taints: add a toleration, or uncordon the node.", 20)),
    ("Unschedulable", "free ports", Reason("its hostPort is taken on each node", "Leave hostPort out: a Service gives pods an address.", 20)),
    ("Unschedulable", "", Reason("no node takes it", "The scheduler's words above name what each node lacks.", 20)),
    ("SchedulingGated", "", Reason("its scheduling gates are not taken away", "Look at spec.schedulingGates, and at who is to remove them.")),
    # The ReplicaSet may not even make pods.
    ("FailedCreate", "exceeded quota", Reason("the namespace's quota leaves no room for its pods", "`kubectl describe quota` shows what is used; request less, or raise it.", 15)),
    ("FailedCreate", "serviceaccount .*not found|looking up service account", Reason("its ServiceAccount is not there", "Create it, or mend serviceAccountName: `kubectl get serviceaccounts`.", 10)),
    ("FailedCreate", "PodSecurity", Reason("the namespace's Pod Security level forbids such pods", "Mend the securityContext as the line above demands; the namespace's labels say which level it is.", 10)),
    ("FailedCreate", "failed calling webhook", Reason("an admission webhook does not answer", "Look at what serves it: `kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations`.", 60)),
    ("FailedCreate", "", Reason("its pods are refused", "Kubernetes' words above name who refuses them, and why.", 15)),
    # It runs, and is not ready. Slow is not failed: only an answer that no waiting will change ends the wait.
    ("Unhealthy", r"Readiness probe failed: HTTP probe failed with statuscode: (404|405|401|403)", Reason("the server does not know, or does not give, what its readiness probe asks for", "Compare the path and port of readinessProbe with what the server answers.", 20)),
    ("Unhealthy", r"Readiness probe.*(executable file not found|no such file)", Reason("the program of its readiness probe is not in the image", "Take httpGet or tcpSocket, or a program that is there.", 20)),
    ("Unhealthy", r"Readiness probe.*refused", Reason("nothing listens (yet) on the port that its readiness probe asks", "Compare the probe's port with the server's; it has to listen on 0.0.0.0, not on 127.0.0.1.")),
    ("Unhealthy", r"Readiness probe.*statuscode: 5", Reason("it runs, and says by its readiness probe that it is not ready", "Its log says what it waits for.")),
    ("Unhealthy", r"Readiness probe.*(timeout|deadline|timed out)", Reason("its readiness probe gets no answer in time", "It may be starting or overloaded: raise timeoutSeconds (1 s by default) or the CPU limit.")),
    ("Unhealthy", "Startup probe", Reason("it is not up yet, says its startup probe", "Wait; or compare the probe's path and port with the program's.")),
    ("Unhealthy", "Liveness probe", Reason("its liveness probe fails", "Compare the probe's path and port with the program's.")),
    ("Unhealthy", "", Reason("its readiness probe fails", "Compare the probe with what the program answers, and look at its log.")),
    ("Evicted", "", Reason("the node put it out, for it ran short of something", "`kubectl describe nodes` shows DiskPressure and MemoryPressure; requests protect a pod.", 60)),
    ("ProgressDeadlineExceeded", "", Reason("Kubernetes has given it up (progressDeadlineSeconds)", "Mend what the pods above say, and apply it again; `kubectl rollout undo` goes back.", 0)),
    ("Paused", "", Reason("its rollout is paused", "`kubectl rollout resume deployment/NAME`.", 0)),
)  # fmt: skip


def of(reason: str, message: str) -> Reason:
    """What is known of a reason; for one that is not known Kubernetes' own word, with endless patience.

    Args:
        reason: Kubernetes' word, as in `ImagePullBackOff`.
        message: what was said with it, by whomever: status, events, log lines.
    """
    for word, said, known in _KNOWN:
        if re.fullmatch(word, reason) and re.search(said, message, re.DOTALL):
            return known
    return Reason(reason, "`kubectl describe pod` shows all that Kubernetes knows of it.")
