//! What a run may spend: the narrowest of what is asked for and what is allowed, and whether that can
//! be kept.

use super::planner::Planner;
use crate::budget::{Amounts, Density, Prompt, fits, read_allowance};
use crate::provider::{self, CacheTime};
use crate::run::{Allowance, Caps, Code, Credentials, Finding, Measure, ProviderName, Usd};

/// One answer may take a quarter of what may be spent: with less, answers would be cut that need not
/// be; with more, sub-agents would wait for each other all the time.
const SHARE_OF_ONE_ANSWER: u64 = 4;

/// Shortest answer with which an agent can work, in tokens: a small file, or a thought and what
/// follows. Models that think need a thousand for that alone.
const MIN_OUTPUT_TOKENS: u64 = 2_000;

/// The agent CLI's own limit of an answer, in tokens.
const USUAL_OUTPUT_TOKENS: u64 = 32_000;

/// The agent CLI's own part of a first request, in bytes: its instructions and the tools' schemas.
const FIRST_PROMPT_BYTES: u64 = 60_000;

/// What was decided about money.
pub(super) struct Budget {
    pub(super) allowance: Allowance,
    pub(super) max_output_tokens: Option<u64>,
}

impl Planner<'_> {
    /// The narrowest limits, and the length of an answer that suits them.
    pub(super) fn budget(
        &mut self,
        provider: Option<ProviderName>,
        model: &str,
        credentials: Credentials,
    ) -> Budget {
        let allowance = self.allowance();
        let mut budget = Budget { allowance, max_output_tokens: None };
        if allowance.is_none() {
            return budget;
        }
        match provider {
            None => return budget,
            Some(ProviderName::Scripted) => {
                self.find(
                    Code::IdleBudget,
                    "the scripted provider costs nothing and is not asked through the gateway: the \
                     limits of what may be spent do not count",
                );
                return budget;
            }
            Some(
                ProviderName::Anthropic
                | ProviderName::Bedrock
                | ProviderName::OpenRouter
                | ProviderName::Vertex,
            ) => {}
        }
        if credentials == Credentials::Direct {
            self.find(
                Code::BudgetCannotBeKept,
                "what may be spent has a limit, and only the gateway can keep it: this run would ask \
                 its model service itself, with a credential in the sandbox",
            );
            return budget;
        }
        let cost_is_limited = allowance.narrowest(Measure::Cost).is_some();
        if cost_is_limited && price(model, 0, 0).is_none() {
            self.find_at(
                "model",
                Finding::new(
                    Code::BudgetCannotBeKept,
                    format!(
                        "what the run may cost has a limit, and the price of the model `{model}` is \
                         not known: name another model, or limit `max_tokens` and not `max_cost_usd`"
                    ),
                ),
            );
            return budget;
        }
        budget.max_output_tokens = self.max_output(&allowance, model);
        budget
    }

    /// Of the runbook, the request, the environment and the operator the narrowest word each.
    fn allowance(&mut self) -> Allowance {
        let front_matter = self.runbook.front_matter();
        let keyring = self.keyring;
        let value = |name: &str| keyring.get(name).map(|value| value.expose());
        let (of_environment, faults) = read_allowance(value);
        for fault in faults {
            self.find(Code::LimitOutOfRange, fault);
        }
        let own = front_matter.caps.narrowed(self.request.overrides.caps);
        let own = Allowance { run: own, ..Allowance::default() };
        own.narrowed(of_environment).narrowed(self.request.ceilings)
    }

    /// The most tokens of an answer, where that is less than usual. A limit that leaves no room for a
    /// first request is a finding.
    fn max_output(&mut self, allowance: &Allowance, model: &str) -> Option<u64> {
        let least = first_request(model, Some(MIN_OUTPUT_TOKENS));
        let of_share = Amounts {
            cost: price(model, 0, MIN_OUTPUT_TOKENS * SHARE_OF_ONE_ANSWER).map_or(0, Usd::micros),
            tokens: MIN_OUTPUT_TOKENS * SHARE_OF_ONE_ANSWER,
            requests: 1,
        };
        for caps in [&allowance.run, &allowance.day, &allowance.month] {
            if let Some(finding) = too_small(caps, &least, &of_share) {
                self.find_at(finding.0, Finding::new(Code::BudgetTooSmall, finding.1));
                return None;
            }
        }
        let by_tokens = allowance.narrowest(Measure::Tokens).map(|cap| cap / SHARE_OF_ONE_ANSWER);
        let by_cost = allowance.narrowest(Measure::Cost).map(|cap| {
            let million = price(model, 0, 1_000_000).map_or(0, Usd::micros).max(1);
            let tokens = u128::from(cap / SHARE_OF_ONE_ANSWER) * 1_000_000 / u128::from(million);
            u64::try_from(tokens).unwrap_or(u64::MAX)
        });
        let most = by_tokens.into_iter().chain(by_cost).min()?;
        (most < USUAL_OUTPUT_TOKENS).then_some(most.max(MIN_OUTPUT_TOKENS))
    }
}

/// What a run's first request takes at most, with an answer of at most so many tokens.
#[must_use]
pub fn first_request(model: &str, max_output: Option<u64>) -> Amounts {
    let max_output = max_output.unwrap_or(USUAL_OUTPUT_TOKENS);
    let prompt = Prompt { n_bytes: FIRST_PROMPT_BYTES, ..Prompt::default() };
    let prompt = Density::default().tokens(&prompt);
    let cost = price(model, prompt, max_output).map_or(0, Usd::micros);
    Amounts { cost, tokens: prompt + max_output, requests: 1 }
}

fn price(model: &str, input: u64, output: u64) -> Option<Usd> {
    provider::worst_case(model, input, output, CacheTime::FiveMinutes).map(Usd::at_least)
}

