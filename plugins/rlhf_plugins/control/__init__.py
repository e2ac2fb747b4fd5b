"""What the plugins for control share: environments, networks, segments, pictures; and text as an environment."""
