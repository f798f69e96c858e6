"""Kernels in C++, built on this machine when they are first used."""
