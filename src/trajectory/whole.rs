//! `trajectory.json` of a run of several steps: put together from those of its steps.

use serde_json::{Map, Value, json};

use super::egress_account::EgressAccount;
use super::read_back::{DocumentError, read_map};
use super::usage::{UsageReport, UsageSource};
use super::wire_account::Reconciliation;
use crate::run::{RunFailure, RunName, RunStatus};

/// How large the steps' records may be whose agent's steps are all kept in that of the run, in bytes.
/// The last ones win; what is left out is in the step's own record.
const MAX_WHOLE_BYTES: usize = 32 << 20;

/// The record of one step, as it was written.
#[derive(Debug, Clone, PartialEq)]
pub struct StepDocument {
    fields: Map<String, Value>,
    n_bytes: usize,
}

impl StepDocument {
    /// Reads the `trajectory.json` of one step.
    ///
    /// # Errors
    /// If it is not JSON of that shape, or of another version.
    pub fn read(json: &[u8]) -> Result<Self, DocumentError> {
        Ok(Self { fields: read_map(json)?, n_bytes: json.len() })
    }

    /// The same without what the agent did, which can be long.
    #[must_use]
    pub fn without_agent_steps(mut self) -> Self {
        self.fields.shift_remove("agent_steps");
        self
    }

    /// What a later step can read of it: an object with `outputs`.
    #[must_use]
    pub fn outputs(&self) -> Value {
        let outputs = self.step().and_then(|step| step.get("outputs"));
        json!({ "outputs": outputs.cloned().unwrap_or_default() })
    }

    /// What went wrong with it, told of a step that has no better record.
    #[must_use]
    pub fn failed(mut self, failure: &RunFailure) -> Self {
        let steps = self.fields.get_mut("steps").and_then(Value::as_object_mut);
        for step in steps.into_iter().flat_map(Map::values_mut).filter_map(Value::as_object_mut) {
            step.insert("status".to_owned(), RunStatus::Failed(failure.clone()).as_str().into());
            step.insert("error".to_owned(), failure.to_string().into());
        }
        self
    }

    fn step(&self) -> Option<&Value> {
        self.fields.get("steps")?.as_object()?.values().next()
    }

    fn list(&self, key: &str) -> &[Value] {
        self.fields.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    fn count(&self, key: &str) -> u64 {
        self.fields.get(key).and_then(Value::as_u64).unwrap_or_default()
    }

    fn name(&self) -> &str {
        let steps = self.fields.get("steps").and_then(Value::as_object);
        steps.and_then(|steps| steps.keys().next()).map_or("", String::as_str)
    }

    fn egress(&self) -> Option<EgressAccount> {
        serde_json::from_value(self.fields.get("egress")?.clone()).ok()
    }

    fn usage(&self) -> Option<UsageReport> {
        let usage = self.fields.get("usage")?;
        let by_model = serde_json::from_value(usage.get("models")?.clone()).ok()?;
        let source = serde_json::from_value(usage.get("source")?.clone()).ok()?;
        Some(UsageReport { source, by_model })
    }
}

/// A step that could not begin, as a record that has nothing but its place.
#[must_use]
pub fn unbegun_step(step: &str, like: &StepDocument) -> StepDocument {
    let mut fields = like.fields.clone();
    let empty = json!({
        "inputs": {}, "outputs": {}, "activity": "runbook", "key": step, "depends_on": [],
        "created": null, "ended": null, "duration_seconds": null, "author": "runbookd",
        "origin": {}, "config": {}, "status": "pending", "error": null,
    });
    fields.insert("steps".to_owned(), json!({ step: empty }));
    fields.insert("step_configs".to_owned(), json!({}));
    for list in ["warnings", "agent_steps", "completed_steps"] {
        fields.insert(list.to_owned(), json!([]));
    }
    for count in ["n_agent_steps", "n_agent_steps_left_out"] {
        fields.insert(count.to_owned(), 0.into());
    }
    fields.shift_remove("egress");
    let nothing = json!({ "source": UsageSource::None, "models": {} });
    fields.insert("usage".to_owned(), nothing);
    fields.insert("verdict".to_owned(), json!({ "passed": null }));
    StepDocument { fields, n_bytes: 0 }
}

/// What steps add up to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SoFar {
    /// What they used.
    pub usage: UsageReport,
    /// What their agents did.
    pub n_agent_steps: u64,
    /// What looked wrong, as whole sentences, each with its step.
    pub warnings: Vec<String>,
    /// Whether what one of them was to achieve is not there.
    pub has_failed_verdict: bool,
}

