"""What works, what does not, and what to do about it: on this machine, and on the boards of a device."""
