#!/bin/sh
# A wrong answer: without an address in front, a port is published to the whole network.
set -eu
container=$1 image=$2 base=$3

docker build --file solutions/4.4.1/dead-model/answer/Dockerfile --build-arg "BASE_IMAGE=$base" --tag "$image" labs/starters/4.4.1/service
docker rm --force "$container" > /dev/null 2>&1 || true
docker run --detach --name "$container" --publish 8080 --memory 256m --restart on-failure "$image"
