# $1: the namespace; $2: the incident. KUBECONFIG says which cluster.
set -eu
kubectl --namespace="$1" get pods
kubectl --namespace="$1" rollout history deployment/helpdesk
kubectl --namespace="$1" rollout undo deployment/helpdesk --to-revision=1
kubectl --namespace="$1" scale deployment/helpdesk --replicas=2
kubectl --namespace="$1" annotate --overwrite deployment/helpdesk incident="$2"
kubectl --namespace="$1" rollout status deployment/helpdesk --timeout=90s
