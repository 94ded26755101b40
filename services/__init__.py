"""The five services of the mesh and the words they share. See docs/architecture.md for the life of a request."""
