"""Fault runs on real processes: soak, kills, churn, a store that fails. `python -m load_tests.survival --help`."""
