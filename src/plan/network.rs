//! What the sandbox can reach: the request's word, or the runbook's, within what runs may use here.

use super::planner::Planner;
use crate::run::{Code, Finding, Network};

impl Planner<'_> {
    /// The request wins over the runbook. A mode that runs may not use is refused and never
    /// narrowed: a run that cannot reach what it needs fails late, and nobody knows why.
    pub(super) fn network(&mut self) -> Network {
        let front_matter = self.runbook.front_matter();
        let overrides = &self.request.overrides;
        let of_runbook = match (&front_matter.network, front_matter.network_enabled) {
            (Some(network), _) => Some(network.clone()),
            (None, Some(true)) => Some(Network::default()),
            (None, Some(false)) => Some(Network::None),
            (None, None) => None,
        };
        let network = match (&overrides.network, overrides.network_enabled) {
            (Some(network), _) => network.clone(),
            (None, Some(false)) => Network::None,
            // What the runbook narrows stays narrow: many clients always say so.
            (None, Some(true)) => {
                of_runbook.filter(|network| *network != Network::None).unwrap_or_default()
            }
            (None, None) => of_runbook.unwrap_or_default(),
        };
        let permitted = self.setting.networks;
        if !permitted.permit(network.mode()) {
            let words = format!(
                "the network `{}` may not be used here: write one of {permitted}, or have the \
                 server's operator allow it (RUNBOOKD_NETWORKS)",
                network.mode()
            );
            self.find_at("network", Finding::new(Code::NetworkNotPermitted, words));
        }
        network
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::rehearsal::Rehearsal;
    use crate::plan::{Overrides, Planned};
    use crate::run::Networks;

    fn planned(front_matter: &str, overrides: Overrides, networks: &Networks) -> Planned {
        let networks = networks.clone();
        Rehearsal { networks, ..Rehearsal::of(front_matter, overrides) }.planned()
    }

    #[test]
    fn the_request_wins_over_the_runbook_and_true_widens_nothing() {
        let list = Network::Allowlist(vec!["pypi.org".parse().unwrap()]);
        let asked = |network| Overrides { network: Some(network), ..Overrides::default() };
        let enabled = |on| Overrides { network_enabled: Some(on), ..Overrides::default() };
        let none = Overrides::default;
        for (written, overrides, expected) in [
            ("", none(), Network::Public),
            ("network: none", none(), Network::None),
            ("network_enabled: false", none(), Network::None),
            ("network_enabled: true", none(), Network::Public),
            ("network: {allow: [pypi.org]}", none(), list.clone()),
            ("network: {allow: [pypi.org]}", enabled(true), list.clone()),
            ("network: {allow: [pypi.org]}", enabled(false), Network::None),
            ("network: {allow: [pypi.org]}", asked(Network::Public), Network::Public),
            ("network: none", enabled(true), Network::Public),
            ("network: none", asked(Network::Open), Network::Open),
        ] {
            let plan = planned(written, overrides, &Networks::all()).plan.unwrap();
            assert_eq!(plan.network, expected, "{written}");
        }
    }

    #[test]
    fn a_network_that_runs_may_not_use_is_refused_with_what_to_do() {
        let refused = planned(
            "agent: claude-code\nnetwork: open",
            Overrides::default(),
            &Networks::default(),
        );
        assert!(refused.plan.is_none());
        assert_eq!(
            refused.findings[0].sentence(),
            "The network `open` may not be used here: write one of none, allowlist, public, or have \
             the server's operator allow it (RUNBOOKD_NETWORKS) (line 3)."
        );
        let only_none: Networks = "none".parse().unwrap();
        assert!(planned("", Overrides::default(), &only_none).plan.is_none());
    }
}
