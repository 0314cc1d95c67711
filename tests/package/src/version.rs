//! Other versions of the package under test, for upgrades and downgrades.

use crate::DebianRoot;

/// A version before every other.
pub const OLD: &str = "0.0.1";

/// Makes, in the root, a package of version [`OLD`] out of the one under test, and gives its path. It has another text
/// in a document and in the conffile, and a file that the version under test has not.
#[track_caller]
pub fn old_version(root: &DebianRoot) -> &'static str {
    root.must(&format!(
        "cd /root
         dpkg-deb --raw-extract /buildbot-conda.deb old
         sed -i 's/^Version: .*/Version: {OLD}/' old/DEBIAN/control
         echo 'an older text' >old/usr/share/doc/buildbot-conda/README.Debian
         echo '# an older text' >old/etc/needrestart/conf.d/buildbot-conda.conf
         echo 'no longer shipped' >old/usr/share/buildbot-conda/old
         dpkg-deb --root-owner-group -Znone --build old
         rm -r old"
    ));
    "/root/old.deb"
}
