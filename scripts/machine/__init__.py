"""One door to each thing of this machine."""
