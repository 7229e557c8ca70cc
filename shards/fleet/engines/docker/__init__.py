"""The docker engine: the same parts as the local one, each in a container.

`stack` says which containers there are (pure), `compose` writes them as a Compose file (pure), `files` are those they
mount, `images` builds what they run, `containers` makes and removes them, `figures` measures them, `engine` is the
contract.
"""
