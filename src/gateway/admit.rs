//! A request before its run's purse: let through with what it may take set aside, and settled at its
//! end.

use std::pin::pin;
use std::time::Duration;

use tokio::time::timeout;

use super::bill::{Bill, took};
use super::ledger::{Charged, GatewayRecord, Outcome, Reserved};
use super::refusal::Refusal;
use crate::provider;
use crate::run::Usd;
use crate::spend::{Asked, Charge, Held, NotAdmitted, Purse, Took};

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
) -> Result<Held, Refusal> {
    let bill = Bill::read(body).map_err(|e| Refusal::Unreadable(e.to_string()))?;
    let model = record.model.clone().unwrap_or_default();
    if let Some(field) = bill.dear.filter(|_| purse.limits_cost()) {
        return Err(Refusal::Unpriced(format!("`{field}` has another price than is known here")));
    }
    let price = |input: u64, output: u64| {
        provider::worst_case(&model, input, output, bill.cache).map(Usd::at_least)
    };
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
    Ok(held)
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
pub(super) fn settle(held: Held, record: &mut GatewayRecord, was_sent: bool) {
    let (charge, charged) = charge(&held, record, was_sent);
    record.charged = Some(charged);
    held.settle(charge);
}

fn charge(held: &Held, record: &GatewayRecord, was_sent: bool) -> (Charge, Charged) {
    let model = record.model.as_deref().unwrap_or_default();
    let kept = || {
        let reserved = held.reserved();
        let cost_usd = Some(Usd::from_micros(reserved.cost));
        (Charge::Kept, Charged { cost_usd, tokens: reserved.tokens, is_reserved: true })
    };
    match (record.outcome, &record.usage) {
        (Outcome::Complete, Some(usage)) => {
            let took: Took = took(model, usage);
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

fn nothing() -> (Charge, Charged) {
    let cost_usd = Some(Usd::default());
    (Charge::Nothing, Charged { cost_usd, tokens: 0, is_reserved: false })
}

fn waited_ms(waited: Duration) -> Option<u64> {
    let ms = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
    (ms > 0).then_some(ms)
}
