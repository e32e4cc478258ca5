"""Runs a program on a terminal until it asks for a password, then types it late or sends a signal.

Prints the exit code, and whether the terminal echoes input afterwards.
"""

import os
import pty
import signal
import sys
import termios
import time

# `after-SIGNAL` types a password first, and sends the signal a moment later, while the program waits for an answer;
# `late:PASSWORD` types that password after two and a half seconds.
how, question, *arguments = sys.argv[1:]
child, master = pty.fork()
if child == 0:
    os.execv(arguments[0], arguments)
shown = b""
while question.encode() not in shown:
    shown += os.read(master, 4096)
# Echo must be off once the prompt is shown; the settings may change a moment later.
while termios.tcgetattr(master)[3] & termios.ECHO:
    pass
if how == "key":
    os.write(master, b"\x03")
elif how.startswith("late:"):
    time.sleep(2.5)
    os.write(master, how.removeprefix("late:").encode() + b"\n")
elif how.startswith("after-"):
    os.write(master, b"not-the-password\n")
    while not termios.tcgetattr(master)[3] & termios.ECHO:
        pass
    time.sleep(0.3)
    os.kill(child, getattr(signal, how.removeprefix("after-")))
else:
    os.kill(child, getattr(signal, how))
# Read the rest of its output, and query the terminal's settings before the terminal is closed.
status = None
while status is None:
    try:
        os.read(master, 4096)
    except OSError:
        pass
    done, result = os.waitpid(child, os.WNOHANG)
    status = result if done else None
echo = bool(termios.tcgetattr(master)[3] & termios.ECHO)
print(os.waitstatus_to_exitcode(status), echo)
