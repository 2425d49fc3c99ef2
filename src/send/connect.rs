//! A connection to an endpoint's host: name looked up, every address judged, TLS shaken.
//!
//! Nothing is connected to that [`address::verdict`] has not allowed a moment before, and a name with
//! one refused address is refused whole, so that an answer of a hostile name server wins nothing.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use ipnet::IpNet;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::address::{self, Permit, RefusedAddress};
use super::resolve::Resolve;
use super::stream::Stream;
use crate::delivery::SendErrorKind;
use crate::endpoint::EndpointUrl;

/// A name with more addresses than this is refused.
const ADDRESSES_MAX: usize = 32;
/// The longest name that DNS knows.
const NAME_BYTES_MAX: usize = 253;
/// Where an address among several does not answer, the next is tried after its share of the time, but not before this.
const ADDRESS_SHARE_MIN: Duration = Duration::from_millis(250);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Neither a name nor an address.
    #[error("the URL's host is neither a name nor an address")]
    Host,
    /// The look-up failed.
    #[error("the host's name was not found: {0}")]
    LookUp(io::Error),
    /// The look-up took too long.
    #[error("the look-up of the host's name did not end within {0:?}")]
    LookUpTimeout(Duration),
    /// The look-up gave nothing.
    #[error("the host's name has no address")]
    NoAddress,
    /// The look-up gave too much.
    #[error("the host's name has {0} addresses, more than {ADDRESSES_MAX}")]
    Addresses(usize),
    /// An address that deliveries may not go to.
    #[error("{0}; `delivery.allow_networks` can allow it")]
    Refused(RefusedAddress),
    /// A port that deliveries may not go to.
    #[error("port {0} is another service's; listing the address in `delivery.allow_networks` allows it")]
    Port(u16),
    /// The address is public, but this machine's own.
    #[error("{0} is this machine's own address; `delivery.allow_networks` can allow it")]
    ThisMachine(IpAddr),
    /// No connection.
    #[error("{}", connect_sentence(.0))]
    Tcp(io::Error),
    /// No connection in time.
    #[error("no connection within {0:?}")]
    TcpTimeout(Duration),
    /// No TLS.
    #[error("the TLS handshake failed: {0}")]
    Tls(io::Error),
    /// No TLS in time.
    #[error("the TLS handshake did not end within {0:?}")]
    TlsTimeout(Duration),
}

impl Error {
    /// The word for it.
    pub(super) fn kind(&self) -> SendErrorKind {
        match self {
            Self::Host | Self::LookUp(_) | Self::LookUpTimeout(_) | Self::NoAddress | Self::Addresses(_) => {
                SendErrorKind::Dns
            }
            Self::Refused(_) | Self::Port(_) | Self::ThisMachine(_) => SendErrorKind::AddressRefused,
            Self::Tcp(_) | Self::TcpTimeout(_) => SendErrorKind::Connect,
            Self::Tls(_) | Self::TlsTimeout(_) => SendErrorKind::Tls,
        }
    }
}

fn connect_sentence(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "the connection was refused".to_owned(),
        _ => format!("no connection: {error}"),
    }
}

/// Makes connections.
#[derive(Clone)]
pub(super) struct Connector {
    pub(super) allowed: Arc<[IpNet]>,
    pub(super) resolver: Arc<dyn Resolve>,
    pub(super) tls: Arc<rustls::ClientConfig>,
    /// See [`Stream`].
    pub(super) answer_bytes_max: usize,
}

