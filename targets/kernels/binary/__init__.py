"""Dense and grouped binary convolutions: counting every word, carry-save chains (Arm), carry-save trees (x86-64)."""
