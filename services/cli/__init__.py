"""The command line: `expertmesh …`. Thin commands over the services; only ray_session.py knows Ray."""


class StartFailed(Exception):
    """The mesh could not be brought up although the settings are right; the logs say why and are kept."""
