//! Reads what an API call depends on: links, routes, name servers, and whether the clock is synchronised. When
//! something new appears, a call that failed before may succeed now.
//!
//! A waiting run polls these four times a second. That takes a fraction of a millisecond, needs neither netlink nor the
//! dispatcher of a network manager, and also detects what changed while no run was active.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

/// Files that list name servers: that of the resolver, and those with the real name servers if the first one lists a
/// local stub only (`systemd-resolved`, and `NetworkManager` with a local resolver).
const RESOLVER_FILES: [&str; 3] =
    ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf", "/run/NetworkManager/no-stub-resolv.conf"];
/// Flag of a route that is usable (`RTF_UP`, `linux/route.h`).
const UP: u32 = 1;
/// Flag of a route to this machine itself (`RTF_LOCAL`, `linux/ipv6_route.h`).
const LOCAL: u32 = 0x8000_0000;
/// Flag of an IPv6 address that is not usable yet (`IFA_F_TENTATIVE`, `linux/if_addr.h`).
const TENTATIVE: u32 = 0x40;
/// The start of a link-local address, which reaches no other network (RFC 4291, 2.5.6).
const LINK_LOCAL: &str = "fe80";
/// The maximum number of entries of each kind. On a machine with more, these are enough to detect a new network.
const MAX_ENTRIES: usize = 64;

/// Links that are up, routes, name servers, and whether the clock is synchronised, each as a word.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(transparent)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Surroundings(BTreeSet<String>);

impl Surroundings {
    /// Reads the present state. A file that can't be read counts as empty.
    pub fn read(is_synchronised: bool) -> Self {
        let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let mut all: BTreeSet<String> = links().take(MAX_ENTRIES).collect();
        all.extend(routes(&text("/proc/net/route"), is_device).take(MAX_ENTRIES));
        all.extend(routes_6(&text("/proc/net/ipv6_route"), is_device).take(MAX_ENTRIES));
        all.extend(addresses_6(&text("/proc/net/if_inet6"), is_device).take(MAX_ENTRIES));
        for file in RESOLVER_FILES {
            all.extend(name_servers(&text(file)).take(MAX_ENTRIES));
        }
        if is_synchronised {
            all.insert("clock".to_owned());
        }
        Self(all)
    }

    /// Returns the state of a simulated machine.
    #[cfg(feature = "simulation")]
    pub fn of(words: impl IntoIterator<Item = String>) -> Self {
        Self(words.into_iter().collect())
    }

    /// Returns whether something is new since `before`. Something that disappeared is no reason for another call.
    pub fn has_more_than(&self, before: &Self) -> bool {
        !self.0.is_subset(&before.0)
    }
}

/// Returns whether an interface belongs to a hardware device. Others come and go with containers, and matter only for a
/// default route.
fn is_device(interface: &str) -> bool {
    Path::new("/sys/class/net").join(interface).join("device").exists()
}

/// Returns links with a carrier (`/sys/class/net/*/operstate`; drivers that do not report a state have `unknown`).
fn links() -> impl Iterator<Item = String> {
    let entries = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let state = fs::read_to_string(entry.path().join("operstate")).ok()?;
        let is_up = matches!(state.trim(), "up" | "unknown") && is_device(entry.file_name().to_str()?);
        is_up.then(|| format!("link {}", entry.file_name().to_string_lossy()))
    })
}

/// Parses the routes of `/proc/net/route`: interface, destination, gateway, flags, …, mask.
fn routes(table: &str, is_device: fn(&str) -> bool) -> impl Iterator<Item = String> {
    table.lines().skip(1).filter_map(move |line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let &[interface, destination, gateway, flags, _, _, _, mask, ..] = fields.as_slice() else { return None };
        let is_up = u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & UP != 0);
        let is_default = is_zero(destination) && is_zero(mask);
        (is_up && (is_default || is_device(interface)))
            .then(|| format!("route {interface} {destination} {mask} {gateway}"))
    })
}

/// Parses the routes of `/proc/net/ipv6_route`: destination, its length, source, its length, gateway, metric, two
/// counters, flags, interface. Skips routes to the machine itself, link-local routes and multicast.
fn routes_6(table: &str, is_device: fn(&str) -> bool) -> impl Iterator<Item = String> {
    table.lines().filter_map(move |line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let &[destination, length, _, _, gateway, _, _, _, flags, interface] = fields.as_slice() else { return None };
        let flags = u32::from_str_radix(flags, 16).ok()?;
        let is_wide = !destination.starts_with("ff") && !destination.starts_with(LINK_LOCAL);
        let is_usable = flags & UP != 0 && flags & LOCAL == 0 && interface != "lo" && is_wide;
        let is_default = is_zero(destination) && is_zero(length);
        (is_usable && (is_default || is_device(interface)))
            .then(|| format!("route {interface} {destination} {length} {gateway}"))
    })
}

