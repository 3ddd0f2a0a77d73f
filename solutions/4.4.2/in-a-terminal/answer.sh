# $1: the stack's env file; $2: the name of the backup
set -eu
docker compose --env-file "$1" ps
docker compose --env-file "$1" up --detach --no-recreate --scale inference=2
docker compose --env-file "$1" run --rm backup backup "/backups/$2"
