//! Access to channels: with credentials from the places of conda, mamba and pixi, through mirrors, or without a
//! network.

use std::collections::HashMap;

use anyhow::Context as _;
use rattler_networking::mirror_middleware::Mirror;
use rattler_networking::{
    AuthenticationMiddleware, LazyClient, MirrorMiddleware, OfflineMiddleware,
};
use reqwest_middleware::{ClientBuilder, ClientWithMiddleware};
use url::Url;

/// How to reach channels; nothing is set up before one is reached, as a host that has local channels alone may lack
/// what that needs, such as certificates.
#[derive(Debug, Clone)]
pub(crate) struct Network {
    /// `URL=MIRROR`.
    pub(crate) mirrors: Vec<String>,
    pub(crate) offline: bool,
}

impl Network {
    /// A client, set up now.
    pub(crate) fn client(&self) -> anyhow::Result<ClientWithMiddleware> {
        client(&self.mirrors, self.offline)
    }

    /// A client for libraries that require one: it is set up when it is used. Before that, [`Network::client`] is
    /// called and reports errors.
    pub(crate) fn lazy(&self) -> LazyClient {
        let network = self.clone();
        LazyClient::new(move || {
            network
                .client()
                .expect("it could be set up before, or only local files are read")
        })
    }
}

fn client(mirrors: &[String], offline: bool) -> anyhow::Result<ClientWithMiddleware> {
    let plain = reqwest::Client::builder()
        .user_agent(concat!("buildbot-conda-env/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(std::time::Duration::from_secs(30))
        .read_timeout(std::time::Duration::from_mins(1))
        .build()
        .context("set up the network\nhint: install the package `ca-certificates`")?;
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
            Url::parse(&directory)
                .with_context(|| format!("`--mirror`: `{text}` is not an address"))
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
