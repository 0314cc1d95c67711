//! `web hide`: what `web expose` has done is taken back, the front first: what was private is at no moment open.

use std::fs;
use std::process::ExitCode;

use buildbot_conda_core::names::InstanceRef;
use clap::Args;

use crate::output::Manner;
use crate::plan::{FileStep, FrontStep, Plan, UnitStep, Verb};
use crate::system::context::Context;
use crate::system::exposed::Exposed;
use crate::system::files::{self, Found};
use crate::system::front::{SiteFiles, people_file};
use crate::system::values::Mode;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The master, such as `master` or `master@nightly`
    #[arg(value_name = "REF")]
    reference: InstanceRef,
    #[command(flatten)]
    manner: Manner,
}

pub(super) fn run(arguments: &Arguments, context: &Context) -> anyhow::Result<ExitCode> {
    let reference = &arguments.reference;
    let this = Verb {
        name: "web hide",
        manner: arguments.manner,
        ..Verb::default()
    };
    let plan = || plan(reference, context).map(|plan| (plan, ()));
    let state = |(): &()| super::state(reference, context);
    let closing =
        |()| format!("the pages of `{reference}` are now available on this machine only").into();
    this.run(context, plan, state, closing)
}

fn plan(reference: &InstanceRef, context: &Context) -> anyhow::Result<Plan> {
    let settings = context.settings()?;
    let master = super::master(reference, &settings)?;
    let mut steps = Vec::new();
    let record = Exposed::read(reference, context);
    if let Some(Exposed { front, .. }) = record {
        let SiteFiles { site, link, import } = front.files(reference, context);
        if let Found::File { text, .. } = files::inspect(&site)? {
            let serve = FrontStep::ServeSite {
                front,
                path: site.clone(),
                link,
                before: Some(text),
                after: None,
            };
            steps.push(serve.into());
        }
        // The line goes with the last site.
        let others = site
            .parent()
            .and_then(|directory| fs::read_dir(directory).ok());
        let mut others = others.into_iter().flatten().flatten();
        if let Some((path, line)) = import
            && let Found::File { text, mode } = files::inspect(&path)?
            && text.contains(&line)
            && !others.any(|other| other.path() != site)
        {
            let write = FileStep::Write {
                path,
                text: text.replace(&line, ""),
                mode: Mode::new(mode),
                secret: false,
            };
            steps.push(write.into());
        }
    }
    if let Some(step) = super::put_files(master, None, context) {
        let (unit, required) = (reference.unit(), true);
        steps.extend([step, UnitStep::Reload { unit, required }.into()]);
    }
    let files = [
        people_file(reference, context),
        Exposed::file(reference, context),
    ];
    let left = files.into_iter().filter(|path| path.exists());
    steps.extend(left.map(|path| FileStep::Remove { path }.into()));
    let mut notes = Vec::new();
    if steps.is_empty() {
        notes.push(format!("`{reference}` is not exposed"));
    }
    Ok(Plan {
        title: format!("web hide {reference}"),
        notes,
        steps,
    })
}
