//! `web expose`: writes the files of the front and the master, makes both read them, and sends a request of each kind.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use buildbot_conda_core::names::InstanceRef;
use buildbot_conda_core::settings::{Instance, Settings};
use buildbot_conda_core::web::{
    ClientId, Exposure, FrontKey, HeaderName, HostName, Login, People, Person, Server, Site, Tls,
    TlsFile, WEB, WEB_SECRET, caddy_site, nginx_site, web_toml,
};
use clap::{Args, ValueEnum};

use super::people::{self, Source};
use crate::output::Manner;
use crate::plan::{self, Asked, FileStep, FrontStep, Plan, Step, UnitStep, Verb, naming};
use crate::system::accounts;
use crate::system::context::Context;
use crate::system::exposed::Exposed;
use crate::system::files::{self, Found};
use crate::system::front::{Front, PEOPLE, SiteFiles, absolute, people_file};
use crate::system::own_place;
use crate::system::passwords;
use crate::system::record::{Noted as _, RECORDS, Record};
use crate::system::systemd;
use crate::system::values::{Mode, Ownership};

/// How long a front may take to serve the pages, in seconds, and to obtain a certificate if none is given.
const PATIENCE: [u64; 2] = [20, 120];

/// Who asks people who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Asker {
    /// With a password, which the web server asks for
    Htpasswd,
    /// Through GitHub
    Github,
    /// Through a GitLab server
    Gitlab,
    /// Through Google
    Google,
    /// Through another proxy, which passes the name in a header
    Header,
}

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The master, such as `master` or `master@nightly`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    /// The host name by which others reach the pages
    #[arg(long, value_name = "NAME")]
    host: HostName,
    /// The web server [default: the installed one]
    #[arg(long, value_name = "FRONT")]
    front: Option<Front>,
    /// Require a login for reading too, including websockets and events
    #[arg(long)]
    private: bool,
    /// How people log in
    #[arg(long, value_name = "LOGIN", default_value = "htpasswd")]
    login: Asker,
    /// The client id from GitHub, GitLab or Google; the command asks for its secret
    #[arg(long, value_name = "ID")]
    client_id: Option<ClientId>,
    /// The address of the GitLab server
    #[arg(long, value_name = "URL", default_value = "https://gitlab.com")]
    gitlab: Server,
    /// The header in which another proxy passes the user name
    #[arg(long, value_name = "HEADER", default_value = "X-Forwarded-User")]
    header: HeaderName,
    /// The address of that proxy
    #[arg(long, value_name = "ADDRESS", required_if_eq("login", "header"))]
    proxy: Option<IpAddr>,
    /// The file with the certificate and its intermediate certificates
    #[arg(long, value_name = "FILE", requires = "key")]
    certificate: Option<TlsFile>,
    /// The file with the private key
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<TlsFile>,
    /// Who can force and stop builds after a login; can be repeated
    #[arg(long = "admin", value_name = "NAME", default_value = "admin")]
    admins: Vec<Person>,
    /// Who can log in to read private pages; can be repeated
    #[arg(long = "reader", value_name = "NAME", requires = "private")]
    readers: Vec<Person>,
    /// Read the missing passwords from a file, one per line, or the secret of the client
    #[arg(long, value_name = "FILE", conflicts_with = "password_stdin")]
    password_file: Option<PathBuf>,
    /// Read the missing passwords, or the secret of the client, from standard input
    #[arg(long)]
    password_stdin: bool,
    /// The port of the master's pages, if it is not the one that `create master` chose
    #[arg(long, value_name = "PORT")]
    web_port: Option<u16>,
    #[command(flatten)]
    manner: Manner,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let reference = &arguments.reference;
    let this = Verb {
        name: "web expose",
        manner: arguments.manner,
        ..Verb::default()
    };
    let plan = || plan(arguments, context).map(|plan| (plan, ()));
    let state = |(): &()| super::state(reference, context);
    this.run(context, plan, state, |()| files(arguments).into())
}

/// What is said at the end.
fn files(arguments: &Arguments) -> String {
    let who = if arguments.private {
        "readable after login"
    } else {
        "readable by everybody"
    };
    let admins: Vec<String> = arguments
        .admins
        .iter()
        .map(|one| format!("`{one}`"))
        .collect();
    format!(
        "`{}` is served at https://{}/, {who}; {} may force and stop builds",
        arguments.reference,
        arguments.host,
        admins.join(", ")
    )
}

