//! Where an account's own files may be: in a path that only root and that account can change. Any other owner of a
//! directory in the path could replace the account's `buildbot.tac`, which the account would then run.

use std::path::Path;

use anyhow::bail;
use buildbot_conda_core::names::Role;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_host::trusted::{Reason, Trust};

use super::accounts::{self, User};
use super::context::Context;

/// Root, the account, and a group without other members. If the account does not exist yet, only root.
pub(crate) fn trust(user: Option<&User>) -> anyhow::Result<Trust> {
    let of_root = Trust::of_root(None);
    let Some(user) = user else {
        return Ok(of_root);
    };
    let own_group = accounts::is_alone_in_group(user)?.then_some(user.gid);
    Ok(of_root.and_account(user.uid, own_group))
}

/// Refuses an instance whose directory, or one above it, belongs to another account. For a directory that does not
/// exist yet, the existing parents are checked.
pub(crate) fn ensure(instance: &Instance, context: &Context) -> anyhow::Result<()> {
    let Some(seen) = distrust(instance, context)? else {
        return Ok(());
    };
    let user = instance.user.as_str();
    bail!(
        "{seen}\nhint: choose a directory that belongs to `{user}` or root, as well as every directory above it"
    )
}

/// Which other account could replace the instance's directory.
pub(crate) fn distrust(instance: &Instance, context: &Context) -> anyhow::Result<Option<String>> {
    if context.is_elsewhere() {
        return Ok(None);
    }
    let account = accounts::account_of(instance, context);
    let directory = instance.directory.as_str();
    let mut trust = trust(account.as_ref())?;
    if instance.reference.role == Role::Worker {
        // A worker runs what a master tells it to, so the master's account is already trusted.
        for master in masters(context)? {
            trust = trust.and_account(master.uid, None);
        }
    }
    let Err(untrusted) = trust.find(Path::new(directory)) else {
        return Ok(None);
    };
    let (at, user) = (untrusted.at.display(), instance.user.as_str());
    let reason = match untrusted.reason {
        Reason::Owner(owner) => format!("is owned by user {owner}, not by `{user}` or root"),
        Reason::Mode(mode) => {
            format!("is writable by accounts other than `{user}` and root (mode {mode:04o})")
        }
        Reason::System(_) => return Ok(None),
    };
    Ok(Some(format!(
        "`{at}` {reason}: whoever can write there controls what runs as `{user}` in `{directory}`"
    )))
}

/// The accounts of the masters of this host.
fn masters(context: &Context) -> anyhow::Result<Vec<User>> {
    // A configuration that cannot be read names none.
    let Ok(settings) = context.settings() else {
        return Ok(Vec::new());
    };
    let masters = settings
        .instances()
        .filter(|instance| instance.reference.role == Role::Master);
    let found = masters.map(|master| accounts::find(master.user.as_str(), context));
    Ok(found
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, chown};

    use buildbot_conda_core::settings::Settings;

    use super::*;

    #[test]
    fn nobody_else_may_own_or_write_a_directory_on_the_way() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let host = tempfile::tempdir().unwrap();
        let (above, directory) = (host.path().join("a"), host.path().join("a/master"));
        fs::create_dir_all(&directory).unwrap();
        fs::set_permissions(host.path(), Permissions::from_mode(0o755)).unwrap();
        let reason = |path: &Path| {
            let text = format!("[master]\nuser = \"nobody\"\ndirectory = {path:?}\n");
            let settings = Settings::parse("c", text.as_bytes());
            let instance = settings.instances().next().unwrap();
            let reason = distrust(instance, &Context::default()).unwrap();
            reason.map(|reason| reason.replace(host.path().to_str().unwrap(), ""))
        };
        let nobody = accounts::find_user("nobody").unwrap().uid;
        chown(&directory, Some(nobody), None).unwrap();
        assert_eq!(reason(&directory), None);
        assert_eq!(reason(&directory.join("not/there")), None);
        chown(&above, Some(1001), None).unwrap();
        let expected = "`/a` is owned by user 1001, not by `nobody` or root: whoever can write \
                        there controls what runs as `nobody` in `/a/master`";
        assert_eq!(reason(&directory).unwrap(), expected);
        assert!(reason(&above.join("not/there")).is_some());
        chown(&above, Some(0), None).unwrap();
        for (mode, is_good) in [
            (0o775, false),
            (0o777, false),
            (0o1777, true),
            (0o755, true),
        ] {
            fs::set_permissions(&above, Permissions::from_mode(mode)).unwrap();
            assert_eq!(reason(&directory).is_none(), is_good, "{mode:o}");
        }
        fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
        assert!(
            reason(&directory)
                .unwrap()
                .starts_with("`/a/master` is writable by accounts other than")
        );
    }
}