impl Connector {
    /// Connects to where `uri` leads, within `bound`: name look-up, TCP and TLS.
    pub(super) async fn connect(&self, uri: &Uri, bound: Duration) -> Result<Stream, Error> {
        let deadline = Instant::now() + bound;
        let host = Host::parse(uri.host().unwrap_or_default())?;
        let port = port_of(uri);
        let addresses = match &host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => timeout_at(deadline, self.resolver.resolve(name))
                .await
                .map_err(|_| Error::LookUpTimeout(bound))?
                .map_err(Error::LookUp)?,
        };
        self.judge(&addresses, port)?;
        let tcp = connect_to_first(&addresses, port, deadline, bound).await?;
        // Without it the last piece of a request waits for an acknowledgement of the one before.
        tcp.set_nodelay(true).map_err(Error::Tcp)?;
        if !is_encrypted(uri) {
            return Ok(Stream::plain(tcp, self.answer_bytes_max));
        }
        let tls = timeout_at(deadline, TlsConnector::from(Arc::clone(&self.tls)).connect(host.server_name()?, tcp))
            .await
            .map_err(|_| Error::TlsTimeout(bound))?
            .map_err(Error::Tls)?;
        Ok(Stream::tls(tls, self.answer_bytes_max))
    }

    /// Refuses all of a host's addresses when one of them may not be connected to.
    fn judge(&self, addresses: &[IpAddr], port: u16) -> Result<(), Error> {
        match addresses.len() {
            0 => return Err(Error::NoAddress),
            1..=ADDRESSES_MAX => {}
            count => return Err(Error::Addresses(count)),
        }
        for address in addresses {
            match permit(*address, port, &self.allowed)? {
                Permit::Public if is_this_machine(*address) => return Err(Error::ThisMachine(*address)),
                Permit::Public | Permit::Listed => {}
            }
        }
        Ok(())
    }
}

/// Whether deliveries may go to this port of an address, as far as that can be told on any machine.
fn permit(address: IpAddr, port: u16, allowed: &[IpNet]) -> Result<Permit, Error> {
    let permit = address::verdict(address, allowed).map_err(Error::Refused)?;
    match permit {
        Permit::Public if !address::port_is_allowed(port) => Err(Error::Port(port)),
        Permit::Public | Permit::Listed => Ok(permit),
    }
}

/// Why no attempt will connect to a URL, where its host says so without a look-up: it is an address, or `localhost`.
pub fn refusal(url: &EndpointUrl, allowed: &[IpNet]) -> Option<String> {
    let refused = |address: IpAddr| permit(address, port_of(url.uri()), allowed).err();
    let error = match Host::parse(url.uri().host().unwrap_or_default()).ok()? {
        Host::Address(address) => refused(address),
        // One of the two may be all that the name stands for.
        Host::Name(name) if name.trim_end_matches('.').eq_ignore_ascii_case("localhost") => {
            refused(Ipv4Addr::LOCALHOST.into()).filter(|_| refused(Ipv6Addr::LOCALHOST.into()).is_some())
        }
        Host::Name(_) => None,
    };
    error.map(|error| error.to_string())
}

fn port_of(uri: &Uri) -> u16 {
    uri.port_u16().unwrap_or(if is_encrypted(uri) { 443 } else { 80 })
}

fn is_encrypted(uri: &Uri) -> bool {
    uri.scheme() == Some(&http::uri::Scheme::HTTPS)
}

/// A URL's host.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Host<'a> {
    /// Written as an address.
    Address(IpAddr),
    /// Anything else. Some of what passes here (`127.1`, `0x7f000001`) the system reads as an address; the verdict comes after that.
    Name(&'a str),
}

impl<'a> Host<'a> {
    pub(super) fn parse(host: &'a str) -> Result<Self, Error> {
        if let Some(bracketed) = host.strip_prefix('[') {
            let inner = bracketed.strip_suffix(']').ok_or(Error::Host)?;
            return inner.parse::<Ipv6Addr>().map(|address| Self::Address(address.into())).map_err(|_| Error::Host);
        }
        if let Ok(address) = host.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        let is_name = !host.is_empty()
            && host.len() <= NAME_BYTES_MAX
            && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
        if is_name { Ok(Self::Name(host)) } else { Err(Error::Host) }
    }

    /// What the certificate must be for.
    fn server_name(&self) -> Result<ServerName<'static>, Error> {
        match self {
            Self::Address(address) => Ok(ServerName::from(*address)),
            Self::Name(name) => ServerName::try_from((*name).to_owned()).map_err(|_| Error::Host),
        }
    }
}

