# forgets to scale
set -eu
kubectl --namespace="$1" rollout undo deployment/helpdesk --to-revision=1
kubectl --namespace="$1" annotate --overwrite deployment/helpdesk incident="$2"