impl SoFar {
    /// Adds up steps.
    #[must_use]
    pub fn of(documents: &[StepDocument]) -> Self {
        let mut sum = Self::default();
        for document in documents {
            if let Some(usage) = document.usage() {
                sum.usage = sum.usage.plus(&usage);
            }
            sum.n_agent_steps += document.count("n_agent_steps");
            let warnings = document.list("warnings").iter().filter_map(Value::as_str);
            sum.warnings.extend(warnings.map(|warning| in_step(document.name(), warning)));
            let passed = document.fields.get("verdict").and_then(|verdict| verdict.get("passed"));
            sum.has_failed_verdict |= passed == Some(&Value::Bool(false));
        }
        sum
    }
}

/// How the agents' accounts compare with the wire's: as in the first step whose do not agree.
fn reconciliation(documents: &[StepDocument]) -> Value {
    let each = documents.iter().filter_map(|document| {
        document.fields.get("usage")?.get("reconciliation").filter(|word| word.is_string())
    });
    let exact = json!(Reconciliation::Exact);
    let mut each = each.peekable();
    let first = each.peek().map_or(Value::Null, |word| (*word).clone());
    each.find(|word| **word != exact).cloned().unwrap_or(first)
}

/// A sentence about a step.
#[must_use]
pub fn in_step(step: &str, sentence: &str) -> String {
    format!("Step `{step}`: {sentence}")
}

/// A run of several steps.
#[derive(Debug, Clone, Copy)]
pub struct WholeRun<'a> {
    /// What it is called.
    pub name: &'a RunName,
    /// The names of all its steps, in their order.
    pub steps: &'a [String],
    /// Where it stands.
    pub status: &'a RunStatus,
}

impl WholeRun<'_> {
    /// Its record, from those of the steps that have begun, in their order. The fields that a run of
    /// one step has too mean the same; where there can be only one, it is the last step's.
    #[must_use]
    pub fn document(&self, mut documents: Vec<StepDocument>) -> Map<String, Value> {
        let n_left_out = leave_out(&mut documents);
        let sum = SoFar::of(&documents);
        let path = self.name.to_string();
        let mut whole = documents.last().map(|last| last.fields.clone()).unwrap_or_default();
        let mut put = |key: &str, value: Value| {
            whole.insert(key.to_owned(), value);
        };
        put("storage_path", path.as_str().into());
        put("metadata_uri", format!("{path}/trajectory.json").into());
        put("status", self.status.as_str().into());
        put("steps", merged(&documents, "steps"));
        put("step_configs", merged(&documents, "step_configs"));
        put("total_steps", self.steps.into());
        let completed = documents.iter().flat_map(|document| document.list("completed_steps"));
        put("completed_steps", completed.cloned().collect());
        let last = documents.last().map_or("", StepDocument::name);
        let failure = match self.status {
            RunStatus::Failed(failure) => Some(failure),
            RunStatus::Pending
            | RunStatus::Running
            | RunStatus::Completed
            | RunStatus::Cancelled => None,
        };
        let error = failure.map(|failure| failure.told_of(Some(last)));
        put("error", error.clone().into());
        put("failure", failure.map_or(Value::Null, |failure| {
            json!({ "code": failure.code(), "message": error, "mend": failure.mend() })
        }));
        put("warnings", sum.warnings.into());
        let SoFar { usage: UsageReport { source, by_model }, n_agent_steps, .. } = sum;
        put(
            "usage",
            json!({
                "source": source, "total": by_model.total(), "models": by_model,
                "reconciliation": reconciliation(&documents),
            }),
        );
        let egress = documents.iter().filter_map(StepDocument::egress);
        if let Some(egress) = egress.reduce(|sum, step| sum.plus(&step)) {
            put("egress", json!(egress));
        }
        put("agent_steps", documents.iter().flat_map(agent_steps).collect());
        put("n_agent_steps", n_agent_steps.into());
        let n_left_out =
            documents.iter().map(|document| document.count("n_agent_steps_left_out")).sum::<u64>()
                + n_left_out;
        put("n_agent_steps_left_out", n_left_out.into());
        if sum.has_failed_verdict
            && let Some(verdict) = whole.get_mut("verdict").and_then(Value::as_object_mut)
        {
            verdict.insert("passed".to_owned(), false.into());
        }
        whole
    }
}

/// Leaves out what the agents of the first steps did where there is too much of it, and says how much
/// that was.
fn leave_out(documents: &mut [StepDocument]) -> u64 {
    let (mut n_bytes, mut n_left_out) = (0_usize, 0);
    for document in documents.iter_mut().rev() {
        n_bytes = n_bytes.saturating_add(document.n_bytes);
        if n_bytes > MAX_WHOLE_BYTES && n_bytes > document.n_bytes {
            n_left_out += document.list("agent_steps").len() as u64;
            document.fields.shift_remove("agent_steps");
        }
    }
    n_left_out
}

