//! The web server in front of a master's pages: it runs, has the site file, and connects to the right port of the
//! master.

use buildbot_conda_core::foreign_text::ForeignText;
use buildbot_conda_core::settings::Instance;

use super::finding::{Check, Finding};
use super::scene::Scene;
use crate::system::exposed::Exposed;
use crate::system::systemd;

/// `ports` are what the master listens on, by Buildbot's own word; `www` is that of the pages.
pub(super) fn judge(
    instance: &Instance,
    ports: &[(ForeignText, u16)],
    scene: &Scene<'_>,
) -> Option<Finding> {
    let reference = &instance.reference;
    let exposed = Exposed::read(reference, scene.context)?;
    let (front, host) = (exposed.front, &exposed.host);
    let files = front.files(reference, scene.context);
    let problem = |seen: String| Finding::problem(Check::Front, Some(reference), seen);
    let gone = [Some(files.site), files.link]
        .into_iter()
        .flatten()
        .find(|path| !path.exists());
    if let Some(gone) = gone {
        let seen = format!(
            "`{}`, with which {front} serves https://{host}/, is missing",
            gone.display()
        );
        return Some(problem(seen).words(format!(
            "repeat `buildbot-conda web expose {reference} --host {host}` with the previous options, or give it \
             up with `buildbot-conda web hide {reference}`"
        )));
    }
    let other = ports
        .iter()
        .find(|(purpose, port)| &**purpose == "www" && *port != exposed.web_port);
    if let Some((_, port)) = other {
        let seen = format!(
            "{front} expects the pages at port {}, but the master serves them at port {port}",
            exposed.web_port
        );
        return Some(problem(seen).words(format!(
            "repeat `buildbot-conda web expose {reference} --host {host} --web-port {port}` with the previous options"
        )));
    }
    let unit = front.unit();
    if scene.has_systemd() && !systemd::is_running(&unit).unwrap_or(true) {
        let seen = format!("`{unit}`, which serves https://{host}/, does not run");
        return Some(problem(seen).command(["systemctl", "start", &unit]));
    }
    let seen = format!(
        "{front} serves https://{host}/ from port {}",
        exposed.web_port
    );
    Some(Finding::ok(Check::Front, Some(reference), seen))
}
