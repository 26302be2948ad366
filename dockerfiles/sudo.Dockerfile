
# sudo (NDDT_SUDO): the end of the image. Nobody is in the sandbox whom a password could stop.
USER root
RUN set -eu; \
    export DEBIAN_FRONTEND=noninteractive; \
    apt-get update -q; \
    apt-get install -qy --no-install-recommends sudo; \
    rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin; \
    printf '%s\n' "#$USER_ID ALL=(ALL:ALL) NOPASSWD:SETENV: ALL" \
        'Defaults env_keep += "*_proxy *_PROXY"' > /etc/sudoers.d/nddt; \
    chmod 440 /etc/sudoers.d/nddt; \
    visudo --check --quiet
USER ${USER_ID}:${GROUP_ID}
