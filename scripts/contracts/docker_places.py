"""What a provider makes for the Docker inside a sandbox: a socket, a device, a place for data."""

SOCKET = "/var/run/docker.sock"
"""Where clients in the sandbox find it; of an own daemon it is a link of the image's."""
TUN = "/dev/net/tun"
"""The device by which its containers reach a network."""


def data(home: str) -> str:
    """Name the directory in which the daemon of a sandbox's user keeps all that lasts."""
    return f"{home}/.local/share/docker"
