# Sourced by other scripts: a Docker daemon and a docker-compose, if they can be had.

# Exit status of a check that cannot be made here, as automake's tests have it.
CANNOT_RUN=77

DOCKERD_PID=
DOCKERD_LOG=

# Makes sure that a daemon answers; starts one when it is installed and nobody has. `stop_docker` ends what
# this started. Returns CANNOT_RUN, with the reason said, when there is no way.
start_docker() {
    if ! command -v docker >/dev/null; then
        echo "there is no Docker here (Debian: apt-get install docker.io docker-compose)"
        return $CANNOT_RUN
    fi
    docker version >/dev/null 2>&1 && return 0
    if [ "$(id -u)" != 0 ] || ! command -v dockerd >/dev/null; then
        echo "no Docker daemon answers, and only root can start one"
        return $CANNOT_RUN
    fi
    DOCKERD_LOG=$(mktemp /var/tmp/dockerd-log.XXXXXX)
    echo "no Docker daemon answers: starting one (log: $DOCKERD_LOG)"
    setsid dockerd >"$DOCKERD_LOG" 2>&1 &
    DOCKERD_PID=$!
    local tries
    for ((tries = 0; tries < 120; tries++)); do
        docker version >/dev/null 2>&1 && return 0
        kill -0 "$DOCKERD_PID" 2>/dev/null || break
        sleep 0.5
    done
    echo "the Docker daemon does not come up here: $(tail -1 "$DOCKERD_LOG")"
    stop_docker
    return $CANNOT_RUN
}

# Ends the daemon that start_docker started, if it did.
stop_docker() {
    [ -n "$DOCKERD_PID" ] || return 0
    kill "$DOCKERD_PID" 2>/dev/null || true
    wait "$DOCKERD_PID" 2>/dev/null || true
    DOCKERD_PID=
    rm -f "$DOCKERD_LOG"
}

# Sets COMPOSE to the command that there is.
find_compose() {
    if docker compose version >/dev/null 2>&1; then
        COMPOSE=(docker compose)
    elif command -v docker-compose >/dev/null; then
        COMPOSE=(docker-compose)
    else
        echo "there is no docker-compose here (Debian: apt-get install docker-compose)"
        return $CANNOT_RUN
    fi
}

# Makes sure that the images which IMAGE... name are there: pulled, or made here.
base_images() {
    local image
    for image in "$@"; do
        docker image inspect "$image" >/dev/null 2>&1 && continue
        echo "pulling $image"
        timeout 300 docker pull -q "$image" >/dev/null 2>&1 && continue
        echo "$image cannot be pulled: making the base images here"
        scripts/local-base-images
        return
    done
}
