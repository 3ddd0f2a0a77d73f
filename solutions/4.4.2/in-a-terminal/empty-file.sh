# a file of the right name, with nothing in it
set -eu
docker compose --env-file "$1" up --detach --no-recreate --scale inference=2
docker compose --env-file "$1" run --rm --entrypoint sh backup -c ": > /backups/$2"
