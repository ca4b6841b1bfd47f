"""Versions of the program: which machines work together, and restarting into another one."""
