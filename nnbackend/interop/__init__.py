"""The edges to other libraries, one module each; a module imports its library only when a function needs it."""
