//! The accounts and groups of this host: from `getent` and `id`, which use all sources of the host; below a root
//! directory, from its `passwd` and `group`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow, bail};
use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::settings::Instance;
use buildbot_conda_core::values::AccountName;

use super::context::Context;
use super::programs;

/// Exit status of `getent` for a key that the database does not have, getent(1).
const NOT_FOUND: i32 = 2;

/// An account of the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    pub(crate) name: String,
    pub(crate) uid: u32,
    /// The primary group.
    pub(crate) gid: u32,
    pub(crate) home: PathBuf,
    pub(crate) shell: String,
}

/// The account `name`; none if the host does not have it.
///
/// # Errors
///
/// If this cannot be determined, or the answer is not a line of `passwd`.
pub(crate) fn find(name: &str, context: &Context) -> anyhow::Result<Option<User>> {
    let line = entry("passwd", name, Field::Name, context)?;
    line.map(|line| {
        parse(&line)
            .with_context(|| format!("read the account `{name}`: `{}`", ForeignText::new(&line)))
    })
    .transpose()
}

/// The account `name` of this host.
///
/// # Errors
///
/// When there is none, too.
pub(crate) fn find_user(name: &str) -> anyhow::Result<User> {
    find(name, &Context::default())?.ok_or_else(|| anyhow!("account `{name}` not found"))
}

/// Makes an account of the system without a password, in the group of its name, which may be there.
pub(crate) fn create(name: &AccountName, home: &Path, comment: &str) -> anyhow::Result<()> {
    let name = name.as_str();
    let mut command = Command::new("adduser");
    command.args(["--quiet", "--system"]);
    if has_group(name, &Context::default())? {
        command.args(["--ingroup", name]);
    } else {
        command.arg("--group");
    }
    command.arg("--home").arg(home);
    command.args(["--shell", "/bin/bash", "--gecos", comment, name]);
    programs::run(command)
}

/// Whether the primary group of an account has the same name and no other members, as on Debian.
pub(crate) fn is_alone_in_group(user: &User) -> anyhow::Result<bool> {
    let number = user.gid.to_string();
    let line = entry("group", &number, Field::Number, &Context::default())?.unwrap_or_default();
    let mut fields = line.split(':');
    let is_named_so = fields.next() == Some(&user.name);
    let mut members = fields.nth(2).unwrap_or_default().split(',');
    Ok(is_named_so && members.all(|member| member.is_empty() || member == user.name))
}

/// The current account; none in a root directory, or before it is created.
pub(crate) fn account_of(instance: &Instance, context: &Context) -> Option<User> {
    if context.is_elsewhere() {
        return None;
    }
    find_user(instance.user.as_str()).ok()
}

/// The number of an account (`passwd`) or a `group` of this host, by its name or its number.
pub(crate) fn number_of(database: &str, name: &str) -> anyhow::Result<u32> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    let line = entry(database, name, Field::Name, &Context::default())?;
    let number = line.as_deref().and_then(|line| line.split(':').nth(2));
    number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("`{name}` not found in the database `{database}`"))
}

/// Whether there is such a group.
pub(crate) fn has_group(name: &str, context: &Context) -> anyhow::Result<bool> {
    Ok(entry("group", name, Field::Name, context)?.is_some())
}

/// The name of an account; none for a number without an account. Below a root directory, the caller is treated as root.
pub(crate) fn name_of_user(uid: u32, context: &Context) -> anyhow::Result<Option<String>> {
    let own = rustix::process::geteuid().as_raw();
    if uid == 0 || (context.is_elsewhere() && uid == own) {
        return Ok(Some("root".to_owned()));
    }
    named("passwd", uid, context)
}

/// The name of a group; none for a number without a group. Below a root directory, the caller is treated as root.
pub(crate) fn name_of_group(gid: u32, context: &Context) -> anyhow::Result<Option<String>> {
    let own = rustix::process::getegid().as_raw();
    if gid == 0 || (context.is_elsewhere() && gid == own) {
        return Ok(Some("root".to_owned()));
    }
    named("group", gid, context)
}

/// All groups of an account, sorted.
pub(crate) fn groups(name: &str, context: &Context) -> anyhow::Result<Vec<String>> {
    let mut groups: Vec<String> = if context.is_elsewhere() {
        let text = file("group", context)?;
        let lines = text.lines().filter(|line| {
            let members = line.rsplit(':').next().unwrap_or_default();
            members.split(',').any(|member| member == name)
        });
        let names = lines.filter_map(|line| line.split(':').next());
        names.map(str::to_owned).collect()
    } else {
        let words = ["--groups", "--name", "--", name];
        let text = answer("id", &words, |_| false)?.unwrap_or_default();
        text.split_whitespace().map(str::to_owned).collect()
    };
    groups.sort();
    groups.dedup();
    Ok(groups)
}

