"""The ``segroi`` command."""
