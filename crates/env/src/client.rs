//! How channels are reached: credentials from where conda, mamba and pixi have them, mirrors, or no network at all.

use std::collections::HashMap;

use anyhow::Context as _;
use rattler_networking::mirror_middleware::Mirror;
use rattler_networking::{AuthenticationMiddleware, MirrorMiddleware, OfflineMiddleware};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use url::Url;

/// A client for everything that is fetched. `mirrors` are `URL=MIRROR`.
pub(crate) fn client(mirrors: &[String], offline: bool) -> anyhow::Result<ClientWithMiddleware> {
    let plain = reqwest::Client::builder()
        .user_agent(concat!("buildbot-conda-env/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(std::time::Duration::from_secs(30))
        .read_timeout(std::time::Duration::from_mins(1))
        .build()
        .context("set up the network")?;
    let mut builder = ClientBuilder::new(plain);
    if offline {
        builder = builder.with(OfflineMiddleware);
    }
    let mut map: HashMap<Url, Vec<Mirror>> = HashMap::new();
    for text in mirrors {
        let (of, at) = text
            .split_once('=')
            .with_context(|| format!("`--mirror {text}` is not `URL=MIRROR`"))?;
        let url = |text: &str| {
            let directory = format!("{}/", text.trim_end_matches('/'));
            Url::parse(&directory).with_context(|| format!("`--mirror`: `{text}` is no address"))
        };
        map.entry(url(of)?).or_default().push(Mirror {
            url: url(at)?,
            no_zstd: false,
            no_bz2: false,
            max_failures: None,
        });
    }
    if !map.is_empty() {
        builder = builder.with(MirrorMiddleware::from_map(map));
    }
    let credentials = AuthenticationMiddleware::from_env_and_defaults()
        .context("read the credentials of channels")?;
    Ok(builder.with(credentials).build())
}
