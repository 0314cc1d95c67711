//! Which packages of which channels fit together for an `environment.yml`.

use std::path::Path;

use anyhow::{Context as _, anyhow, bail, ensure};
use rattler_conda_types::{Channel, ChannelConfig, MatchSpec, NamedChannelOrUrl, Subdir};
use rattler_repodata_gateway::fetch::CacheAction;
use rattler_repodata_gateway::{Gateway, SourceConfig};
use rattler_solve::{SolveError, SolverImpl as _, SolverTask, resolvo::Solver};
use rattler_virtual_packages::{VirtualPackage, VirtualPackageOverrides};

use crate::client::Network;
use crate::input::{self, Wanted};

/// The default channel.
const DEFAULT_CHANNEL: &str = "conda-forge";

/// Solves `specs`; `channels` are names, URLs or directories (relative ones start at `beside`); the first has priority.
pub(crate) async fn solve(
    specs: Vec<MatchSpec>,
    channels: &[String],
    beside: &Path,
    network: &Network,
    cache: &Path,
) -> anyhow::Result<Vec<Wanted>> {
    ensure!(!specs.is_empty(), "the list of dependencies is empty");
    let channels = parsed(channels, beside)?;
    if channels
        .iter()
        .any(|channel| channel.base_url.url().scheme() != "file")
    {
        network.client()?;
    }
    let platforms = [input::platform(), Subdir::NoArch];
    let gateway = Gateway::builder()
        .with_client(network.lazy())
        .with_cache_dir(cache)
        .with_channel_config(rattler_repodata_gateway::ChannelConfig {
            default: SourceConfig {
                cache_action: if network.offline {
                    CacheAction::ForceCacheOnly
                } else {
                    CacheAction::CacheOrFetch
                },
                ..SourceConfig::default()
            },
            ..rattler_repodata_gateway::ChannelConfig::default()
        })
        .finish();
    let found = gateway
        .query(channels, platforms, specs.clone())
        .recursive(true)
        .execute()
        .await
        .map_err(|error| anyhow!(error))
        .context("read the index of the channels")?;
    let here = VirtualPackage::detect(&VirtualPackageOverrides::from_env(), None)
        .context("detect the platform of this machine")?;
    let task = SolverTask {
        specs,
        virtual_packages: here.into_iter().map(Into::into).collect(),
        ..SolverTask::from_iter(&found.repodata)
    };
    let solution = match Solver.solve(task) {
        Ok(solution) => solution,
        Err(SolveError::Unsolvable(reasons)) => {
            bail!(
                "the dependencies cannot be satisfied: {}",
                reasons.join("; ")
            )
        }
        Err(error) => bail!(error),
    };
    solution.records.iter().map(input::wanted).collect()
}

fn parsed(channels: &[String], beside: &Path) -> anyhow::Result<Vec<Channel>> {
    let config = ChannelConfig::default_with_root_dir(beside.to_owned());
    let default = [DEFAULT_CHANNEL.to_owned()];
    let channels = if channels.is_empty() {
        &default
    } else {
        channels
    };
    let channel = |text: &String| {
        input::check_address(text)?;
        let named: NamedChannelOrUrl = text
            .parse()
            .with_context(|| format!("`{text}` is not a channel"))?;
        named
            .into_channel(&config)
            .with_context(|| format!("`{text}` is not a channel"))
    };
    channels.iter().map(channel).collect()
}
