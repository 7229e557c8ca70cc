"""How many connections may wait until a replica accepts them; the kernel allows no more than `somaxconn`."""

BACKLOG = 4096