/// The key and the words about limits in which not even a first request has room.
fn too_small(caps: &Caps, least: &Amounts, of_share: &Amounts) -> Option<(&'static str, String)> {
    let nothing = Amounts::default();
    let measure = fits(caps, &nothing, least).and(fits(caps, &nothing, of_share)).err()?;
    let needed = least.of(measure).max(of_share.of(measure));
    Some(match measure {
        Measure::Cost => (
            "max_cost_usd",
            format!(
                "what may be spent is limited to {}, and with this model the agent needs room for \
                 at least {}",
                Usd::from_micros(caps.of(measure).unwrap_or(0)),
                Usd::from_micros(needed)
            ),
        ),
        Measure::Tokens => (
            "max_tokens",
            format!(
                "the tokens are limited to {}, and the agent needs room for at least {needed}",
                caps.of(measure).unwrap_or(0)
            ),
        ),
        Measure::Requests => ("max_requests", "no request may be made".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::rehearsal::Rehearsal;
    use crate::plan::{Overrides, Planned};
    use crate::run::RunPlan;

    fn caps(usd: Option<f64>, tokens: Option<u64>) -> Caps {
        Caps { cost: usd.and_then(Usd::new), tokens, requests: None }
    }

    /// Plans a runbook of this front matter at Anthropic, or with a script.
    fn planned(front_matter: &str, caps: Caps, environment: &[(&str, &str)]) -> Planned {
        let key = ("ANTHROPIC_API_KEY", "sk-ant-made-up");
        let keys: Vec<(&str, &str)> = environment.iter().copied().chain([key]).collect();
        let rehearsal = Rehearsal {
            keys: &keys,
            is_scripted: front_matter.contains("scripted"),
            ceilings: Allowance { run: self::caps(Some(5.0), None), ..Allowance::default() },
            ..Rehearsal::of(front_matter, Overrides { caps, ..Overrides::default() })
        };
        rehearsal.planned()
    }

    fn accepted(front_matter: &str, caps: Caps, environment: &[(&str, &str)]) -> RunPlan {
        planned(front_matter, caps, environment).accepted().unwrap()
    }

    fn code(front_matter: &str, caps: Caps, environment: &[(&str, &str)]) -> String {
        let planned = planned(front_matter, caps, environment);
        let found = planned.findings.iter().find(|found| found.is_error());
        found.map(|found| format!("{}: {}", found.code, found.message)).unwrap_or_default()
    }

    #[test]
    fn the_narrowest_limit_counts_whoever_says_it() {
        let day = ("RUNBOOKD_MAX_TOKENS_PER_DAY", "900000");
        let wide = ("RUNBOOKD_MAX_COST_USD_PER_RUN", "100");
        let narrow = ("RUNBOOKD_MAX_COST_USD_PER_RUN", "1.5");
        for (front_matter, request, environment, cost) in [
            ("version: 1", caps(None, None), wide, 5.0),
            ("max_cost_usd: 2", caps(Some(3.0), None), wide, 2.0),
            ("max_cost_usd: 3", caps(Some(2.0), None), wide, 2.0),
            ("max_cost_usd: 3", caps(Some(2.0), None), narrow, 1.5),
        ] {
            let plan = accepted(front_matter, request, &[environment, day]);
            assert_eq!(plan.allowance.run.cost, Usd::new(cost), "{front_matter}");
            assert_eq!(plan.allowance.day.tokens, Some(900_000));
        }
    }

    #[test]
    fn one_answer_takes_a_quarter_of_what_there_is_unless_that_is_more_than_usual() {
        for (limits, most) in [
            // $0.15 for output at $15 for a million.
            (caps(Some(0.6), None), Some(10_000)),
            (caps(Some(3.0), None), None),
            (caps(None, Some(100_000)), Some(25_000)),
            (caps(Some(0.6), Some(1_000_000)), Some(10_000)),
        ] {
            assert_eq!(accepted("version: 1", limits, &[]).max_output_tokens, most, "{limits:?}");
        }
    }

    #[test]
    fn a_limit_that_cannot_be_kept_is_found_before_the_run() {
        let none = caps(None, None);
        for (front_matter, limits, environment, found) in [
            (
                "max_cost_usd: 0.1",
                none,
                None,
                "budget-too-small: what may be spent is limited to $0.10, and with this model the agent needs room for at least $0.",
            ),
            (
                "max_tokens: 9000",
                none,
                None,
                "budget-too-small: the tokens are limited to 9000, and the agent needs room for at least",
            ),
            (
                "model: claude-sonnet-9",
                none,
                None,
                "budget-cannot-be-kept: what the run may cost has a limit, and the price of the model `claude-sonnet-9`",
            ),
            (
                "version: 1",
                none,
                Some(("RUNBOOKD_CREDENTIALS", "direct")),
                "budget-cannot-be-kept: what may be spent has a limit, and only the gateway can keep it",
            ),
            (
                "version: 1",
                none,
                Some(("RUNBOOKD_MAX_TOKENS_PER_DAY", "much")),
                "limit-out-of-range: RUNBOOKD_MAX_TOKENS_PER_DAY is not a whole number above 0",
            ),
            ("version: 1", caps(Some(0.14), None), None, "budget-too-small"),
            ("version: 1", none, None, ""),
            ("model_provider: scripted", caps(Some(0.1), None), None, ""),
        ] {
            let environment: Vec<(&str, &str)> = environment.into_iter().collect();
            let told = code(front_matter, limits, &environment);
            assert!(
                told.starts_with(found) && told.is_empty() == found.is_empty(),
                "{front_matter}: {told}"
            );
        }
    }
}
