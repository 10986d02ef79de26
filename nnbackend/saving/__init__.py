"""Save networks and training runs: descriptions in JSON, arrays in safetensors."""
