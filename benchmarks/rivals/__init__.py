"""Other projects' decoders, each asked in its best form, timed in turns with ours on one checkpoint and one catalog."""
