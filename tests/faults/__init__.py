"""The fault suite. It injects faults under load and checks the guarantees of the server."""
