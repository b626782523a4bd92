//! The model services' own hosts. They are reached through the run's gateway alone: with an account
//! of their own somebody could carry data out through a host that everybody trusts.

use std::net::IpAddr;

/// Domains of model services, with everything below them.
const DOMAINS: [&str; 6] = [
    "anthropic.com",
    "claude.ai",
    "api.claude.com",
    "platform.claude.com",
    "console.claude.com",
    "openrouter.ai",
];

/// Pages for people below them, which take no data.
const PAGES: [&str; 4] =
    ["anthropic.com", "www.anthropic.com", "docs.anthropic.com", "support.anthropic.com"];

/// Clouds that have a model service among others, and the label by which it is known.
const IN_CLOUDS: [(&str, &str); 5] = [
    ("amazonaws.com", "bedrock"),
    ("amazonaws.com.cn", "bedrock"),
    ("api.aws", "bedrock"),
    ("googleapis.com", "aiplatform"),
    ("goog", "aiplatform"),
];

/// Where Anthropic's API is, as it says itself: a name of somebody's own may lead there.
const ANTHROPIC_V4: (u32, u32) = (0xa04f_6800, 23);
/// See [`ANTHROPIC_V4`].
const ANTHROPIC_V6: (u128, u32) = (0x2607_6bc0 << 96, 48);

/// Whether a host in its one spelling is a model service's.
pub(super) fn is_service(host: &str) -> bool {
    let is_at_or_below = |domain: &str| {
        host.strip_suffix(domain).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    let in_cloud = IN_CLOUDS.iter().any(|(cloud, service)| {
        // `us-east5-aiplatform`, `bedrock-runtime`, `bedrock-agent-runtime-fips`.
        let is_its = |label: &str| label.split('-').any(|word| word == *service);
        is_at_or_below(cloud) && host.split('.').any(is_its)
    });
    in_cloud || (DOMAINS.into_iter().any(is_at_or_below) && !PAGES.contains(&host))
}

/// Whether an address is a model service's own.
pub(super) fn is_service_address(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let (base, n_bits) = ANTHROPIC_V4;
            (address.to_bits() ^ base) >> (32 - n_bits) == 0
        }
        IpAddr::V6(address) => match address.to_ipv4_mapped() {
            Some(mapped) => is_service_address(IpAddr::V4(mapped)),
            None => {
                let (base, n_bits) = ANTHROPIC_V6;
                (address.to_bits() ^ base) >> (128 - n_bits) == 0
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_of_model_services_are_known_in_every_region() {
        for host in [
            "api.anthropic.com",
            "statsig.anthropic.com",
            "claude.ai",
            "openrouter.ai",
            "gateway.openrouter.ai",
            "bedrock-runtime.us-east-1.amazonaws.com",
            "bedrock-runtime-fips.us-gov-west-1.amazonaws.com",
            "bedrock.eu-central-1.amazonaws.com",
            "bedrock-agent-runtime.eu-west-1.api.aws",
            "vpce-1.bedrock-runtime.us-east-1.vpce.amazonaws.com",
            "aiplatform.googleapis.com",
            "us-east5-aiplatform.googleapis.com",
            "aiplatform.us.rep.googleapis.com",
        ] {
            assert!(is_service(host), "{host}");
        }
        for host in [
            "anthropic.com",
            "docs.anthropic.com",
            "notanthropic.com",
            "anthropic.com.example.org",
            "s3.us-east-1.amazonaws.com",
            "bedrock.example.org",
            "storage.googleapis.com",
            "docs.claude.com",
        ] {
            assert!(!is_service(host), "{host}");
        }
    }

    #[test]
    fn the_address_of_a_model_service_is_known_under_any_name() {
        for (address, expected) in [
            ("160.79.104.10", true),
            ("160.79.105.255", true),
            ("160.79.106.0", false),
            ("::ffff:160.79.104.10", true),
            ("2607:6bc0::10", true),
            ("2607:6bc1::10", false),
            ("93.184.216.34", false),
        ] {
            assert_eq!(is_service_address(address.parse().unwrap()), expected, "{address}");
        }
    }
}
