//! A Debian system that maintains an apt repository with the package's own command, and systems that install from it.

use crate::{DebianRoot, Outcome, Release, Server};

/// What a host needs from Debian besides the package.
const PROGRAMS: [&str; 2] = ["gpg", "gpg-agent"];

/// The commands of the package without an installation, and a key without a passphrase.
const SET_UP: &str = "dpkg-deb --extract /buildbot-conda.deb /
mkdir -m 700 /root/.gnupg
mkdir /srv/debs";

/// Makes `/srv/debs/hello_VERSION_all.deb`. Arguments: version, and lines to append to its control file.
const HELLO: &str = r#"
hello() {
    rm -rf /tmp/hello
    mkdir -p /tmp/hello/DEBIAN /tmp/hello/usr/share/hello
    echo "$1" >/tmp/hello/usr/share/hello/version
    printf 'Package: hello\nVersion: %s\nArchitecture: all\nMaintainer: x <x@x.example>\n%sDescription: greets\n all\n' \
        "$1" "${2-}" >/tmp/hello/DEBIAN/control
    dpkg-deb --nocheck --root-owner-group -Znone --build /tmp/hello "/srv/debs/hello_$1_all.deb" >/dev/null
}
"#;

/// A host with a repository in `/srv/apt`, without packages yet.
pub struct RepositoryHost {
    root: DebianRoot,
    key: String,
}

impl RepositoryHost {
    /// A new host that has a key.
    #[track_caller]
    pub fn new(release: Release) -> Self {
        let root = DebianRoot::with_programs(release, &PROGRAMS);
        root.must(SET_UP);
        let key = make_key(&root, "Example packages");
        Self { root, key }
    }

    /// A system without the package's command and without a key, but with what they need.
    #[track_caller]
    pub fn bare(release: Release) -> DebianRoot {
        DebianRoot::with_programs(release, &PROGRAMS)
    }

    /// A web server with `/srv` of this host.
    #[track_caller]
    pub fn serve(&self) -> Server {
        Server::start(self.root.upper().join("srv"))
    }

    /// Make the repository; clients find it below `server`.
    #[track_caller]
    pub fn create(&self, server: &Server, options: &str) {
        let (key, url) = (&self.key, server.url());
        self.must(&format!(
            "buildbot-conda repo create /srv/apt --name example --key {key} --url {url}/apt {options}"
        ));
    }

    /// The fingerprint of the host's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// Make another key and give its fingerprint.
    #[track_caller]
    pub fn make_key(&self, name: &str) -> String {
        make_key(&self.root, name)
    }

    /// Run a script that knows `hello VERSION [CONTROL-LINES]` as a command.
    #[track_caller]
    pub fn run(&self, script: &str) -> Outcome {
        self.root.run(&format!("{HELLO}{script}"))
    }

    /// As [`Self::run`], for a script that must succeed. Gives its standard output.
    #[track_caller]
    pub fn must(&self, script: &str) -> String {
        self.root.must(&format!("{HELLO}{script}"))
    }

    /// Make these versions of the package `hello` and publish them.
    #[track_caller]
    pub fn publish(&self, versions: &[&str]) {
        for version in versions {
            self.must(&format!("hello '{version}'"));
        }
        let debs: Vec<String> = versions.iter().map(|version| deb(version)).collect();
        self.must(&format!(
            "buildbot-conda repo add /srv/apt {}",
            debs.join(" ")
        ));
    }

    /// The system itself.
    pub fn root(&self) -> &DebianRoot {
        &self.root
    }

    /// A system that knows this repository alone.
    #[track_caller]
    pub fn client(&self, release: Release) -> DebianRoot {
        let client = DebianRoot::new(release);
        client.must("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/*");
        self.hand_over_sources(&client);
        client
    }

    /// Give the client the present file for clients.
    #[track_caller]
    pub fn hand_over_sources(&self, client: &DebianRoot) {
        let sources = self.root.text("/srv/apt/example.sources");
        client.write("/etc/apt/sources.list.d/example.sources", &sources);
    }
}

/// Where a version of `hello` lies on the host.
pub fn deb(version: &str) -> String {
    format!("/srv/debs/hello_{version}_all.deb")
}

#[track_caller]
fn make_key(root: &DebianRoot, name: &str) -> String {
    let listing = root.must(&format!(
        "gpg --quiet --batch --passphrase '' --quick-generate-key '{name}' ed25519 sign 5y
         gpg --batch --with-colons --list-secret-keys '={name}'"
    ));
    let fingerprint = listing.lines().find_map(|line| line.strip_prefix("fpr:"));
    let fingerprint = fingerprint.expect("gpg lists the key that it has just made");
    fingerprint.trim_matches(':').to_owned()
}
