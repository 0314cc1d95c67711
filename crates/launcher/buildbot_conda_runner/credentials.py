"""Makes credentials of systemd readable as secrets for Buildbot before 3.10.

systemd grants access with an access control list, whose mask appears as the mode of the group; these versions interpret
it as access for a group, and refuse the file (`SecretInAFile.checkFileIsReadOnly`).
"""

import os
import stat


def mend(directory):
    """Allow reading a file in systemd's directory of credentials as long as only the account has access."""
    from buildbot.secrets.providers.file import SecretInAFile

    original = getattr(SecretInAFile, "checkFileIsReadOnly", None)
    if original is None:
        return

    def check(self, dirname, secretfile):
        mode = os.stat(os.path.join(dirname, secretfile)).st_mode
        if os.path.realpath(dirname) == os.path.realpath(directory) and not stat.S_IMODE(mode) & 0o37:
            return None
        return original(self, dirname, secretfile)

    SecretInAFile.checkFileIsReadOnly = check


def is_needed(version):
    """Whether this version of Buildbot, as text, is older than 3.10; one that cannot be read is not."""
    try:
        return tuple(int(part) for part in version.split(".")[:2]) < (3, 10)
    except (AttributeError, ValueError):
        return False