fn plan(arguments: &Arguments, context: &Context) -> anyhow::Result<Plan> {
    let reference = &arguments.reference;
    let settings = context.settings()?;
    let master = super::master(reference, &settings)?;
    refuse_taken(arguments, &settings, context)?;
    let front = front(arguments, context)?;
    let web_port = port(arguments, context)?;
    let certificate = certificate(arguments, front, context)?;
    ensure_running(master, context)?;
    let login = login(arguments)?;
    let exposure = Exposure {
        host: arguments.host.clone(),
        login,
        private: arguments.private,
        admins: arguments.admins.clone(),
        readers: arguments.readers.clone(),
    };
    let secret = secret(arguments, &exposure, master, context)?;
    let source = source(arguments);
    let mut steps = Vec::new();
    let mut people: Vec<&Person> = arguments.admins.iter().chain(&arguments.readers).collect();
    people.sort();
    people.dedup();
    let file = people_file(reference, context);
    let before = fs::read_to_string(&file).unwrap_or_default();
    let lines = if arguments.login == Asker::Htpasswd {
        people::file(&people, &before, &source)?
    } else {
        String::new()
    };
    if lines != before {
        steps.extend(name_people(&lines, &file, front, context)?);
    }
    let files = [web_toml(&exposure), format!("{secret}\n")];
    if let Some(step) = super::put_files(master, Some(files), context) {
        let (unit, required) = (reference.unit(), true);
        steps.extend([step, UnitStep::Reload { unit, required }.into()]);
    }
    let site = Site {
        reference: reference.clone(),
        host: arguments.host.clone(),
        port: web_port,
        private: arguments.private,
        key: by_front(&exposure).then(|| secret.parse()).transpose()?,
    };
    let path = absolute(&file, context);
    let people = match (arguments.login, arguments.proxy) {
        (Asker::Htpasswd, _) => People::File {
            path: &path,
            text: &lines,
        },
        (Asker::Header, Some(proxy)) => People::Header(&arguments.header, proxy),
        _ => People::Unknown,
    };
    let text = match (front, &certificate) {
        (Front::Nginx, Some(tls)) => nginx_site(&site, tls, &people),
        (_, tls) => caddy_site(&site, tls.as_ref(), &people),
    };
    let mut visible = serve(front, reference, text, context)?;
    let record = Exposed {
        front,
        host: arguments.host.as_str().to_owned(),
        web_port,
        private: arguments.private,
    };
    visible.extend(note(&record, reference, context)?);
    if steps.is_empty() && visible.is_empty() {
        return Ok(Plan {
            title: format!("web expose {reference}"),
            notes: vec![format!(
                "`{reference}` is already served at https://{}/",
                arguments.host
            )],
            steps: Vec::new(),
        });
    }
    // A master that does not use what it was given would be shown without it.
    let host = record.host.clone();
    steps.push(FrontStep::AskMaster { host, web_port }.into());
    steps.append(&mut visible);
    let asked = Asked {
        host: record.host,
        web_port,
        private: arguments.private,
        login_status: match people {
            People::File { .. } => 401,
            People::Header(..) => 403,
            People::Unknown => 302,
        },
        patience: PATIENCE[usize::from(certificate.is_none())],
    };
    steps.push(FrontStep::AskFront(asked).into());
    Ok(Plan {
        title: format!("web expose {reference}"),
        notes: vec![format!(
            "{front} serves https://{}/ from port {web_port} of this host",
            arguments.host
        )],
        steps,
    })
}

/// A host name belongs to one master.
fn refuse_taken(
    arguments: &Arguments,
    settings: &Settings,
    context: &Context,
) -> anyhow::Result<()> {
    let is_there = |other: &&Instance| {
        let exposed = Exposed::read(&other.reference, context);
        other.reference != arguments.reference
            && exposed.is_some_and(|exposed| exposed.host == arguments.host.as_str())
    };
    if let Some(other) = settings.instances().find(is_there) {
        bail!(
            "https://{}/ is already used by `{}`\nhint: use a separate host name for each master",
            arguments.host,
            other.reference
        );
    }
    Ok(())
}

fn certificate(
    arguments: &Arguments,
    front: Front,
    context: &Context,
) -> anyhow::Result<Option<Tls>> {
    if let (Some(certificate), Some(key)) = (&arguments.certificate, &arguments.key) {
        ensure_own([certificate, key], front, context)?;
        let (certificate, key) = (certificate.clone(), key.clone());
        return Ok(Some(Tls { certificate, key }));
    }
    ensure!(
        front == Front::Caddy,
        "{front} needs a certificate\n\
         hint: use `--certificate FILE --key FILE`, for example with the files of certbot"
    );
    Ok(None)
}

