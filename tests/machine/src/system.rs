//! The systems of the matrix in addition to Debian's releases: roots with another systemd, which represent those of
//! Ubuntu.

use std::fmt;
use std::path::PathBuf;

use anyhow::Result;

use crate::conda::{Environment, PREFIX, Version};
use crate::root::{self, Recipe};
use crate::{Release, emulated};

/// A system on which the smoke test runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Bookworm with bullseye's systemd, apt and their company: older than Ubuntu 22.04's.
    Systemd247,
    /// Bookworm with the systemd from its backports, which is close to the 255 of Ubuntu 24.04.
    Systemd254,
    /// Debian unstable: younger than Ubuntu 26.04's 259.
    Unstable,
    /// A release that all tests run on.
    Debian(Release),
    /// Bookworm for arm64, run by an emulator: for a separate stage.
    Arm64,
}

impl System {
    /// Every row of the matrix that a test run has, oldest systemd first.
    pub const ALL: [Self; 5] = [
        Self::Systemd247,
        Self::Debian(Release::Bookworm),
        Self::Systemd254,
        Self::Debian(Release::Trixie),
        Self::Unstable,
    ];

    /// Its root, to be used as a layer and never written to.
    ///
    /// # Errors
    ///
    /// As [`crate::debian_root`].
    pub fn root(self) -> Result<PathBuf> {
        let recipe = match self {
            Self::Debian(release) => return root::debian_root(release),
            Self::Systemd247 => Recipe {
                suite: "bookworm",
                also: Some("bullseye"),
                pinned: Some((
                    "systemd systemd-sysv udev libudev1 libsystemd0 libpam-systemd apt libapt-pkg6.0 \
                     init-system-helpers adduser",
                    1001,
                )),
                // Bullseye's init-system-helpers does not ask for it, and bookworm's packages expect it.
                hooks: Some("/usr/share/mmdebstrap/hooks/merged-usr"),
                ..Recipe::default()
            },
            Self::Systemd254 => Recipe {
                suite: "bookworm",
                also: Some("bookworm-backports"),
                pinned: Some((
                    "systemd systemd-sysv udev libudev1 libsystemd0 libsystemd-shared libpam-systemd",
                    990,
                )),
                ..Recipe::default()
            },
            Self::Unstable => Recipe {
                suite: "sid",
                ..Recipe::default()
            },
            Self::Arm64 => {
                emulated::enable()?;
                Recipe {
                    suite: "bookworm",
                    architecture: Some("arm64"),
                    ..Recipe::default()
                }
            }
        };
        root::special_root(&self.to_string(), &recipe)
    }

    /// A tree to lay over it, with Buildbot at [`PREFIX`].
    ///
    /// # Errors
    ///
    /// As [`Environment::install`].
    pub fn environment(self) -> Result<PathBuf> {
        if self == Self::Arm64 {
            return emulated::environment();
        }
        let environment = Environment::install(Version::V4_3_0, PREFIX)?;
        Ok(environment.tree().to_owned())
    }
}

impl fmt::Display for System {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Systemd247 => formatter.write_str("systemd-247"),
            Self::Systemd254 => formatter.write_str("systemd-254"),
            Self::Unstable => formatter.write_str("unstable"),
            Self::Arm64 => formatter.write_str("bookworm-arm64"),
            Self::Debian(release) => release.fmt(formatter),
        }
    }
}
