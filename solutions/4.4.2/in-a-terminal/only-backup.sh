# forgets to scale
set -eu
docker compose --env-file "$1" up --detach --no-recreate --scale inference=1
docker compose --env-file "$1" run --rm backup backup "/backups/$2"
