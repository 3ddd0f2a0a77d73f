# writes the number onto the namespace, where nobody looks for it
set -eu
kubectl --namespace="$1" rollout undo deployment/helpdesk --to-revision=1
kubectl --namespace="$1" scale deployment/helpdesk --replicas=2
kubectl annotate --overwrite namespace "$1" incident="$2"
