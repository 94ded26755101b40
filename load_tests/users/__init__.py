"""Simulated users, by protocol."""
