"""The digital twin: the mesh's pure cores on a virtual clock, in one process, by seed."""
