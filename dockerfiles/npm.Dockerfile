ARG AGENT_PACKAGE
ARG AGENT_VERSION
ARG AGENT_PROGRAM
RUN set -eu; \
    export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt; \
    npm install --global --no-fund --no-audit "$AGENT_PACKAGE@$AGENT_VERSION"; \
    rm -rf /root/.npm /usr/local/lib/node_modules/"$AGENT_PACKAGE"/node_modules/*/*-musl; \
    "$AGENT_PROGRAM" --version
