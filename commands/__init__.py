"""What may be asked: a command and its handler side by side, one file an area. As pure as the domain."""
