"""The swarm engine: the same parts on many hosts, each a service of Docker Swarm that is pinned to a node.

`nodes` says which part goes where (pure), `stack` what each service is (pure), `render` writes them as a stack file
(pure), `services` makes and removes them, `stock` brings images to the nodes, `daemons` and `reach` open their daemons,
`ssh` leads to those that are only reached so, `engine` is the contract.
"""
