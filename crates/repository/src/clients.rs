//! The files for clients: the public keys, and the sources(5) file that includes them.

use crate::settings::Settings;

/// The deb822 sources of a client. The keys are in it, so that one file is all a client gets; apt knows that since 2.3.10.
pub(crate) fn sources(settings: &Settings, architectures: &[String], keys: &str) -> String {
    let Settings {
        name, url, suite, ..
    } = settings;
    let mut text = format!(
        "# /etc/apt/sources.list.d/{name}.sources\n\
         Types: deb\nURIs: {url}\nSuites: {suite}\nComponents: main\nArchitectures: {}\nSigned-By:\n",
        architectures.join(" ")
    );
    for line in keys.trim_end().lines() {
        // A blank line would end the paragraph.
        text.push(' ');
        text.push_str(if line.is_empty() { "." } else { line });
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_one_field_of_the_sources() {
        let settings = "name = 'x'\nurl = 'https://apt.example/x/'\nsuite = 'stable'\nvalid-for = '1day'\n\
                        keys = ['4C9EC1C0A136183CF945DFE2ABC9C38EF6B9DA80']";
        let settings = Settings::parse(settings).unwrap();
        assert_eq!(
            sources(
                &settings,
                &["amd64".to_owned()],
                "-----BEGIN\n\nabc\n-----END\n"
            ),
            "# /etc/apt/sources.list.d/x.sources\nTypes: deb\nURIs: https://apt.example/x\nSuites: stable\n\
             Components: main\nArchitectures: amd64\nSigned-By:\n -----BEGIN\n .\n abc\n -----END\n"
        );
    }
}
