#!/bin/sh
# A wrong answer: a healthy ticket router with all the right options, and nobody built an image for it.
set -eu
container=$1 base=$3

docker rm --force "$container" > /dev/null 2>&1 || true
docker run --detach --name "$container" --publish 127.0.0.1::8080 --memory 256m --restart on-failure \
    --volume "$PWD/labs/starters/4.4.1/service:/srv:ro" --env MODEL_PATH=/tmp/model.json \
    --health-cmd 'python3 -c "from urllib.request import urlopen; urlopen(\"http://127.0.0.1:8080/healthz\")"' --health-interval 1s \
    "$base" sh -c 'python3 /srv/train.py --out=/tmp/model.json --longest=4 --smoothing=0.1 && exec python3 /srv/service.py'

tries=0
until [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || exit 1
    sleep 0.5
done
