//! The Debian releases on which tests run, and the macro that turns a function into a test for each of them.

use std::fmt;
use std::str::FromStr;

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

impl FromStr for Release {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let mut known = Self::ALL.into_iter();
        known
            .find(|release| release.code_name() == name)
            .ok_or_else(|| {
                let names = Self::ALL.map(|release| format!("`{release}`"));
                format!("expected {}", names.join(" or "))
            })
    }
}

/// Makes a test of each named function, once per release: `bookworm::NAME` and `trixie::NAME`.
///
/// The functions have the shape `fn name(release: Release)` and return what a test may return. One that is missing from
/// the list is dead code, which the compiler reports.
#[macro_export]
macro_rules! on_each_release {
    ($($name:ident),+ $(,)?) => {
        mod bookworm {
            $(#[test] fn $name() -> impl ::std::process::Termination { super::$name($crate::Release::Bookworm) })+
        }
        mod trixie {
            $(#[test] fn $name() -> impl ::std::process::Termination { super::$name($crate::Release::Trixie) })+
        }
    };
}

#[cfg(test)]
mod tests {
    use super::Release;

    #[test]
    fn a_release_is_read_as_it_is_written() {
        for release in Release::ALL {
            assert_eq!(release.to_string().parse(), Ok(release));
        }
        assert_eq!(
            "sid".parse::<Release>(),
            Err("expected `bookworm` or `trixie`".to_owned())
        );
    }
}
