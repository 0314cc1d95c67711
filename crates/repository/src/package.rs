//! A package as the index lists it: the content of its own control file, and its place in the repository.

use std::fmt;

use thiserror::Error;

use crate::control::{ControlError, Paragraph};
use crate::digest::Digest;
use crate::names::{Architecture, NameError, PackageName, Version};

/// Fields that only an index has. In a control file they would speak for the index: apt would believe a `Filename:`
/// of the package's author.
const INDEX_FIELDS: [&str; 7] = [
    "Filename", "Size", "MD5sum", "SHA1", "SHA256", "SHA512", "Status",
];

/// What distinguishes two packages; ordered by name, version, architecture.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// The name.
    pub name: PackageName,
    /// The version.
    pub version: Version,
    /// The architecture, or `all`.
    pub architecture: Architecture,
}

/// A package and its file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    /// What it is.
    pub identity: Identity,
    control: Paragraph,
    /// Bytes of the .deb.
    pub size: u64,
    /// Checksum of the .deb.
    pub sha256: Digest,
}

/// Why a control file or a paragraph of an index is refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PackageError {
    /// It is not even a paragraph, or lacks what every package has.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A bad name, version or architecture.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A field that is the repository's to write.
    #[error("its control file contains the field `{0}`, which only the repository may write")]
    IndexField(&'static str),
    /// A field of the index with a value that we never wrote.
    #[error("unexpected content of the field `{0}` of `{1}`")]
    Foreign(&'static str, Box<Identity>),
}

impl Package {
    /// A package from the control file in a .deb of this size and checksum.
    ///
    /// # Errors
    ///
    /// [`PackageError`], for whatever must not come into an index.
    pub fn from_control(bytes: &[u8], size: u64, sha256: Digest) -> Result<Self, PackageError> {
        let control = Paragraph::parse(bytes)?;
        if let Some(field) = control.first_of(&INDEX_FIELDS) {
            return Err(PackageError::IndexField(field));
        }
        Ok(Self {
            identity: identity(&control)?,
            control,
            size,
            sha256,
        })
    }

    /// A package from its paragraph in an index.
    ///
    /// # Errors
    ///
    /// [`PackageError`], for a paragraph that [`Package::paragraph`] does not write.
    pub fn from_index(bytes: &[u8]) -> Result<Self, PackageError> {
        let paragraph = Paragraph::parse(bytes)?;
        let identity = identity(&paragraph)?;
        let foreign = |field| PackageError::Foreign(field, Box::new(identity.clone()));
        let size = paragraph.need("Size")?;
        let size = size.parse().map_err(|_| foreign("Size"))?;
        let sha256 = paragraph.need("SHA256")?;
        let sha256 = sha256.parse().map_err(|()| foreign("SHA256"))?;
        if paragraph.need("Filename")? != identity.file_name() {
            return Err(foreign("Filename"));
        }
        Ok(Self {
            identity,
            control: paragraph.without(&INDEX_FIELDS),
            size,
            sha256,
        })
    }

    /// Its paragraph in an index, without a blank line at the end.
    pub fn paragraph(&self) -> String {
        format!(
            "{}Filename: {}\nSize: {}\nSHA256: {}\n",
            self.control,
            self.identity.file_name(),
            self.size,
            self.sha256
        )
    }
}

impl Identity {
    /// Where the .deb lies, relative to the repository: `pool/main/b/buildbot-conda/buildbot-conda_0.1.0_amd64.deb`.
    /// Libraries have four letters, as in Debian's own pool; the epoch is left out, as dpkg-name(1) does.
    pub fn file_name(&self) -> String {
        let name = self.name.as_str();
        let letters = if name.starts_with("lib") && name.len() > 3 {
            4
        } else {
            1
        };
        format!(
            "pool/main/{}/{name}/{name}_{}_{}.deb",
            &name[..letters],
            self.version.without_epoch(),
            self.architecture
        )
    }
}

fn identity(paragraph: &Paragraph) -> Result<Identity, PackageError> {
    Ok(Identity {
        name: paragraph.need("Package")?.parse()?,
        version: paragraph.need("Version")?.parse()?,
        architecture: paragraph.need("Architecture")?.parse()?,
    })
}

impl fmt::Display for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            name,
            version,
            architecture,
        } = self;
        write!(formatter, "{name} {version} {architecture}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package(control: &str) -> Result<Package, PackageError> {
        Package::from_control(control.as_bytes(), 3, Digest::of(b"abc"))
    }

    #[test]
    fn a_package_comes_back_from_its_paragraph() {
        let text = "Package: libx\nVersion: 1:2.0~1-1\nArchitecture: all\nDescription: x\n y\n";
        let package = package(text).unwrap();
        let paragraph = package.paragraph();
        assert!(paragraph.starts_with(text), "{paragraph}");
        assert!(
            paragraph.contains("Filename: pool/main/libx/libx/libx_2.0~1-1_all.deb\nSize: 3\n"),
            "{paragraph}"
        );
        assert_eq!(Package::from_index(paragraph.as_bytes()), Ok(package));
        let moved = paragraph.replace("pool/main", "pool/../..");
        let error = Package::from_index(moved.as_bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unexpected content of the field `Filename` of `libx 1:2.0~1-1 all`"
        );
    }

    #[test]
    fn control_files_that_lead_elsewhere_are_refused() {
        let refused = |text: &str| package(text).unwrap_err().to_string();
        let base = "Package: xy\nVersion: 1\nArchitecture: all\n";
        assert_eq!(
            refused(&base.replace("xy", "../../etc")),
            "`../../etc` is not a valid name of a package"
        );
        assert_eq!(
            refused(&base.replace(": 1", ": 1/../../../x")),
            "`1/../../../x` is not a valid version of a package"
        );
        assert_eq!(
            refused(&base.replace("all", "..")),
            "`..` is not a valid architecture"
        );
        assert_eq!(
            refused(&format!("{base}filename: pool/other.deb\n")),
            "its control file contains the field `Filename`, which only the repository may write"
        );
        assert_eq!(
            refused("Package: xy\nArchitecture: all\n"),
            "the field `Version` is missing or empty"
        );
        assert_eq!(
            refused(&format!("{base}\nPackage: bash\nVersion: 99\n")),
            "line 4 is empty, which would start another package"
        );
    }
}
