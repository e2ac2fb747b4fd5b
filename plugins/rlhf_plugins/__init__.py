"""The built-in plugins, a folder a kind, registered through entry points like anyone else's."""
