"""The fault suite: what is broken on purpose, and the promise held against it."""
