"""Ask a master on this host for the result of a build.

Run by `python -c` as the service user, in the activated environment: NUMBER BUILDER ENDPOINT...
NUMBER and BUILDER may be empty; an ENDPOINT is a configured port of `www`. One JSON object is written
to stdout. Nothing is changed. Works with Buildbot 2.10 to 4.x.
"""

import http.client
import json
import socket
import ssl
import sys
import urllib.parse

FAILURE, EXCEPTION = 2, 4
# Seconds for one answer.
PATIENCE = 20
# Lines of a log that are asked for, and of those the ones that are answered; bytes of a line.
ASKED, ANSWERED, LONGEST = 400, 40, 500


class Refused(Exception):
    pass


class Unix(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def connection(endpoint):
    """To where Twisted listens that has this description."""
    from twisted.internet import endpoints

    if endpoint.isdigit():
        endpoint = "tcp:" + endpoint
    words, named = endpoints._parse(endpoint)
    kind = words[0].lower()
    place = words[1] if len(words) > 1 else named.get("address" if kind == "unix" else "port")
    if kind == "unix":
        return Unix(place)
    host = named.get("interface") or ""
    if host in ("", "0.0.0.0"):
        host = "127.0.0.1"
    elif host == "::":
        host = "::1"
    if kind in ("ssl", "tls"):
        # On this host, to a port of the master's own.
        context = ssl._create_unverified_context()
        return http.client.HTTPSConnection(host, int(place), timeout=PATIENCE, context=context)
    return http.client.HTTPConnection(host, int(place), timeout=PATIENCE)


def connected(places):
    failure = "it serves no web pages, so its API is unavailable"
    for place in places:
        try:
            found = connection(place)
            found.connect()
            return found
        except (OSError, ValueError, IndexError, TypeError) as error:
            failure = "no server at `%s`: %s" % (place, error)
    raise Refused(failure)


class Api:
    def __init__(self, connection):
        self.connection = connection

    def get(self, path, *query):
        path = "/api/v2/" + path
        if query:
            path += "?" + urllib.parse.urlencode(query)
        self.connection.request("GET", path, headers={"Accept": "application/json", "Host": "localhost"})
        response = self.connection.getresponse()
        text = response.read()
        if response.status != 200:
            raise Refused("the answer to `%s` is %d %s" % (path, response.status, response.reason))
        return json.loads(text.decode("utf-8"))


def find(api, number, builder):
    """The last build that failed, or else the last; or the youngest with a number."""
    wish = [("order", "-buildid"), ("limit", 1)]
    path = "builds"
    if builder:
        found = api.get("builders", ("name", builder))["builders"]
        if not found:
            raise Refused("builder `%s` not found" % builder)
        path = "builders/%d/builds" % found[0]["builderid"]
    if number:
        wishes = [[("number", number)]]
    else:
        wishes = [[("complete", "true"), ("results", FAILURE), ("results", EXCEPTION)], [("complete", "true")]]
    for more in wishes:
        builds = api.get(path, *(more + wish))["builds"]
        if builds:
            return builds[0]
    raise Refused("build %s not found" % number if number else "no build has finished yet")


def end_of(api, log):
    """The last lines of a log, without the lines about the command and its environment that precede its output."""
    first = max(0, log["num_lines"] - ASKED)
    if not log["num_lines"]:
        return []
    chunk = api.get("logs/%d/contents" % log["logid"], ("offset", first), ("limit", ASKED))["logchunks"]
    chunk = chunk[0] if isinstance(chunk, list) else chunk
    lines = chunk["content"].splitlines()
    if log["type"] == "s":
        spoken = [line[1:] for line in lines if line[:1] in ("o", "e")]
        headers = [line[1:] for line in lines if line[:1] == "h"]
        lines = spoken + headers[-2:] if spoken else headers
    return [line[:LONGEST] for line in lines[-ANSWERED:]]


def answer(api, number, builder):
    build = find(api, number, builder)
    steps = api.get("builds/%d/steps" % build["buildid"])["steps"]
    properties = api.get("builds/%d/properties" % build["buildid"])["properties"][0]
    failed = [step for step in steps if step["results"] in (FAILURE, EXCEPTION)]
    log = None
    for step in failed[:1]:
        logs = api.get("steps/%d/logs" % step["stepid"])["logs"]
        # What Buildbot itself has to report of an exception comes before the output of a command.
        logs.sort(key=lambda log: (not log["name"].startswith("err"), log["name"] != "stdio"))
        for found in logs[:1]:
            log = {"step": step["name"], "name": found["name"], "lines": end_of(api, found)}
    return {
        "builder": api.get("builders/%d" % build["builderid"])["builders"][0]["name"],
        "builder_number": build["builderid"],
        "number": build["number"],
        "results": build["results"],
        "state": build["state_string"],
        "completed": build["complete_at"],
        "properties": {
            name: str(properties[name][0])
            for name in ("workername", "branch", "got_revision", "revision")
            if name in properties and properties[name][0]
        },
        "steps": [
            {"number": step["number"], "name": step["name"], "results": step["results"], "state": step["state_string"]}
            for step in steps
            if not step.get("hidden")
        ],
        "log": log,
    }


def main():
    number, builder = sys.argv[1:3]
    try:
        result = answer(Api(connected(sys.argv[3:])), number, builder)
    except Refused as refusal:
        result = {"refusal": str(refusal)}
    except (OSError, http.client.HTTPException, ValueError, KeyError, IndexError) as error:
        result = {"refusal": "unexpected answer: %s: %s" % (type(error).__name__, error)}
    sys.stdout.write(json.dumps(result))


main()
