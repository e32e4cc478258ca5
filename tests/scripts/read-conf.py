"""Prints a device.conf as JSON, parsed in the simple way of a Python loader."""
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    lines = [line.rstrip("\n") for line in file]
print(json.dumps(dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))))
