"""Changes that a reload of Buildbot silently ignores: they are applied here, or refused before anything is changed.

Up to Buildbot 4.3:

- a worker that has not changed is not reconfigured, and keeps its old port; a protocol that was removed is still served
  (buildbot.worker.manager, `WorkerRegistration.update`);
- a certificate is read when a port is opened, and never again;
- a web site is created once, with settings that are only read at that moment (buildbot.www.service, `setupSite`);
- a change of `c['mq']` or `c['db']` is detected after everything else is in effect, if at all: `reconfig` compares the
  type of `c['mq']` with itself;
- secrets in files are read once, and services that use them are not reconfigured when they change.
"""

import os
import re

from twisted.application import strports
from twisted.internet import defer, endpoints, reactor

from . import siblings
from .reasons import error_text
from .tls import expiry

# Keys of c['www'] that are only read when a site is created.
OF_SITE = ("change_hook_auth", "logfileName", "logRotateLength", "maxRotatedFiles")
# Where a port refers to files, in Twisted's own descriptions, and the name that means none.
FILES = re.compile(r"\b(?:privateKey|certKey|extraCertChain|dhParameters)=((?:[^:\\]|\\.)*)")
DEFAULT_FILE = "server.pem"


def refusals(old, new):
    """The parts of a new configuration that only a new process can apply, as texts; runs in a thread."""
    found = [restart("c['db']")] if database(old) != database(new) else []
    if queue(old) != queue(new):
        found.append(restart("c['mq']"))
    if old.www.get("cookie_expiration_time") and not new.www.get("cookie_expiration_time"):
        found.append(restart("c['www']['cookie_expiration_time']"))
    before = dict(ports(old))
    for key, port in ports(new):
        if port != before.get(key) or port.startswith("ssl:"):
            try:
                endpoints.serverFromString(reactor, port)
            except Exception as error:
                found.append("%s: the port `%s` cannot be opened: %s" % (key, port, error_text(error)))
    return found


def restart(key):
    return "%s has changed, which needs a restart of the master" % key


def database(config):
    """What of c['db'] can be compared; a URL that is computed is compared by Buildbot, once it is."""
    found = config.db if isinstance(config.db, dict) else vars(config.db)
    return {key: value for key, value in found.items() if isinstance(value, (str, int, dict, type(None)))}


def queue(config):
    return {key: value for key, value in config.mq.items() if key != "debug"}


def ports(config):
    """(key, description for Twisted) of the ports that Buildbot's managers and web server open."""
    for name, options in config.protocols.items():
        if name == "pb" and options.get("port") is not None:
            yield "c['protocols']['pb']['port']", described(options["port"])
    if config.www.get("port"):
        yield "c['www']['port']", described(config.www["port"])


def described(port):
    return "tcp:%s" % port if ":" not in str(port) else port


def stamp(port):
    """What changes with the files that the description of a port names; None where it names none."""
    if not port.startswith("ssl:"):
        return None
    names = [re.sub(r"\\(.)", r"\1", name) for name in FILES.findall(port)]
    found = []
    for name in names if "privateKey=" in port else [*names, DEFAULT_FILE]:
        with open(name, "rb") as file:
            found.append(file.read())
    return found


def stamps(config):
    """What changes with the certificates of a configuration: description -> content of files."""
    return {port: stamp(port) for _, port in ports(config)}


def expiries(config, read):
    """When the certificate of each port expires: a list for `status.json`; `read` is what `stamps` gave."""
    from OpenSSL import crypto

    found = []
    for key, port in ports(config):
        ends = []
        for data in read.get(port) or ():
            try:
                ends.append(expiry(crypto.load_certificate(crypto.FILETYPE_PEM, data)))
            except crypto.Error:  # a key alone
                continue
        if ends:
            found.append({"port": key, "expires": min(ends)})
    return found


@defer.inlineCallbacks
def apply(master, reconfigure, old, new, read):
    """Put `new` into effect by `reconfigure`, Buildbot's own way; `read` is what the certificates were at the last time.

    Returns what they are now.
    """
    siblings.mend()
    siblings.renew_secrets(master, old, new)
    fresh = stamps(new)
    renewed = {port for port, found in fresh.items() if found != read.get(port, found)}
    if old.protocols != new.protocols:
        yield close_ports(master)
    site = master.www
    if any(old.www.get(key) != new.www.get(key) for key in OF_SITE):
        site.site, site.reconfigurableResources, site.port = None, [], object()
    if new.www.get("port") and described(new.www["port"]) in renewed:
        site.port = object()  # another than any that is asked for
    try:
        yield reconfigure(new)
    finally:
        for registration in list(master.workers.registrations.values()):
            yield registration.update(registration.worker, new)
    for dispatcher in list(master.pbmanager.dispatchers.values()):
        if dispatcher.portstr in renewed:
            # Connections continue; new ones are refused at this moment and retried.
            yield dispatcher.port.stopListening()
            dispatcher.port = yield strports.listen(dispatcher.portstr, dispatcher.serverFactory)
    return fresh


@defer.inlineCallbacks
def close_ports(master):
    """Before workers get another port: two descriptions may be of one port. Connections continue."""
    for listener in (master.workers.pb, getattr(master.workers, "msgpack", None)):
        for name in list(getattr(listener, "_registrations", ())):
            yield listener.updateRegistration(name, None, None)


def credential(error):
    """What to do about a credential of systemd that is not there, as the beginning of a sentence, or nothing."""
    directory, path = os.environ.get("CREDENTIALS_DIRECTORY"), getattr(error, "filename", None)
    if not isinstance(error, FileNotFoundError) or not directory or not str(path).startswith(os.path.join(directory, "")):
        return ""
    return "the credential `%s` needs a restart: " % os.path.relpath(path, directory)
