
# Docker inside (NDDT_DOCKER_FORWARD): the end of the stage `tools`, in images that are to have it.
# A daemon that needs no privilege, and the client; or, for the engine outside, the client alone.
ARG DOCKER_FORWARD
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    set -- docker-buildx docker-cli docker-compose; \
    if [ "$DOCKER_FORWARD" = isolated ]; then \
        set -- "$@" docker.io fuse-overlayfs iptables libcap2-bin rootlesskit slirp4netns uidmap; \
    fi; \
    apt-get update -q; \
    apt-get install -qy --no-install-recommends "$@"; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin; \
    if [ "$DOCKER_FORWARD" = isolated ]; then \
        echo "$USER_ID:100000:65536" | tee /etc/subuid > /etc/subgid; \
        # As a root without CAP_SYS_ADMIN they could not write another user's map.
        chmod u-s /usr/bin/newuidmap /usr/bin/newgidmap; \
        setcap cap_setuid+ep /usr/bin/newuidmap; \
        setcap cap_setgid+ep /usr/bin/newgidmap; \
        # A volume that is mounted here belongs to the user as this directory does.
        data=$(getent passwd "$USER_ID" | cut -d: -f6)/.local/share/docker; \
        install -d -o "$USER_ID" -g "$GROUP_ID" "${data%/*/*}" "${data%/*}" "$data"; \
        ln -s /tmp/nddt/docker/docker.sock /run/docker.sock; \
    fi

