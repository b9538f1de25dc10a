"""The commands of `atspeed`, one a module; each is light to import, so that `--help` answers at once."""
