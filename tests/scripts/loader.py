"""Simulates the loader: reads the token cache continuously, and calls the API with each token.

    loader.py TOKEN_FILE CA_FILE

Ends when standard input is closed, and then prints a line of JSON: the number of reads, the number of tokens, and the errors.
"""
import json
import select
import ssl
import sys
import time
import urllib.request

token_file, ca_file = sys.argv[1:]
tls = ssl.create_default_context(cafile=ca_file)
boot_id = open("/proc/sys/kernel/random/boot_id").read().strip()
reads, tokens, wrong = 0, set(), []


def use(cache):
    request = urllib.request.Request(cache["api_url"] + "/users/current")
    request.add_header("Authorization", cache["token_type"] + " " + cache["access_token"])
    with urllib.request.urlopen(request, context=tls, timeout=5) as answer:
        if json.load(answer)["email"] != cache["email"]:
            wrong.append("the token is somebody else's")


while not select.select([sys.stdin], [], [], 0)[0]:
    try:
        with open(token_file) as file:
            cache = json.load(file)
        left = cache["obtained_boottime_s"] + cache["lifetime_s"] - time.clock_gettime(time.CLOCK_BOOTTIME)
        if left <= 0 or cache["boot_id"] != boot_id:
            wrong.append("the token has run out")
        if cache["access_token"] not in tokens:
            tokens.add(cache["access_token"])
            use(cache)
        reads += 1
    except Exception as error:  # whatever it is, the test has to hear of it
        wrong.append(f"{type(error).__name__}: {error}")
        break

print(json.dumps({"reads": reads, "tokens": len(tokens), "wrong": wrong[:5]}))
