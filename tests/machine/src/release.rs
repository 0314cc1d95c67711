//! The Debian releases that every machine test runs on.

use std::fmt;

/// A Debian release by its code name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// Debian 12, systemd 252.
    Bookworm,
    /// Debian 13, systemd 257.
    Trixie,
}

impl Release {
    /// Every release, oldest first.
    pub const ALL: [Self; 2] = [Self::Bookworm, Self::Trixie];

    /// The code name as the archive spells it.
    pub fn code_name(self) -> &'static str {
        match self {
            Self::Bookworm => "bookworm",
            Self::Trixie => "trixie",
        }
    }
}

impl fmt::Display for Release {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.code_name())
    }
}

/// Makes a test of each named function, once per release: `bookworm::NAME` and `trixie::NAME`.
///
/// The functions have the shape `fn name(release: Release) -> Outcome`. One that is missing from the list is dead code,
/// which the compiler reports.
#[macro_export]
macro_rules! on_each_release {
    ($($name:ident),+ $(,)?) => {
        mod bookworm {
            $(#[test] fn $name() -> $crate::Outcome { super::$name($crate::Release::Bookworm) })+
        }
        mod trixie {
            $(#[test] fn $name() -> $crate::Outcome { super::$name($crate::Release::Trixie) })+
        }
    };
}
