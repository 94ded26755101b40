"""The audit log: every model call and every operator's act, in a chain that shows what was changed (docs/audit.md)."""
