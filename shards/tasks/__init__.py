"""The Invoke tasks: thin, they read flags, call the code below and print what it gives."""
