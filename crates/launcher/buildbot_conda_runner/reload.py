"""What a reload of Buildbot leaves as it was, without a word: put into effect here, or refused before anything is touched.

In Buildbot 4.3 and before:

- a worker that has not changed is not configured anew, and goes on at the port where it was; a protocol that was taken
  away is served on (buildbot.worker.manager, `WorkerRegistration.update`);
- a certificate is read when a port is opened, and never again;
- a web site is made once, with what only its making looks at (buildbot.www.service, `setupSite`);
- a change of `c['mq']` or `c['db']` is found out when everything else is in effect already, if at all: `reconfig` compares
  the type of `c['mq']` with itself;
- secrets in files are read once, and what uses them is not configured anew when they change.
"""

import os
import re

from twisted.application import strports
from twisted.internet import defer, endpoints, reactor

from . import siblings
from .reasons import error_text
from .tls import expiry

# Of c['www']: what only the making of a site looks at.
OF_SITE = ("change_hook_auth", "logfileName", "logRotateLength", "maxRotatedFiles")
# Where a port names files, as in Twisted's own descriptions, and the name that stands for none.
FILES = re.compile(r"\b(?:privateKey|certKey|extraCertChain|dhParameters)=((?:[^:\\]|\\.)*)")
DEFAULT_FILE = "server.pem"


def refusals(old, new):
    """What of a new configuration only a new process can put into effect, as texts; runs in a thread."""
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
            # Connections go on; who comes at this moment is refused and comes again.
            yield dispatcher.port.stopListening()
            dispatcher.port = yield strports.listen(dispatcher.portstr, dispatcher.serverFactory)
    return fresh


@defer.inlineCallbacks
def close_ports(master):
    """Before workers have others: two descriptions may be of one port. Connections go on."""
    for listener in (master.workers.pb, getattr(master.workers, "msgpack", None)):
        for name in list(getattr(listener, "_registrations", ())):
            yield listener.updateRegistration(name, None, None)


def credential(error):
    """What to do about a credential of systemd that is not there, as the beginning of a sentence, or nothing."""
    directory, path = os.environ.get("CREDENTIALS_DIRECTORY"), getattr(error, "filename", None)
    if not isinstance(error, FileNotFoundError) or not directory or not str(path).startswith(os.path.join(directory, "")):
        return ""
    return "the credential `%s` needs a restart: " % os.path.relpath(path, directory)
