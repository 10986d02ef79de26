"""Connections to other libraries, one module each; a module imports its library only when it is needed."""