/// Tries the addresses in turn, each for its share of the time that is left.
async fn connect_to_first(
    addresses: &[IpAddr],
    port: u16,
    deadline: Instant,
    bound: Duration,
) -> Result<TcpStream, Error> {
    let mut last = Error::TcpTimeout(bound);
    for (index, address) in addresses.iter().enumerate() {
        let left = deadline.saturating_duration_since(Instant::now());
        let untried = u32::try_from(addresses.len() - index).unwrap_or(u32::MAX);
        let share = (left / untried).max(ADDRESS_SHARE_MIN).min(left);
        last = match timeout(share, TcpStream::connect(SocketAddr::new(*address, port))).await {
            Ok(Ok(tcp)) => return Ok(tcp),
            Ok(Err(error)) => Error::Tcp(error),
            Err(_) => Error::TcpTimeout(bound),
        };
    }
    Err(last)
}

/// Whether packets to `address` stay on this machine: then the kernel sends from that very address.
///
/// Connecting a datagram socket asks the kernel for the route and sends nothing.
fn is_this_machine(address: IpAddr) -> bool {
    let any = match address {
        IpAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        IpAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let sends_from = || -> io::Result<IpAddr> {
        let socket = UdpSocket::bind(any)?;
        socket.connect((address, 9))?;
        Ok(socket.local_addr()?.ip())
    };
    // Without a route there will be no connection either.
    sends_from().is_ok_and(|own| own == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_addresses_only_in_their_one_plain_form() {
        for (text, host) in [
            ("127.0.0.1", Some(Host::Address(IpAddr::from([127, 0, 0, 1])))),
            ("[::1]", Some(Host::Address(IpAddr::from(Ipv6Addr::LOCALHOST)))),
            ("127.1", Some(Host::Name("127.1"))),
            ("2130706433", Some(Host::Name("2130706433"))),
            ("0x7f000001", Some(Host::Name("0x7f000001"))),
            ("hooks.example.com", Some(Host::Name("hooks.example.com"))),
            ("localhost.", Some(Host::Name("localhost."))),
            ("", None),
            ("[::1", None),
            ("[fe80::1%25eth0]", None),
            ("[v1.x]", None),
            ("[127.0.0.1]", None),
            ("a%2eb", None),
            ("a$b", None),
            ("\u{ff11}\u{ff12}\u{ff17}.0.0.1", None),
            (&"a".repeat(254), None),
        ] {
            assert_eq!(Host::parse(text).ok(), host, "{text}");
        }
    }

    #[test]
    fn urls_are_refused_beforehand_as_attempts_refuse_them() {
        for (url, allowed, part) in [
            ("https://10.0.0.1/hook", "192.168.0.0/16", Some("10.0.0.1 is private; `delivery.allow_networks`")),
            ("https://10.0.0.1/hook", "10.0.0.0/8", None),
            ("http://127.0.0.1:8080", "10.0.0.0/8", Some("127.0.0.1 is loopback")),
            ("http://[::1]:8080", "127.0.0.0/8", Some("::1 is loopback")),
            ("http://169.254.169.254/", "169.254.0.0/16", Some("listed by itself")),
            ("http://[::ffff:10.0.0.1]/", "192.168.0.0/16", Some("10.0.0.1 is private")),
            ("http://[64:ff9b::a00:1]/", "64:ff9b::/96", Some("carries 10.0.0.1")),
            ("http://LocalHost.:8080", "10.0.0.0/8", Some("127.0.0.1 is loopback")),
            ("http://localhost:8080", "127.0.0.0/8", None),
            ("http://localhost:8080", "::1/128", None),
            ("https://8.8.8.8:6379", "10.0.0.0/8", Some("port 6379")),
            ("https://8.8.8.8:8443", "10.0.0.0/8", None),
            ("https://hooks.example.com:6379", "10.0.0.0/8", None),
        ] {
            let found = refusal(&EndpointUrl::parse(url).unwrap(), &[allowed.parse().unwrap()]);
            let fits = match (&found, part) {
                (Some(found), Some(part)) => found.contains(part),
                (found, part) => found.is_none() && part.is_none(),
            };
            assert!(fits, "{url} with {allowed}: {found:?}");
        }
    }

    #[test]
    fn this_machine_is_recognized_without_a_packet() {
        assert!(is_this_machine(IpAddr::from([127, 0, 0, 1])));
        assert!(!is_this_machine(IpAddr::from([192, 0, 2, 1])), "an address for documentation");
    }
}
