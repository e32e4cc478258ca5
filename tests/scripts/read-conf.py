"""Prints a device.conf as JSON, read the simple way that a loader in Python would."""
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    lines = [line.rstrip("\n") for line in file]
print(json.dumps(dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))))
