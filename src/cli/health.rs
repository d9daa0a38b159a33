//! `dept health`: the probe of containers without curl.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use anyhow::{Context, bail};

use crate::config::choose_crypto;

/// The flags of `dept health`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The admin address of the server. An address that means all of a machine's is asked on loopback
    #[arg(long, env = "DEPT_ADMIN", value_name = "ADDR", default_value = "127.0.0.1:8081")]
    admin: SocketAddr,

    /// Ask whether the server should be started anew, not whether it takes requests
    #[arg(long)]
    live: bool,

    /// How long to wait for an answer, in seconds
    #[arg(long, value_name = "N", default_value = "3")]
    timeout: u64,
}

/// Prints what the server says of itself; an error where it is not well.
pub(super) fn run(args: &Args) -> anyhow::Result<()> {
    let path = if args.live { "/health/live" } else { "/health/ready" };
    let url = format!("http://{}{path}", reachable(args.admin));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(ask(&url, Duration::from_secs(args.timeout)))
}

async fn ask(url: &str, timeout: Duration) -> anyhow::Result<()> {
    // A client without a choice of cryptography can't be made, although this one only speaks http.
    choose_crypto();
    let client = reqwest::Client::builder().no_proxy().timeout(timeout).build()?;
    let unanswered =
        || format!("{url} does not answer: is the server running, and is this its admin address?");
    let response = client.get(url).send().await.with_context(unanswered)?;
    let (status, body) = (response.status(), response.text().await.with_context(unanswered)?);
    if !status.is_success() {
        bail!("{url} answers {status}: {body}");
    }
    println!("{body}");
    Ok(())
}

/// Where a server that listens on `address` can be asked from the same machine.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    use super::reachable;

    #[test]
    fn every_address_is_asked_where_it_answers() {
        for (listens, asked) in
            [("0.0.0.0:1", "127.0.0.1:1"), ("[::]:2", "[::1]:2"), ("10.0.0.7:3", "10.0.0.7:3")]
        {
            assert_eq!(reachable(listens.parse().unwrap()), asked.parse().unwrap());
        }
    }
}
