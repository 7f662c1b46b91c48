//! Addresses as people write them.

/// The base URL of a server that was named `host`, `host:port` or `http://host:port`; `default_port` is used
/// where no port is said. An IPv6 address stands in brackets. The answer has no trailing slash.
///
/// Errors say what is wrong with the address.
pub fn server_url(address: &str, default_port: u16) -> Result<String, String> {
    let complain = |why: &str| Err(format!("{address:?} is not a server address: {why} (write HOST:PORT)"));
    let rest = match address.split_once("://") {
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return complain(&format!("the scheme {scheme:?} is not served")),
        None => address,
    };
    let rest = rest.trim_end_matches('/');
    if rest.is_empty() || rest.contains(['/', ' ', '?', '#', '@']) {
        return complain("it has to be a host and a port");
    }
    let (host, port) = match rest.rfind(':') {
        Some(at) if !rest[at..].contains(']') => (&rest[..at], Some(&rest[at + 1..])),
        _ => (rest, None),
    };
    if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
        return complain("the host is missing, or an IPv6 address without brackets");
    }
    let port = match port.map(str::parse::<u16>) {
        None => default_port,
        Some(Ok(port)) if port != 0 => port,
        Some(_) => return complain("the port is a number from 1 to 65535"),
    };
    Ok(format!("http://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::server_url;

    #[test]
    fn hosts_ports_and_urls_are_understood() {
        for (given, url) in [
            ("master", "http://master:8820"),
            ("10.0.0.1:9", "http://10.0.0.1:9"),
            ("http://h:1/", "http://h:1"),
            ("[::1]", "http://[::1]:8820"),
            ("[::1]:5", "http://[::1]:5"),
        ] {
            assert_eq!(server_url(given, 8820).as_deref(), Ok(url), "{given}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for bad in ["", "http://", "https://h", "h:0", "h:99999", "h:x", "::1", "a/b", "u@h", ":8820"] {
            assert!(server_url(bad, 8820).is_err(), "{bad}");
        }
    }
}
