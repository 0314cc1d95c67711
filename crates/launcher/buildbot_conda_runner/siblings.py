"""Reconfigures services of a master that a reload ignores although they have changed.

Buildbot compares each service with its first configuration, not with the current one (buildbot.util.service,
`reconfigServiceWithSibling`): a change that is reverted stays in effect. A secret may also have another value under the
same name, which Buildbot does not compare.
"""

from twisted.internet import defer

# Secrets are read before anything that uses them is configured.
FIRST = 2000


def mend():
    """Once, before a reload."""
    from buildbot.util import service

    kind = service.BuildbotService
    original = kind.reconfigServiceWithSibling
    if hasattr(original, "mended"):
        return

    @defer.inlineCallbacks
    def changed(self, sibling):
        try:
            result = yield original(self, sibling)
        except Exception:
            self.configured = False  # half, perhaps: the next reload does not pass over it
            raise
        self._config_args, self._config_kwargs = sibling._config_args, sibling._config_kwargs
        return result

    changed.mended = True
    kind.reconfigServiceWithSibling = changed


def renew_secrets(master, old, new):
    """Read secrets in files again, and reconfigure the services that use secrets if one has changed."""
    master.secrets_manager.reconfig_priority = FIRST
    has_changed = old.secretsProviders != new.secretsProviders
    for provider in list(master.secrets_manager):
        before = getattr(provider, "secrets", None)
        if isinstance(before, dict):
            provider.reconfigService(*provider._config_args, **provider._config_kwargs)
            has_changed = has_changed or provider.secrets != before
    if not has_changed:
        return
    for manager in (master.workers, master.service_manager, master.change_svc):
        for service in manager:
            if uses_secrets([getattr(service, "_config_args", ()), getattr(service, "_config_kwargs", {})]):
                service.configured = False


def uses_secrets(value):
    """Whether a secret is among the arguments of a service."""
    if isinstance(value, dict):
        return any(map(uses_secrets, value.values()))
    if isinstance(value, (list, tuple)):
        return any(map(uses_secrets, value))
    return type(value).__name__ == "Secret" or "%(secret:" in str(getattr(value, "fmtstring", ""))
