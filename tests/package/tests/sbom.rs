//! Bills of materials against the schema that CycloneDX publishes: those in the packages, and the one of an environment
//! with Buildbot.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use buildbot_conda_machine::{Environment, PREFIX, Version, virtual_environment};
use buildbot_conda_package_tests::Package;

/// Prints what is wrong with the document on standard input.
const VALIDATE: &str = "
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
problem = JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read())
print(problem or '', end='')
";

/// Prints name and version of each component on standard input whose package URL can be parsed and agrees with them.
const AGREE: &str = "
import json, sys
from packageurl import PackageURL
for component in json.load(sys.stdin)['components']:
    url = PackageURL.from_string(component['purl'])
    if (url.name, url.version) == (component['name'], component['version']):
        print(url.type, url.name, url.version)
";

fn python(program: &str, input: &str) -> String {
    let requirements = Path::new(env!("CARGO_MANIFEST_DIR")).join("sbom-validator.txt");
    let python = Path::new("python3");
    let venv = virtual_environment(python, "cyclonedx", &requirements, &[]).expect("it is made");
    let mut child = Command::new(venv.join("bin/python"))
        .args(["-c", program])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python starts");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    stdin.write_all(input.as_bytes()).expect("Python reads");
    drop(stdin);
    let output = child.wait_with_output().expect("Python ends");
    assert!(output.status.success());
    String::from_utf8(output.stdout).expect("it is text")
}

/// The components of a valid document: type of package, name and version.
fn components(document: &str) -> Vec<String> {
    assert_eq!(python(VALIDATE, document), "");
    let agreeing = python(AGREE, document);
    assert_eq!(
        agreeing.lines().count(),
        document.matches("\"bom-ref\"").count() - 1,
        "{agreeing}"
    );
    agreeing.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn each_package_lists_the_libraries_in_its_programs() {
    let package = Package::open().text("usr/share/buildbot-conda/sbom.cdx.json");
    let listed = components(&package);
    for library in ["clap", "toml_edit", "serde_json"] {
        let start = format!("cargo {library} ");
        assert!(
            listed.iter().any(|line| line.starts_with(&start)),
            "{listed:?}"
        );
    }
    assert!(
        !listed.iter().any(|line| line.contains("expect-test")),
        "{listed:?}"
    );

    let package = Package::open_environments().text("usr/share/buildbot-conda/sbom-env.cdx.json");
    let listed = components(&package);
    assert!(
        listed.iter().any(|line| line.starts_with("cargo rattler ")),
        "{listed:?}"
    );
    assert!(!package.contains("path+file"), "{package}");
}

#[test]
fn an_environment_lists_its_packages() {
    let environment = Environment::install(Version::V4_3_0, PREFIX).expect("it is installed");
    let output = Command::new(Package::open().tree().join("usr/bin/buildbot-conda"))
        .args(["env", "sbom"])
        .arg(environment.directory())
        .output()
        .expect("the packed program runs on its build machine");
    assert!(output.status.success(), "{output:?}");
    let document = String::from_utf8(output.stdout).expect("it is text");
    let listed = components(&document);
    for line in ["conda buildbot 4.3.0", "conda buildbot-worker 4.3.0"] {
        assert!(listed.iter().any(|listed| listed == line), "{listed:?}");
    }
    assert!(
        !listed.iter().any(|line| line.starts_with("pypi ")),
        "{listed:?}"
    );
}
