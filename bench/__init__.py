"""This project beside its peers: ``python -m bench``, or ``nox -s bench``. See README.md here."""