fn named(database: &str, number: u32, context: &Context) -> anyhow::Result<Option<String>> {
    let line = entry(database, &number.to_string(), Field::Number, context)?;
    let name = line.as_deref().and_then(|line| line.split(':').next());
    Ok(name.map(str::to_owned))
}

/// Which field of a line a key is; for both databases the same.
#[derive(Debug, Clone, Copy)]
enum Field {
    Name = 0,
    Number = 2,
}

/// The line of which this field is `key`. A key of digits alone is a number to `getent`.
fn entry(
    database: &str,
    key: &str,
    field: Field,
    context: &Context,
) -> anyhow::Result<Option<String>> {
    let text = if context.is_elsewhere() {
        file(database, context)?
    } else {
        let is_missing = |status| status == NOT_FOUND;
        answer("getent", &[database, "--", key], is_missing)?.unwrap_or_default()
    };
    // A directory service may answer with another spelling of a name, such as in lower case.
    let is_answer = !context.is_elsewhere()
        && matches!(field, Field::Name)
        && key.bytes().any(|byte| !byte.is_ascii_digit());
    let is_it = |line: &&str| is_answer || line.split(':').nth(field as usize) == Some(key);
    Ok(text.lines().find(is_it).map(str::to_owned))
}

/// The text of a database below a root directory; empty where it has none.
fn file(database: &str, context: &Context) -> anyhow::Result<String> {
    let path = context.path(&format!("/etc/{database}"));
    match fs::read(&path) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        Err(error) => Err(error).with_context(|| format!("read `{}`", path.display())),
    }
}

/// The output of a program; none if its exit status means that there is no result.
fn answer(
    program: &str,
    words: &[&str],
    is_nothing: impl Fn(i32) -> bool,
) -> anyhow::Result<Option<String>> {
    let output = Command::new(program)
        .args(words)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run `{program}`"))?;
    if output.status.code().is_some_and(is_nothing) {
        return Ok(None);
    }
    if !output.status.success() {
        bail!(
            "`{program} {}` failed: {}",
            words.join(" "),
            ForeignText::of_bytes(&output.stderr)
        );
    }
    Ok(Some(String::from_utf8_lossy(&output.stdout).into_owned()))
}

/// A line of `passwd`, passwd(5).
fn parse(line: &str) -> Option<User> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, _, uid, gid, _, home, shell] = fields[..] else {
        return None;
    };
    Some(User {
        name: name.to_owned(),
        uid: uid.parse().ok()?,
        gid: gid.parse().ok()?,
        home: PathBuf::from(home),
        shell: shell.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_and_groups_of_a_root_directory_are_those_of_its_files() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        let write = |name: &str, text: &str| fs::write(root.path().join(name), text).unwrap();
        let context = Context::new(Some(root.path().to_owned()));
        assert_eq!(find("bb", &context).unwrap(), None);
        write(
            "etc/passwd",
            "7:x:1:1::/:/bin/sh\nbb:x:7007:7:B:/home/bb:/bin/bash\nbad:x:y:1::/:\n",
        );
        write("etc/group", "bb:x:7:\nwheel:x:8:al,bb\nstaff:x:9:bb\n");
        let user = find("bb", &context).unwrap().unwrap();
        assert_eq!(
            (user.uid, user.gid, user.home.to_str(), user.shell.as_str()),
            (7007, 7, Some("/home/bb"), "/bin/bash")
        );
        assert_eq!(find("7", &context).unwrap().unwrap().uid, 1);
        assert!(find("bad", &context).is_err());
        assert_eq!(name_of_user(7007, &context).unwrap().as_deref(), Some("bb"));
        assert_eq!(name_of_user(7, &context).unwrap(), None);
        assert_eq!(
            name_of_group(8, &context).unwrap().as_deref(),
            Some("wheel")
        );
        assert!(has_group("staff", &context).unwrap() && !has_group("7", &context).unwrap());
        assert_eq!(groups("bb", &context).unwrap(), ["staff", "wheel"]);
    }

    #[test]
    fn an_account_of_this_host_is_found_and_a_missing_one_named() {
        let root = find_user("root").unwrap();
        assert_eq!((root.uid, root.gid), (0, 0));
        assert_eq!(number_of("group", "root").unwrap(), 0);
        let error = find_user("no-such-account").unwrap_err();
        assert_eq!(error.to_string(), "account `no-such-account` not found");
    }
}
