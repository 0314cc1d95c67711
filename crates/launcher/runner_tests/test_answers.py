"""The REST API of a master that this runs."""

import json
import urllib.request

# Every write to a request notes whether the reactor's thread does it.
WATCHED = """
import threading
from twisted.web.http import Request

write = Request.write

def watched(self, data):
    with open("writes", "a") as file:
        print(threading.current_thread() is threading.main_thread(), file=file)
    return write(self, data)

Request.write = watched
c['builders'] += [
    util.BuilderConfig('n%d' % number, workernames=['w1'], description='x' * 999, factory=util.BuildFactory())
    for number in range(200)
]
c['schedulers'].append(schedulers.ForceScheduler('more', builderNames=['n%d' % number for number in range(200)]))
"""


def test_answers_are_whole_and_written_by_the_reactor(python, make):
    master = make.master(python)
    configuration = master.directory / "master.cfg"
    configuration.write_text(configuration.read_text() + WATCHED)
    master.start().ready()
    url = "http://127.0.0.1:%d/api/v2/builders" % master.www
    for accepted in ("application/json", "text/plain"):
        request = urllib.request.Request(url, headers={"Accept": accepted})
        with urllib.request.urlopen(request, timeout=180) as answer:
            data = answer.read()
            assert int(answer.headers.get("Content-Length") or len(data)) == len(data)
        assert len(data) > 1 << 16
        names = [builder["name"] for builder in json.loads(data)["builders"]]
        assert sorted(names) == sorted(["b1"] + ["n%d" % number for number in range(200)])
    writes = (master.directory / "writes").read_text().split()
    assert set(writes) == {"True"}
    assert master.stop() == 0
