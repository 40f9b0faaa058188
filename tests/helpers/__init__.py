"""Fixtures, oracles and builders that several test files share."""
