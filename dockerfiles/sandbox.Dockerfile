# The sandbox, for every provider. It builds from this text alone, with BuildKit and with the
# classic builder: no COPY, no heredoc, no --mount. Everything comes from apt and npm.
ARG BASE_IMAGE=debian:trixie-slim
FROM ${BASE_IMAGE} AS tools
USER root

# What the build machine knows about its network: base64 of PEM certificates, mirror URLs.
ARG CA_CERTS=""
ARG APT_MIRROR=""
ARG NPM_REGISTRY=""
ARG PIP_INDEX_URL=""
RUN set -eu; \
    certs=/usr/local/share/ca-certificates; mkdir -p "$certs"; \
    printf %s "$CA_CERTS" | base64 -d \
        | awk -v d="$certs" '/BEGIN CERT/ {n++} n {print > (d "/nddt-" n ".crt")}'; \
    if [ -n "$CA_CERTS" ]; then \
        cat "$certs"/nddt-*.crt > /tmp/ca.pem; \
        echo 'Acquire::https::CAInfo "/tmp/ca.pem";' > /etc/apt/apt.conf.d/99nddt; \
    fi; \
    if [ -n "$APT_MIRROR" ]; then \
        find /etc/apt -name '*.list' -o -name '*.sources' | xargs -r sed -Ei \
            "s#https?://[^ ]*/debian/?( |\$)#$APT_MIRROR\\1#"; \
    fi; \
    if [ -n "$NPM_REGISTRY" ]; then \
        mkdir -p /usr/local/etc; echo "registry=$NPM_REGISTRY" > /usr/local/etc/npmrc; \
    fi; \
    if [ -n "$PIP_INDEX_URL" ]; then \
        printf '[global]\nindex-url = %s\n' "$PIP_INDEX_URL" > /etc/pip.conf; \
    fi; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update -q; \
    apt-get install -qy --no-install-recommends \
        bash bubblewrap build-essential ca-certificates curl fd-find file gh git git-lfs gnupg \
        iproute2 jq less make nano ncurses-term openssh-client openssh-server \
        patch procps python3 python3-pip python3-venv ripgrep rsync socat tini tmux tree unzip \
        vim-tiny wget xz-utils zip; \
    rm -rf /etc/apt/apt.conf.d/99nddt /tmp/ca.pem /etc/ssh/ssh_host_*; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin; \
    update-ca-certificates; \
    mkdir -p /run/sshd

# Debian's npm brings the wanted Node and its npm, then goes.
ARG NODE_VERSION=22
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt; \
    export NODE_EXTRA_CA_CERTS=$SSL_CERT_FILE npm_config_registry="$NPM_REGISTRY"; \
    [ -n "$NPM_REGISTRY" ] || unset npm_config_registry; \
    apt-get update -q; \
    apt-get install -qy --no-install-recommends npm; \
    npm install --global --no-fund --no-audit --prefix /usr/local \
        "node@$NODE_VERSION" npm@10; \
    apt-get purge -qy --auto-remove npm nodejs; \
    rm -rf /root/.npm /var/lib/apt/lists/* /var/cache/apt/*.bin; \
    hash -r; node --version; npm --version

# The user inside is the caller, so files in the workspace belong to the caller outside.
ARG USER_ID=1000
ARG GROUP_ID=1000
RUN set -eu; \
    if [ "$USER_ID" = 0 ]; then \
        usermod --password '*' --shell /bin/bash root; \
        # Another name for it, so that ssh to any sandbox has one.
        useradd --non-unique --uid 0 --gid 0 --no-log-init --password '*' \
            --home-dir /root --no-create-home --shell /bin/bash nddt; \
    else \
        getent group "$GROUP_ID" || groupadd --gid "$GROUP_ID" nddt; \
        sed -i "/^[^:]*:[^:]*:$USER_ID:/d" /etc/passwd; \
        useradd --no-log-init --uid "$USER_ID" --gid "$GROUP_ID" --password '*' \
            --home-dir /home/nddt --create-home --shell /bin/bash nddt; \
    fi; \
    mkdir -p /workspace; \
    chown "$USER_ID:$GROUP_ID" /workspace

FROM tools AS agent
ARG USER_ID=1000
ARG GROUP_ID=1000
ENV DISABLE_AUTOUPDATER=1
WORKDIR /workspace
USER ${USER_ID}:${GROUP_ID}
# Conversations of this machine are mounted here, in directories that belong to the user.
ARG AGENT_CONVERSATIONS
RUN umask 077; mkdir -p -- "$HOME/$AGENT_CONVERSATIONS"
