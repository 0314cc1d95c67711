"""TLS between worker and master: it works, or the worker reports why it does not."""

import time

import pytest

from certificates import Authority, trust
from instances import free_port, wait_until

# What is wrong -> (certificate, text on the status line).
FAULTS = {
    "authority": ({}, "its certificate is signed by `Test authority`, which is not an authority that this worker trusts"),
    "name": ({"names": "DNS:ci.example.org,IP:192.0.2.7"}, "its certificate is for `ci.example.org`, `192.0.2.7`, not for"),
    "expired": ({"days": -1}, "its certificate expired on 20"),
}


def serve(make, python, protocol, **configuration):
    """A master whose port for workers is as described."""
    return make.master(python, extra="\nc['protocols'] = {'pb': {'port': %r}}\n" % protocol, **configuration)


@pytest.mark.parametrize("fault", FAULTS)
def test_certificate_that_is_not_accepted_is_on_the_status_line_and_in_the_journal(python, make, tmp_path, fault):
    certificate, words = FAULTS[fault]
    authority, port = Authority(tmp_path / "own"), free_port()
    master = serve(make, python, authority.port(port, **certificate)).start().ready()
    other = Authority(tmp_path / "other", "Another") if fault == "authority" else authority
    worker = trust(make.worker(python, master), other.roots, port).start(journal=True).ready()
    worker.wait_status("^does not trust localhost:%d: %s" % (port, words), patience=15)
    status = worker.status_file()["worker"]
    assert (status["connection"], status["refusal"], status["pending"]) == ("refused", "tls", False)
    certificates = worker.status_file()["certificates"]
    if fault == "expired":
        assert [one["expires"] < time.time() for one in certificates if not one["authority"]] == [True]
    else:
        assert fault == "name" or not certificates, "nothing is known of a stranger"
    worker.journal.catch_up()
    entries = [entry for entry in worker.entries() if words in entry["MESSAGE"]]
    assert len(entries) == 1 and entries[0]["PRIORITY"] == "4", worker.entries()
    # The connection is retried, and a correction is noticed.
    (tmp_path / "good").mkdir()
    assert master.stop() == 0
    authority.certificate()
    if fault == "authority":
        (other.roots / "second.pem").write_text(authority.file.read_text())
        assert worker.stop() == 0
        worker.start(journal=True)
    master.start().ready()
    worker.wait_status("^connected to localhost:%d as w1$" % port, patience=30)
    assert worker.status_file()["worker"]["refusal"] is None


def test_worker_notes_when_certificates_of_its_master_expire_and_that_they_were_renewed(python, make, tmp_path):
    authority, port = Authority(tmp_path / "own"), free_port()
    master = serve(make, python, authority.port(port, seconds=30)).start().ready()
    worker = trust(make.worker(python, master), authority.roots, port).start()
    worker.attached()

    def certificates():
        found = worker.status_file()["certificates"]
        assert [(one["port"], one["authority"]) for one in found] == [
            ("localhost:%d" % port, False),
            ("localhost:%d" % port, True),
        ]
        return [(one["expires"] - time.time()) / 86400 for one in found]

    own, of_authority = certificates()
    assert own < 1 and 8.9 < of_authority < 9
    # It is renewed while the worker is connected, and stays so.
    authority.certificate(days=5)
    master.signal(1)
    wait_until(lambda: certificates()[0] > 4, worker.describe, 60)
    assert "lost" not in " ".join(worker.statuses()), worker.describe()
    assert worker.stop() == 0 and master.stop() == 0


def test_port_without_tls_is_told_from_one_with_it(python, make, tmp_path):
    authority = Authority(tmp_path / "own")
    master = make.master(python).start().ready()
    worker = trust(make.worker(python, master), authority.roots, master.pb).start().ready()
    worker.wait_status(r"^localhost:%d does not speak TLS \(wrong version number\)$" % master.pb, patience=15)
    assert worker.status_file()["worker"]["refusal"] == "tls"
    assert worker.stop() == 0 and master.stop() == 0
    # And the other way round: both wait for the other to speak.
    port = free_port()
    master = make(python, "master", name="master@tls").configure()
    with open(master.directory / "master.cfg", "a") as configuration:
        configuration.write("\nc['protocols'] = {'pb': {'port': %r}}\n" % authority.port(port))
    master.start().ready()
    plain = make(python, "worker", name="worker@plain")
    tac = plain.directory / "buildbot.tac"
    tac.write_text(tac.read_text().replace("port = 9989", "port = %d" % port))
    plain.start().wait_status("no answer to the login from [^ ]+ for [0-9]+ s: is it a port for workers, without TLS", 15)


# A Python that has the package, which must appear to be missing in the environment.
WITHOUT = "raise ModuleNotFoundError(\"No module named 'OpenSSL'\", name='OpenSSL')"


@pytest.mark.parametrize("role", ["master", "worker"])
def test_environment_without_pyopenssl_exits_78_with_the_package(python, make, tmp_path, role):
    authority, port = Authority(tmp_path / "own"), free_port()
    (tmp_path / "hiding").mkdir()
    (tmp_path / "hiding" / "OpenSSL.py").write_text(WITHOUT)
    if role == "master":
        instance = serve(make, python, authority.port(port))
    else:
        instance = trust(make.worker(python, port), authority.roots, port)
    instance.start(env={"PYTHONPATH": str(tmp_path / "hiding")})
    assert instance.wait() == 78, instance.describe()
    assert "TLS needs the package `pyopenssl`" in instance.status()
    assert "hint: install `pyopenssl` and `service_identity` into `" in instance.log()


@pytest.mark.parametrize("fault", ["missing", "damaged", "other", "unknown"])
def test_certificate_of_a_master_that_cannot_be_used_exits_78(python, make, tmp_path, fault):
    authority, port = Authority(tmp_path / "own"), free_port()
    protocol = authority.port(port)
    key = tmp_path / "own" / "master.key"
    if fault == "missing":
        key.unlink()
    elif fault == "damaged":
        key.write_text("no key")
    elif fault == "other":
        key.write_text(Authority(tmp_path / "another").key.read_text())
    else:
        protocol = "tsl" + protocol[3:]
    master = serve(make, python, protocol).start()
    assert master.wait() == 78, master.describe()
    assert ("tsl" if fault == "unknown" else str(key)) in master.status()
