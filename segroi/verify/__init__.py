"""Checks that anybody can run against an installed segroi: ``python -m segroi.verify --help``."""
