//! What do the files say that every pod gets: name resolution, host names?

use std::fmt::Write;
use std::net::IpAddr;

/// How a pod resolves names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resolver {
    /// Name servers.
    pub servers: Vec<String>,
    /// Domains that are tried after each other.
    pub search: Vec<String>,
    /// Options, such as `ndots:5`.
    pub options: Vec<String>,
}

impl Resolver {
    /// That of `dnsPolicy: ClusterFirst`.
    pub fn of_cluster(server: &str, namespace: &str, domain: &str) -> Resolver {
        Resolver {
            servers: vec![server.to_string()],
            search: vec![format!("{namespace}.svc.{domain}"), format!("svc.{domain}"), domain.to_string()],
            options: vec!["ndots:5".into()],
        }
    }

    /// Adds what `dnsConfig` has.
    pub fn with(mut self, servers: &[String], search: &[String], options: &[(String, Option<String>)]) -> Resolver {
        self.servers.extend_from_slice(servers);
        self.search.extend_from_slice(search);
        for (name, value) in options {
            self.options.retain(|o| o.split(':').next() != Some(name));
            self.options.push(value.as_ref().map_or_else(|| name.clone(), |v| format!("{name}:{v}")));
        }
        self
    }

    /// As `/etc/resolv.conf`.
    pub fn text(&self) -> String {
        let mut text = String::new();
        if !self.search.is_empty() {
            text.push_str(&format!("search {}\n", self.search.join(" ")));
        }
        for server in &self.servers {
            text.push_str(&format!("nameserver {server}\n"));
        }
        if !self.options.is_empty() {
            text.push_str(&format!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

/// `/etc/hosts` of a pod.
pub fn hosts(addresses: &[IpAddr], hostname: &str, aliases: &[(String, Vec<String>)]) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n\
         ff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for address in addresses {
        let _ = writeln!(text, "{address}\t{hostname}");
    }
    for (address, names) in aliases {
        let _ = writeln!(text, "{address}\t{}", names.join("\t"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_comes_first() {
        let resolver = Resolver::of_cluster("10.96.0.10", "shop", "cluster.local");
        assert_eq!(
            resolver.text(),
            "search shop.svc.cluster.local svc.cluster.local cluster.local\nnameserver 10.96.0.10\noptions ndots:5\n"
        );
    }

    #[test]
    fn dns_config_adds_and_replaces_options() {
        let resolver = Resolver::of_cluster("10.96.0.10", "shop", "cluster.local").with(
            &["1.1.1.1".into()],
            &["example.org".into()],
            &[("ndots".into(), Some("2".into())), ("edns0".into(), None)],
        );
        assert!(resolver.text().ends_with(
            "cluster.local example.org\nnameserver 10.96.0.10\nnameserver 1.1.1.1\noptions ndots:2 edns0\n"
        ));
    }
}
