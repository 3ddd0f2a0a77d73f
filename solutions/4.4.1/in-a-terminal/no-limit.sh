#!/bin/sh
# A wrong answer: nothing keeps the container from taking all of the host's memory.
set -eu
container=$1 image=$2 base=$3

docker build --file solutions/4.4.1/dead-model/answer/Dockerfile --build-arg "BASE_IMAGE=$base" --tag "$image" labs/starters/4.4.1/service
docker rm --force "$container" > /dev/null 2>&1 || true
docker run --detach --name "$container" --publish 127.0.0.1::8080 --restart on-failure "$image"