fn is_zero(hexadecimal: &str) -> bool {
    hexadecimal.bytes().all(|digit| digit == b'0')
}

/// Parses the addresses of `/proc/net/if_inet6`: address, index, prefix length, scope, flags, interface.
///
/// A route may exist before duplicate address detection has finished (RFC 4862, 5.4), so the address is needed as well.
/// Skips link-local addresses, which exist as soon as a link is up.
fn addresses_6(table: &str, is_device: fn(&str) -> bool) -> impl Iterator<Item = String> {
    table.lines().filter_map(move |line| {
        let fields: Vec<_> = line.split_ascii_whitespace().collect();
        let &[address, _, _, _, flags, interface] = fields.as_slice() else { return None };
        let is_usable =
            u32::from_str_radix(flags, 16).is_ok_and(|flags| flags & TENTATIVE == 0) && is_device(interface);
        (is_usable && !address.starts_with(LINK_LOCAL)).then(|| format!("address {interface} {address}"))
    })
}

/// Parses the name servers of a `resolv.conf(5)`.
fn name_servers(text: &str) -> impl Iterator<Item = String> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        (words.next() == Some("nameserver")).then(|| words.next()).flatten().map(|server| format!("dns {server}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &[&str]) -> Surroundings {
        Surroundings(words.iter().map(|&word| word.to_owned()).collect())
    }

    // Promise: only something new ends a wait; something that is gone or unchanged does not.
    #[test]
    fn only_what_is_new_counts() {
        for (before, now, is_more) in [
            (&[][..], &[][..], false),
            (&[], &["link a"], true),
            (&["link a"], &["link a"], false),
            (&["link a", "dns 1"], &["link a"], false),
            (&["dns 1"], &["dns 2"], true),
            (&["route a"], &["route a", "clock"], true),
        ] {
            assert_eq!(of(now).has_more_than(&of(before)), is_more, "{before:?} {now:?}");
        }
    }

    // Promise: the kernel's tables are read as they are (Linux 6.1); counters, routes to the machine itself and
    // container interfaces are left out.
    #[test]
    fn kernel_tables_are_parsed() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0100A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0\n\
                  eth0\t0000A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n\
                  eth1\t00000000\t00000000\t0000\t0\t0\t0\t00000000\t0\t0\t0\ncut\n";
        let is_device = |interface: &str| interface == "eth0";
        assert_eq!(routes(v4, |_| false).collect::<Vec<_>>(), ["route eth0 00000000 00000000 0100A8C0"]);
        let found: Vec<_> = routes(v4, is_device).collect();
        assert_eq!(found, ["route eth0 00000000 00000000 0100A8C0", "route eth0 0000A8C0 00FFFFFF 00000000"]);
        let zeros = "00000000000000000000000000000000";
        let gateway = "fe800000000000000000000000000001";
        let v6 = format!(
            "{zeros} 00 {zeros} 00 {gateway} 00000400 00000001 00000000 00000003      eth0\n\
             fe80{} 40 {zeros} 00 {zeros} 00000100 00000001 00000000 00000001      eth0\n\
             {zeros} 00 {zeros} 00 {zeros} ffffffff 00000001 00000000 00200200        lo\n\
             fe80{}1 80 {zeros} 00 {zeros} 00000000 00000002 00000000 80200001      eth0\n\
             ff00{} 08 {zeros} 00 {zeros} 00000100 00000003 00000000 00000001      eth0\n",
            "0".repeat(28),
            "0".repeat(27),
            "0".repeat(28)
        );
        let found: Vec<_> = routes_6(&v6, is_device).collect();
        assert_eq!(found, [format!("route eth0 {zeros} 00 {gateway}")]);
        let addresses = "fe800000000000000000000000000002 02 40 20 80     eth0\n\
                         20010db8000000000000000000000001 02 40 00 80     eth0\n\
                         20010db8000000000000000000000002 02 40 00 40     eth0\n\
                         00000000000000000000000000000001 01 80 10 80       lo\n";
        let found: Vec<_> = addresses_6(addresses, is_device).collect();
        assert_eq!(found, ["address eth0 20010db8000000000000000000000001"]);
    }

    // Promise: only nameserver lines of resolv.conf(5) are read.
    #[test]
    fn name_servers_are_parsed() {
        let text = "# nameserver 1.1.1.1\nsearch example\n nameserver 192.0.2.1\nnameserver\t2001:db8::1\noptions edns0\nnameserver\n";
        assert_eq!(name_servers(text).collect::<Vec<_>>(), ["dns 192.0.2.1", "dns 2001:db8::1"]);
    }
}
