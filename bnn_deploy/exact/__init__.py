"""What a compiled network computes, bit for bit, in numpy: the reference that needs no tolerance.

``docs/arithmetic.md`` says which float32 operations, in which order, a network is made of; every processor target computes
exactly these. Here they are computed a second time, from the same packed Relax, without its kernels, schedules and plan.
"""
