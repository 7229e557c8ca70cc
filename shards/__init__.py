"""Django Channels WebSockets on N replicas per color, a group router in Redis, and cutovers nobody notices."""
