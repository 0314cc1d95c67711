//! Directives of a unit as data, for two purposes: to write a drop-in, and to run a command under the same rules as the
//! service.

use thiserror::Error;

use crate::unit_text::{self, Place};

/// One assignment, as in a unit file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directive {
    /// Without its brackets.
    pub section: &'static str,
    /// Before the `=`.
    pub key: &'static str,
    /// Behind it, escaped for systemd.
    pub value: String,
    /// Comment lines above it; an empty line is kept as an empty line.
    pub(crate) comment: String,
}

/// An assignment of any unit file, for [`for_command`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment<'a> {
    /// Without its brackets.
    pub section: &'a str,
    /// Before the `=`.
    pub key: &'a str,
    /// Behind it.
    pub value: &'a str,
    /// Where it was read, if it was.
    pub place: Option<&'a Place>,
}

impl<'a> From<&'a Directive> for Assignment<'a> {
    fn from(directive: &'a Directive) -> Self {
        Self {
            section: directive.section,
            key: directive.key,
            value: &directive.value,
            place: None,
        }
    }
}

impl<'a> From<&'a unit_text::Setting> for Assignment<'a> {
    fn from(setting: &'a unit_text::Setting) -> Self {
        Self {
            section: &setting.section,
            key: &setting.key,
            value: &setting.value,
            place: Some(&setting.place),
        }
    }
}

/// A specifier of systemd.unit(5) that has no meaning outside of its unit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "{}the specifier `{specifier}` in `{key}=` is not supported for a command",
    place.as_ref().map_or_else(String::new, |place| format!("{place}: "))
)]
pub struct UnknownSpecifier {
    place: Option<Place>,
    key: String,
    specifier: String,
}

/// Keys of `[Service]` that decide what a process sees and may do: its account, its file systems, its calls, its
/// environment and its credentials. All of systemd.exec(5) and systemd.resource-control(5) that a sandbox is made of;
/// not what makes a service of it, nor its limits and where it writes to.
const OF_A_PROCESS: [&str; 82] = [
    "AmbientCapabilities",
    "AppArmorProfile",
    "BindPaths",
    "BindReadOnlyPaths",
    "CacheDirectory",
    "CacheDirectoryMode",
    "CapabilityBoundingSet",
    "ConfigurationDirectory",
    "ConfigurationDirectoryMode",
    "DeviceAllow",
    "DevicePolicy",
    "DynamicUser",
    "Environment",
    "EnvironmentFile",
    "ExecPaths",
    "ExtensionDirectories",
    "ExtensionImages",
    "Group",
    "IPAddressAllow",
    "IPAddressDeny",
    "IPCNamespacePath",
    "ImportCredential",
    "InaccessiblePaths",
    "KeyringMode",
    "LoadCredential",
    "LoadCredentialEncrypted",
    "LockPersonality",
    "LogsDirectory",
    "LogsDirectoryMode",
    "MemoryDenyWriteExecute",
    "MountAPIVFS",
    "MountFlags",
    "MountImages",
    "NetworkNamespacePath",
    "NoExecPaths",
    "NoNewPrivileges",
    "PassEnvironment",
    "PrivateBPF",
    "PrivateDevices",
    "PrivateIPC",
    "PrivateMounts",
    "PrivateNetwork",
    "PrivatePIDs",
    "PrivateTmp",
    "PrivateUsers",
    "ProcSubset",
    "ProtectClock",
    "ProtectControlGroups",
    "ProtectHome",
    "ProtectHostname",
    "ProtectKernelLogs",
    "ProtectKernelModules",
    "ProtectKernelTunables",
    "ProtectProc",
    "ProtectSystem",
    "ReadOnlyPaths",
    "ReadWritePaths",
    "RemoveIPC",
    "RestrictAddressFamilies",
    "RestrictFileSystems",
    "RestrictNamespaces",
    "RestrictNetworkInterfaces",
    "RestrictRealtime",
    "RestrictSUIDSGID",
    "RootDirectory",
    "RootHash",
    "RootImage",
    "RootImageOptions",
    "RootVerity",
    "SELinuxContext",
    "SecureBits",
    "SetCredential",
    "SetCredentialEncrypted",
    "SmackProcessLabel",
    "SupplementaryGroups",
    "SystemCallArchitectures",
    "SystemCallErrorNumber",
    "SystemCallFilter",
    "TemporaryFileSystem",
    "UMask",
    "UnsetEnvironment",
    "User",
];

