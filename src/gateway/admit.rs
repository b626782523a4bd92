//! A request before its run's purse: let through with what it may take set aside, and settled at its
//! end.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use super::bill::{Bill, cost_of, took};
use super::ledger::{Charged, GatewayRecord, Outcome, Reserved};
use super::refusal::Refusal;
use crate::provider::CacheTime;
use crate::run::Usd;
use crate::spend::{Asked, Charge, Held, NotAdmitted, Purse, Took};
use crate::trajectory::Usage;

/// What is set aside for a request.
#[derive(Debug)]
pub(super) struct SetAside {
    held: Held,
    /// How long the cache keeps what it writes, as far as it asked for that.
    cache: CacheTime,
}

/// How long a request waits before the ledger is told that it does. Most are let through within
/// milliseconds.
const WAITS_AFTER: Duration = Duration::from_secs(1);

/// Sets aside what a request may take, and notes it. Where that takes long, `note` is told at once:
/// whoever reads the ledger should not take it for silence.
pub(super) async fn set_aside(
    purse: &Purse,
    record: &mut GatewayRecord,
    body: &[u8],
    note: impl Fn(&GatewayRecord),
) -> Result<SetAside, Refusal> {
    let bill = Bill::read(body).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    let model = record.model.clone().unwrap_or_default();
    if let Some(why) = bill.dear.filter(|_| purse.limits_cost()) {
        return Err(Refusal::Unpriced(why.to_owned()));
    }
    let price = |input: u64, output: u64| bill.price(&model, input, output);
    let asked =
        Asked { prompt: bill.prompt, max_output: bill.max_output, model: &model, price: &price };
    let mut admitted = pin!(purse.admit(asked));
    let admitted = match timeout(WAITS_AFTER, admitted.as_mut()).await {
        Ok(admitted) => admitted,
        Err(_) => {
            note(&GatewayRecord { outcome: Outcome::Waiting, ..record.clone() });
            admitted.await
        }
    };
    let held = admitted.map_err(|e| refusal(e, &model, record))?;
    record.waited_ms = waited_ms(held.waited());
    let reserved = held.reserved();
    record.reserved =
        Some(Reserved { cost_usd: Usd::from_micros(reserved.cost), tokens: reserved.tokens });
    Ok(SetAside { held, cache: bill.cache })
}

fn refusal(why: NotAdmitted, model: &str, record: &mut GatewayRecord) -> Refusal {
    match why {
        NotAdmitted::Exhausted(exhausted) => {
            record.exhausted = Some(exhausted.clone());
            Refusal::Exhausted(exhausted.to_string())
        }
        NotAdmitted::Unpriced => {
            let model: String = model.chars().take(200).collect();
            Refusal::Unpriced(format!("the price of the model `{model}` is not known here"))
        }
        NotAdmitted::Busy { wait, retry_after } => Refusal::Busy { wait, retry_after },
        NotAdmitted::Unknown => Refusal::Uncounted,
    }
}

/// Settles a request by how it ended, and notes it.
pub(super) fn settle(set_aside: SetAside, record: &mut GatewayRecord, was_sent: bool) {
    let (charge, charged) = charge(&set_aside, record, was_sent);
    record.charged = Some(charged);
    set_aside.held.settle(charge);
}

fn charge(
    SetAside { held, cache }: &SetAside,
    record: &GatewayRecord,
    was_sent: bool,
) -> (Charge, Charged) {
    let kept = || {
        let reserved = held.reserved();
        let cost_usd = Some(Usd::from_micros(reserved.cost));
        (Charge::Kept, Charged { cost_usd, tokens: reserved.tokens, is_reserved: true })
    };
    match (record.outcome, &record.usage) {
        (Outcome::Complete, Some(usage)) => {
            let took = dearest(record, &within(usage, *cache));
            let tokens = took.tokens();
            (Charge::Took(took), Charged { cost_usd: took.cost, tokens, is_reserved: false })
        }
        (Outcome::Refused | Outcome::Failed | Outcome::Waiting, _) => nothing(),
        (Outcome::Unreachable, _) if !was_sent => nothing(),
        // The service may bill what nobody heard of.
        (Outcome::Complete, None)
        | (Outcome::InFlight | Outcome::Broken | Outcome::Abandoned | Outcome::Unreachable, _) => {
            kept()
        }
    }
}

/// The usage with what nobody told how long the cache keeps it: as long as was asked for.
fn within(usage: &Usage, cache: CacheTime) -> Usage {
    match cache {
        CacheTime::FiveMinutes => *usage,
        CacheTime::Hour => Usage {
            cache_write_1h: usage.cache_write_1h.saturating_add(usage.cache_write_unsplit),
            cache_write_unsplit: 0,
            ..*usage
        },
    }
}

/// What an answer took: by the price of the model that was asked, or of the one that answered, where
/// that is another and dearer.
fn dearest(record: &GatewayRecord, usage: &Usage) -> Took {
    let models = [record.model.as_deref(), record.model_served.as_deref()];
    let costs = models.iter().flatten().filter_map(|model| cost_of(model, usage));
    let cost = costs.map(Usd::at_least).max();
    Took { cost, ..took(record.model.as_deref().unwrap_or_default(), usage) }
}

fn nothing() -> (Charge, Charged) {
    let cost_usd = Some(Usd::default());
    (Charge::Nothing, Charged { cost_usd, tokens: 0, is_reserved: false })
}

fn waited_ms(waited: Duration) -> Option<u64> {
    let ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    (ms > 0).then_some(ms)
}
