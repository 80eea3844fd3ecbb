//! **Arguments** of the function's container, as Crossplane and its users know them from other functions.

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::str::FromStr;

use clap::error::ErrorKind;
use clap::{CommandFactory as _, Parser};

/// The Crossplane composition function of vcluster-backup: serves gRPC until told to stop.
#[derive(Debug, Parser)]
#[command(name = "function-vcluster-backup", version)]
pub struct Args {
    /// Log more. Never logs what Crossplane sends or gets.
    #[arg(short, long)]
    pub debug: bool,

    /// Serve without TLS to anyone who connects: for `crossplane render` on your own machine. Wins over
    /// --tls-certs-dir.
    #[arg(long)]
    pub insecure: bool,

    /// Folder with tls.crt, tls.key and ca.crt: clients must have a certificate of that CA. Files that change
    /// are read again.
    // Not a PathBuf: an empty variable stands for none, and a PathBuf would be refused.
    #[arg(long, value_name = "DIR", env = "TLS_SERVER_CERTS_DIR")]
    tls_certs_dir: Option<OsString>,

    /// Where to serve gRPC; without a host, on every IPv4 and IPv6 address.
    #[arg(long, value_name = "HOST:PORT", default_value = "[::]:9443")]
    pub address: Address,

    /// Where to serve /metrics over HTTP.
    #[arg(long, value_name = "HOST:PORT", default_value = ":8080")]
    pub metrics_address: Address,

    /// The largest request that is accepted. A large one is an XR with many, or large, composed resources.
    #[arg(long, value_name = "MIB", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_recv_message_size: u16,
}

impl Args {
    /// Where the certificates are; `None` to serve without TLS. An error if neither was asked for.
    pub fn certificates(&self) -> Result<Option<PathBuf>, clap::Error> {
        if self.insecure {
            return Ok(None);
        }
        match self.tls_certs_dir.as_ref().filter(|dir| !dir.is_empty()) {
            Some(dir) => Ok(Some(dir.into())),
            None => Err(Self::command().error(
                ErrorKind::MissingRequiredArgument,
                "no certificates: give --tls-certs-dir DIR (or TLS_SERVER_CERTS_DIR in the environment, as \
                 Crossplane does), or --insecure to serve anyone who connects",
            )),
        }
    }

    /// The largest request that is accepted, in bytes.
    pub fn max_request_bytes(&self) -> usize {
        usize::from(self.max_recv_message_size) * 1024 * 1024
    }
}

/// Where to listen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Address {
    /// This port of every address, IPv6 and IPv4: `[::]:9443`, or `:9443` as Go programs have it.
    Every(u16),
    /// One address.
    One(SocketAddr),
}

impl FromStr for Address {
    type Err = NotAnAddress;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || NotAnAddress(text.to_owned());
        if let Some(port) = text.strip_prefix(':') {
            return port.parse().map(Self::Every).map_err(|_| wrong());
        }
        match text.to_socket_addrs().map_err(|_| wrong())?.next().ok_or_else(wrong)? {
            SocketAddr::V6(v6) if *v6.ip() == Ipv6Addr::UNSPECIFIED => Ok(Self::Every(v6.port())),
            one => Ok(Self::One(one)),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every(port) => write!(f, "[::]:{port}"),
            Self::One(address) => address.fmt(f),
        }
    }
}

/// Text that is no address.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no address: give one such as :9443, 127.0.0.1:9443 or [::1]:9443")]
pub struct NotAnAddress(String);

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Args, clap::Error> {
        Args::try_parse_from(std::iter::once("function-vcluster-backup").chain(line.split_whitespace()))
    }

    #[test]
    fn the_command_line_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn defaults_are_crossplanes() {
        let args = parse("--tls-certs-dir=/tls/server").unwrap();
        assert_eq!(args.certificates().unwrap(), Some(PathBuf::from("/tls/server")));
        assert_eq!(args.address, Address::Every(9443));
        assert_eq!(args.metrics_address, Address::Every(8080));
        assert_eq!(args.max_request_bytes(), 64 << 20);
        assert!(!args.debug);
    }

    #[test]
    fn insecure_wins() {
        assert_eq!(parse("--insecure --tls-certs-dir=/tls/server").unwrap().certificates().unwrap(), None);
        assert_eq!(parse("--insecure").unwrap().certificates().unwrap(), None);
    }

    #[test]
    fn neither_is_a_usage_error() {
        // What TLS_SERVER_CERTS_DIR= in the environment gives, too.
        for line in ["--tls-certs-dir=", "--debug --tls-certs-dir="] {
            let error = parse(line).unwrap().certificates().unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains("--tls-certs-dir DIR"), "{error}");
            assert!(error.to_string().contains("--insecure"), "{error}");
        }
    }

    #[test]
    fn addresses() {
        for (text, address) in [
            (":9443", Address::Every(9443)),
            ("[::]:9443", Address::Every(9443)),
            (":0", Address::Every(0)),
            ("0.0.0.0:9443", Address::One(([0, 0, 0, 0], 9443).into())),
            ("127.0.0.1:1", Address::One(([127, 0, 0, 1], 1).into())),
        ] {
            assert_eq!(text.parse::<Address>().unwrap(), address, "{text}");
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address, "{text}");
        }
        for text in ["", ":", "9443", ":99999", "127.0.0.1", "::"] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")), "{error}");
        }
    }
}
