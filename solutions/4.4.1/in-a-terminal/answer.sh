#!/bin/sh
# What one types for the exercise in-a-terminal. Run in the checkout's folder: answer.sh CONTAINER IMAGE BASE_IMAGE
set -eu
container=$1 image=$2 base=$3

docker build --file solutions/4.4.1/dead-model/answer/Dockerfile --build-arg "BASE_IMAGE=$base" --tag "$image" labs/starters/4.4.1/service
docker rm --force "$container" > /dev/null 2>&1 || true
docker run --detach --name "$container" --publish 127.0.0.1::8080 --memory 256m --restart on-failure "$image"

# A person would look at `docker ps` until it says healthy.
tries=0
until [ "$(docker inspect --format '{{.State.Health.Status}}' "$container")" = healthy ]; do
    tries=$((tries + 1))
    [ "$tries" -lt 60 ] || exit 1
    sleep 0.5
done
docker port "$container"