/// The entries of an object of each step, in the order of the steps.
fn merged(documents: &[StepDocument], key: &str) -> Value {
    let objects = documents.iter().filter_map(|document| document.fields.get(key)?.as_object());
    objects.flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
}

/// What the agent of a step did, each with the step's name.
fn agent_steps(document: &StepDocument) -> Vec<Value> {
    let named = |step: &Value| {
        let mut named = Map::new();
        named.insert("step".to_owned(), document.name().into());
        named.extend(step.as_object().cloned().unwrap_or_default());
        Value::Object(named)
    };
    document.list("agent_steps").iter().map(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::{RunId, Slug};

    fn document(step: &str, status: &str, passed: Value) -> StepDocument {
        let completed = if status == "completed" { json!([step]) } else { json!([]) };
        let text = json!({
            "schema_version": 1, "name": "c/t", "storage_path": format!("c/t/x/steps/{step}"),
            "status": status, "steps": {step: {"outputs": {"text": step}, "status": status}},
            "total_steps": [step], "completed_steps": completed, "step_configs": {step: {"m": 1}},
            "error": null, "verdict": {"passed": passed, "n_results": 1},
            "warnings": ["Odd."],
            "usage": {"source": "agent_result", "models": {
                "m": {"input": 10, "output": 1, "cache_read": 0, "cache_write_5m": 0,
                    "cache_write_1h": 0, "cache_write_unsplit": 0, "requests_seen": 1,
                    "web_searches": 0, "cost_usd": 0.5, "cost_basis": "reported"},
            }},
            "agent_steps": [{"number": 1, "kind": "message"}], "n_agent_steps": 3,
            "n_agent_steps_left_out": 2,
        });
        StepDocument::read(text.to_string().as_bytes()).unwrap()
    }

    fn whole(status: &RunStatus, documents: Vec<StepDocument>) -> Map<String, Value> {
        let slug = |name| Slug::new(name).unwrap();
        let name = RunName { collection: slug("c"), task: slug("t"), id: RunId::new("x").unwrap() };
        let steps = ["z", "a", "last"].map(str::to_owned);
        WholeRun { name: &name, steps: &steps, status }.document(documents)
    }

    #[test]
    fn a_run_is_the_sum_of_its_steps_in_their_order() {
        let documents =
            vec![document("z", "completed", false.into()), document("a", "running", Value::Null)];
        let whole = whole(&RunStatus::Running, documents);
        let keys: Vec<&String> = whole["steps"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["z", "a"]);
        for (key, expected) in [
            ("status", json!("running")),
            ("storage_path", json!("c/t/x")),
            ("total_steps", json!(["z", "a", "last"])),
            ("completed_steps", json!(["z"])),
            ("step_configs", json!({"z": {"m": 1}, "a": {"m": 1}})),
            ("verdict", json!({"passed": false, "n_results": 1})),
            ("warnings", json!(["Step `z`: Odd.", "Step `a`: Odd."])),
            ("error", Value::Null),
            ("n_agent_steps", json!(6)),
            ("n_agent_steps_left_out", json!(4)),
            (
                "agent_steps",
                json!([
                    {"step": "z", "number": 1, "kind": "message"},
                    {"step": "a", "number": 1, "kind": "message"},
                ]),
            ),
        ] {
            assert_eq!(whole[key], expected, "{key}");
        }
        let total = &whole["usage"]["total"];
        assert_eq!(
            json!([total["input"], total["output"], total["cost_usd"], whole["usage"]["source"]]),
            json!([20, 2, 1.0, "agent_result"])
        );
    }

    #[test]
    fn a_failure_names_its_step() {
        let failure = RunFailure::TurnLimit { limit: 9 };
        let first = document("z", "completed", Value::Null);
        let second = unbegun_step("a", &first).failed(&failure);
        let whole = whole(&RunStatus::Failed(failure), vec![first, second]);
        assert_eq!(whole["error"], "step `a`: the run used up its turns (limit: 9)");
        assert_eq!(whole["failure"]["code"], "turn_limit");
        assert_eq!(whole["failure"]["message"], whole["error"]);
        assert_eq!(whole["steps"]["a"]["status"], "failed");
        assert_eq!(whole["steps"]["a"]["error"], "the run used up its turns (limit: 9)");
        assert_eq!(whole["usage"]["total"]["input"], 10);
        assert_eq!(whole["completed_steps"], json!(["z"]));
    }

    #[test]
    fn what_the_first_agents_did_is_left_out_where_it_is_too_much() {
        let mut first = document("z", "completed", Value::Null);
        first.n_bytes = MAX_WHOLE_BYTES;
        let second = document("a", "completed", Value::Null);
        let whole = whole(&RunStatus::Completed, vec![first, second]);
        assert_eq!(whole["agent_steps"][0]["step"], "a");
        assert_eq!(whole["n_agent_steps_left_out"], 5);
    }
}