/// The front reads the files as root, or as its own account, and shows one of them to everyone, so no other account may
/// have chosen them. The front itself reports a missing file.
fn ensure_own(files: [&TlsFile; 2], front: Front, context: &Context) -> anyhow::Result<()> {
    if context.is_elsewhere() {
        return Ok(());
    }
    let account = front.reader().map(|name| accounts::find(name, context));
    let trust = own_place::trust(account.transpose()?.flatten().as_ref())?;
    for file in files {
        match trust.find(Path::new(file.as_str())) {
            Err(untrusted) if untrusted.is_distrust() => bail!(
                "{untrusted}\nhint: keep certificate and key where root alone can write, such as below `/etc/ssl`"
            ),
            _ => {}
        }
    }
    Ok(())
}

/// The steps that write the record, if it differs.
fn note(record: &Exposed, reference: &InstanceRef, context: &Context) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    if Exposed::read(reference, context).as_ref() != Some(record) {
        plan::directory(&context.path(RECORDS), 0o755, &mut steps);
        let note = FileStep::Write {
            path: Exposed::file(reference, context),
            text: serde_json::to_string(record).context("write a record")? + "\n",
            mode: Mode::new(0o644),
            secret: false,
        };
        steps.push(note.into());
    }
    Ok(steps)
}

/// The web server that is to be in front. It runs.
fn front(arguments: &Arguments, context: &Context) -> anyhow::Result<Front> {
    let reference = &arguments.reference;
    let before = Exposed::read(reference, context).map(|record| record.front);
    let installed: Vec<Front> = Front::value_variants()
        .iter()
        .copied()
        .filter(|front| front.is_installed(context))
        .collect();
    let mut candidates = installed.clone();
    if candidates.len() > 1 && systemd::runs(context) {
        candidates.retain(|front| systemd::is_running(&front.unit()).unwrap_or_default());
    }
    let front = match (arguments.front.or(before), &candidates[..]) {
        (Some(front), _) => front,
        (None, [front]) => *front,
        (None, []) if installed.is_empty() => {
            bail!("no web server is installed\nhint: `apt-get install nginx`")
        }
        (None, _) => bail!("several web servers are installed\nhint: select one with `--front`"),
    };
    if let Some(before) = before.filter(|before| *before != front) {
        bail!(
            "`{reference}` is served by {before}\nhint: run `buildbot-conda web hide {reference}` first"
        );
    }
    ensure!(
        installed.contains(&front),
        "{front} is not installed\nhint: `apt-get install {front}`"
    );
    ensure!(
        !systemd::runs(context) || systemd::is_running(&front.unit())?,
        "`{0}` is not running\nhint: `systemctl enable --now {0}`",
        front.unit()
    );
    Ok(front)
}

fn port(arguments: &Arguments, context: &Context) -> anyhow::Result<u16> {
    let record = Record::read(&arguments.reference, context).map(|record| record.web_port);
    arguments.web_port.or(record).with_context(|| {
        format!(
            "the port of the web pages of `{}` is unknown\nhint: specify it with `--web-port PORT`",
            arguments.reference
        )
    })
}

fn ensure_running(master: &Instance, context: &Context) -> anyhow::Result<()> {
    let reference = &master.reference;
    ensure!(
        !systemd::runs(context) || naming::is_running(master, context)?,
        "`{reference}` is not running\nhint: `systemctl start {}`",
        reference.unit_name()
    );
    Ok(())
}

/// Who asks people, with what that one needs.
fn login(arguments: &Arguments) -> anyhow::Result<Login> {
    let id = || {
        let id = arguments.client_id.clone();
        id.with_context(|| {
            format!(
                "this login needs the ID of an application\n\
                 hint: register one with `https://{}/auth/login` as its callback, and specify `--client-id ID`",
                arguments.host
            )
        })
    };
    let login = match arguments.login {
        Asker::Htpasswd | Asker::Header => Login::Front,
        Asker::Github => Login::GitHub(id()?),
        Asker::Gitlab => Login::GitLab(arguments.gitlab.clone(), id()?),
        Asker::Google => Login::Google(id()?),
    };
    let mut people = arguments.admins.iter().chain(&arguments.readers);
    if let Some(name) = people.find(|name| !name.as_str().contains('@'))
        && matches!(login, Login::Google(_))
    {
        bail!("Google identifies people by mail address, and `{name}` is not one");
    }
    Ok(login)
}

