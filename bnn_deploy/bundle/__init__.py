"""The bundle: the folder that holds all of a compiled network, written as a whole and read with every byte checked."""
