"""Typed settings of all parts, one module a section, and the tree of errors."""