fn source(arguments: &Arguments) -> Source<'_> {
    match &arguments.password_file {
        _ if arguments.manner.dry_run => Source::Nobody,
        Some(file) => Source::File(file),
        None if arguments.password_stdin => Source::Stdin,
        None => Source::Prompt,
    }
}

/// What front and master share, which is made up; or what the provider of logins has given, which is asked for where the
/// master does not have it.
fn secret(
    arguments: &Arguments,
    exposure: &Exposure,
    master: &Instance,
    context: &Context,
) -> anyhow::Result<String> {
    let source = source(arguments);
    // The option belongs to the existing login.
    let login = |text: &str| -> Vec<String> {
        let of_login = |line: &&str| {
            ["login =", "server =", "client-id ="]
                .iter()
                .any(|key| line.starts_with(key))
        };
        text.lines().filter(of_login).map(str::to_owned).collect()
    };
    let before = naming::text(master, WEB, context);
    let is_same = before.is_some_and(|text| login(&text) == login(&web_toml(exposure)));
    let known = naming::text(master, WEB_SECRET, context);
    let known = known
        .as_deref()
        .map(str::trim)
        .filter(|text| is_same && !text.is_empty());
    if by_front(exposure) {
        // The master's account can have written it, and root writes it into the site file.
        return match known.filter(|known| known.parse::<FrontKey>().is_ok()) {
            Some(known) => Ok(known.to_owned()),
            None => passwords::generate(),
        };
    }
    match (known, &source) {
        (Some(known), Source::Prompt) => Ok(known.to_owned()),
        (_, Source::Nobody) => Ok(String::new()),
        (_, source) => people::one("secret of the client", source),
    }
}

/// Whether the front authenticates users itself.
fn by_front(exposure: &Exposure) -> bool {
    exposure.login == Login::Front
}

/// The steps for the login.
fn name_people(
    text: &str,
    path: &Path,
    front: Front,
    context: &Context,
) -> anyhow::Result<Vec<Step>> {
    let mut steps = Vec::new();
    let path = path.to_owned();
    if text.is_empty() {
        return Ok(vec![FileStep::Remove { path }.into()]);
    }
    plan::directory(&context.path(PEOPLE), 0o755, &mut steps);
    let mode = Mode::new(0o640);
    let write = FileStep::Write {
        path: path.clone(),
        text: text.to_owned(),
        mode,
        secret: true,
    };
    steps.push(write.into());
    let ownership = Ownership {
        mode,
        user: "root".parse()?,
        group: front.group().parse()?,
    };
    let ownership = ownership.into();
    steps.push(FileStep::SetMode { path, ownership }.into());
    Ok(steps)
}

/// The steps that make the front serve the pages, if it does not yet.
fn serve(
    front: Front,
    reference: &InstanceRef,
    text: String,
    context: &Context,
) -> anyhow::Result<Vec<Step>> {
    let SiteFiles { site, link, import } = front.files(reference, context);
    let mut steps = Vec::new();
    let before = match files::inspect(&site)? {
        Found::Nothing => None,
        Found::File { text, .. } => Some(text),
        Found::Link(_) | Found::Directory => bail!("`{}` is not a file", site.display()),
    };
    if let Some((path, line)) = import {
        let name = path.display();
        let Found::File { text, mode } = files::inspect(&path)? else {
            bail!("`{name}` is not a file\nhint: the package `{front}` contains one");
        };
        if let Some(directory) = site.parent() {
            plan::directory(directory, 0o755, &mut steps);
        }
        if !text.contains(&line) {
            let write = FileStep::Write {
                path,
                text: format!("{}\n{line}", text.trim_end()),
                mode: Mode::new(mode),
                secret: false,
            };
            steps.push(write.into());
        }
    }
    let is_linked = |link: &Path| link.symlink_metadata().is_ok();
    if before.as_ref() != Some(&text) || !link.as_deref().is_none_or(is_linked) || !steps.is_empty()
    {
        let serve = FrontStep::ServeSite {
            front,
            path: site,
            link,
            before,
            after: Some(text),
        };
        steps.push(serve.into());
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_in_a_place_of_others_is_refused() {
        let ensure = |path: &str| {
            let file = path.parse().unwrap();
            ensure_own([&file, &file], Front::Nginx, &Context::default())
        };
        // Everyone can create names in `/tmp`.
        let refused = ensure("/tmp/chain.pem").unwrap_err().to_string();
        assert!(
            refused.contains("`/tmp`, which is writable by accounts other than root"),
            "{refused}"
        );
        ensure("/etc/ssl/none/chain.pem").unwrap();
    }
}
