"""Our load generator beside tsung, a tool that others wrote: do the same sockets and rates reach the server?"""
