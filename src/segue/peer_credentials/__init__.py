"""Which user of this machine is at the other end of a TCP connection, where the platform tells it."""