/// The properties that give a command the rules of `unit`, for `systemd-run --property`, in which `%` is not special.
/// `unit` and `transient` are names of units; the command runs as the second.
///
/// # Errors
///
/// An assignment with a specifier that this function does not know.
pub fn for_command<'a>(
    assignments: impl IntoIterator<Item = Assignment<'a>>,
    unit: &str,
    transient: &str,
) -> Result<Vec<String>, UnknownSpecifier> {
    let mut properties: Vec<(&str, String)> = Vec::new();
    for assignment in assignments {
        let Assignment {
            section,
            key,
            value,
            place,
        } = assignment;
        if section != "Service" || OF_A_PROCESS.binary_search(&key).is_err() {
            continue;
        }
        let filled = unit_text::fill(value, |specifier| match specifier {
            'd' => Some(format!("/run/credentials/{transient}")),
            other => unit_text::specifier(other, unit, "/root"),
        });
        let filled = filled.map_err(|specifier| UnknownSpecifier {
            place: place.cloned(),
            key: key.to_owned(),
            specifier,
        })?;
        if filled.is_empty() {
            // It resets earlier assignments; for some lists, the reset is the empty assignment.
            properties.retain(|(other, _)| *other != key);
        }
        properties.push((key, filled));
    }
    let properties = properties.into_iter();
    Ok(properties
        .map(|(key, value)| format!("{key}={value}"))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<Vec<String>, String> {
        let settings = unit_text::parse("u", text);
        let unit = "buildbot-worker@gpu-2.service";
        let properties = for_command(settings.iter().map(Assignment::from), unit, "t.service");
        properties.map_err(|error| error.to_string())
    }

    #[test]
    fn the_keys_are_sorted_so_that_they_are_found() {
        assert!(OF_A_PROCESS.is_sorted());
    }

    #[test]
    fn a_command_gets_what_makes_the_sandbox_and_not_what_makes_a_service() {
        let text = "[Unit]\nUser=no\nRequiresMountsFor=/m\n[Service]\nType=notify\nExecStart=/bin/x\nUser=bb\n\
                    # why\nWatchdogSec=2min\nRuntimeDirectory=a\nRestart=always\nTimeoutStopSec=1\n\
                    ReadWritePaths=\"-/a b%%c\"\nEnvironmentFile=-/etc/default/%N\nLoadCredential=x:/y\n\
                    [Install]\nUser=no\n";
        let expected = [
            "User=bb",
            "ReadWritePaths=\"-/a b%c\"",
            "EnvironmentFile=-/etc/default/buildbot-worker@gpu-2",
            "LoadCredential=x:/y",
        ];
        assert_eq!(of(text).unwrap(), expected);
    }

    #[test]
    fn an_empty_assignment_takes_back_what_was_written_before() {
        let text = "[Service]\nEnvironment=A=1\nReadOnlyPaths=/a\nEnvironment=\nEnvironment=B=2\n\
                    CapabilityBoundingSet=\n";
        let expected = [
            "ReadOnlyPaths=/a",
            "Environment=",
            "Environment=B=2",
            "CapabilityBoundingSet=",
        ];
        assert_eq!(of(text).unwrap(), expected);
    }

    #[test]
    fn specifiers_are_filled_in_as_the_unit_has_them_and_unknown_ones_are_named() {
        let text = "[Service]\nEnvironment=A=%i B=%I C=%t/x D=%d/key E=%S%%\n";
        let expected =
            "Environment=A=gpu-2 B=gpu/2 C=/run/x D=/run/credentials/t.service/key E=/var/lib%";
        assert_eq!(of(text).unwrap(), [expected]);
        assert_eq!(
            of("[Service]\nType=%q\n\nReadOnlyPaths=/%m\n").unwrap_err(),
            "u:4: the specifier `%m` in `ReadOnlyPaths=` is not supported for a command"
        );
    }
}
