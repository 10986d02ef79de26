"""Networks and training runs as files: descriptions in JSON, arrays in safetensors."""
