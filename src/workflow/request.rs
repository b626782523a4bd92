//! A workflow that a request leads: its values take the place of the task's own settings.

use serde_json::{Map, Value};

use super::definition::Workflow;
use super::error::WorkflowError;
use super::parameter::{FILE_PATHS, FILES, PARAMETERS, PROMPT, SNAPSHOT};
use crate::runbook::{FrontMatter, Runbook};

/// What a path to a value of the request begins with.
const ROOT: &str = "init_params.";

/// The parameter that stands beside the snapshot and wins over it.
const IMAGE: &str = "image";

impl Workflow {
    /// The same workflow, in which every step reads what `given` has from there. What a step sets
    /// itself is left for what is not given.
    ///
    /// # Errors
    /// [`WorkflowError`] when the workflow cannot be read any more.
    pub fn led_by(&self, given: &Map<String, Value>) -> Result<Self, WorkflowError> {
        let settings = PARAMETERS.iter().filter(|parameter| **parameter != FILES);
        let settings = settings.filter(|parameter| **parameter != FILE_PATHS);
        let read: Vec<(&str, &str)> = settings
            .filter_map(|parameter| {
                let keys =
                    if *parameter == PROMPT { [PROMPT.name].as_slice() } else { parameter.keys };
                let key = keys.iter().find(|key| given.contains_key(**key))?;
                Some((parameter.name, *key))
            })
            .collect();
        let is_there = |path: &Value| {
            let inside = path.as_str().and_then(|path| path.trim().strip_prefix(ROOT));
            let key = inside.and_then(|path| path.split(['.', '[']).next());
            key.is_none_or(|key| given.contains_key(key) || self.init_params().contains_key(key))
        };
        self.with_steps(|config| {
            // A chat leaves most of what it can give open, which is nothing to note.
            config.retain(|key, path| !key.ends_with("_path") || is_there(path));
            for (name, key) in &read {
                config.insert(format!("{name}_path"), format!("{ROOT}{key}").into());
            }
            // An image that a request names stands for the snapshot that the task would use.
            if given.contains_key(IMAGE) && !given.contains_key(SNAPSHOT.name) {
                leave_open(config, SNAPSHOT.name);
            }
        })
    }

    /// The same workflow, in which a step leaves open what the runbook decides for itself: a runbook
    /// that came with a request knows better than a task that was made for any.
    ///
    /// # Errors
    /// [`WorkflowError`] when the workflow cannot be read any more.
    pub fn leaving_to(&self, runbook: &str) -> Result<Self, WorkflowError> {
        let Ok(runbook) = Runbook::parse(runbook.as_bytes()) else { return Ok(self.clone()) };
        let decided = decided(runbook.front_matter());
        self.with_steps(|config| decided.iter().for_each(|name| leave_open(config, name)))
    }

    fn with_steps(&self, change: impl Fn(&mut Map<String, Value>)) -> Result<Self, WorkflowError> {
        let mut document = self.document().clone();
        let configs = document.get_mut("step_configs").and_then(Value::as_object_mut);
        for (name, config) in configs.into_iter().flatten() {
            let is_step = self.step_names().any(|step| step == name);
            if let Some(config) = config.as_object_mut().filter(|_| is_step) {
                change(config);
            }
        }
        Self::parse(&document)
    }
}

fn leave_open(config: &mut Map<String, Value>, name: &str) {
    config.shift_remove(name);
    config.shift_remove(&format!("{name}_path"));
}

/// The parameters that a front matter decides and a step could set over it.
fn decided(front_matter: &FrontMatter) -> Vec<&'static str> {
    let base = front_matter.snapshot.is_some() || front_matter.image.is_some();
    [
        ("agent", front_matter.agent.is_some()),
        ("model", front_matter.model.is_some()),
        ("model_provider", front_matter.model_provider.is_some()),
        ("snapshot", base),
        ("image", base),
        ("apt_packages", !front_matter.apt_packages.is_empty()),
        ("cpus", front_matter.n_cpus.is_some()),
        ("memory", front_matter.memory_bytes.is_some()),
        ("disk", front_matter.disk_bytes.is_some()),
        ("timeout_sec", front_matter.timeout.is_some()),
        ("max_turns", front_matter.max_turns.is_some()),
        ("network_enabled", front_matter.network_enabled.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, is_decided)| is_decided.then_some(name))
    .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::workflow::RunbookStep;

    const RUNBOOK: &str =
        "---\nagent: claude-code\nmemory: 2G\nsnapshot: prism-playwright\n---\n# R\n";

    fn step(workflow: &Workflow, given: Value) -> RunbookStep {
        let given = given.as_object().unwrap();
        let led = workflow.led_by(given).unwrap();
        let resolved = led.resolve(given).unwrap();
        assert_eq!(resolved.notes, [""; 0]);
        resolved.steps.into_iter().next().unwrap()
    }

    #[test]
    fn what_a_request_gives_takes_the_place_of_what_the_task_sets() {
        let chat = Workflow::of_chat_task();
        let plain = step(&chat, json!({"instruction": "# R", "model": "m"}));
        assert_eq!(plain.snapshot.as_deref(), Some("python312-uv"));
        assert_eq!((plain.cpus, plain.timeout_sec), (Some(4.0), Some(1200)));
        assert_eq!((plain.model.as_deref(), plain.prompt), (Some("m"), None));
        let given = json!({
            "instruction": "# R", "snapshot": "prism-base", "cpus": 0.5, "timeout_sec": 9,
            "memory": "1G", "network_enabled": false, "prompt": "Go.", "vars": {"a": 1},
            "model_provider": "anthropic", "mcp_servers": {"docs": {"type": "http"}},
        });
        let led = step(&chat, given);
        assert_eq!(led.snapshot.as_deref(), Some("prism-base"));
        assert_eq!((led.cpus, led.timeout_sec), (Some(0.5), Some(9)));
        assert_eq!((led.memory_bytes, led.network_enabled), (Some(1 << 30), Some(false)));
        assert_eq!((led.prompt.as_deref(), led.mcp_servers.len()), (Some("Go."), 1));
        assert_eq!(led.template_variables["a"], "1");
        let image = step(&chat, json!({"instruction": "# R", "image": "debian:12"}));
        assert_eq!((image.image.as_deref(), image.snapshot), (Some("debian:12"), None));
    }

    #[test]
    fn a_request_leads_every_step_of_a_task_with_literals() {
        let document = json!({
            "step_configs": {
                "a": {"activity": "runbook", "instruction": "# A", "model": "m1"},
                "b": {"activity": "runbook", "instruction": "# B {{topic}}", "model": "m2",
                    "template_variables": {"topic": "old"}},
            },
            "steps": ["a", "b"],
        });
        let given = json!({"model": "m3", "prompt": "P", "vars": {"topic": "new"}});
        let given = given.as_object().unwrap();
        let led = Workflow::parse(&document).unwrap().led_by(given).unwrap();
        let steps = led.resolve(given).unwrap().steps;
        let seen: Vec<_> =
            steps.iter().map(|s| (s.instruction.as_str(), s.model.as_deref().unwrap())).collect();
        assert_eq!(seen, [("# A", "m3"), ("# B {{topic}}", "m3")]);
        assert_eq!(steps[1].template_variables["topic"], "new");
    }

    #[test]
    fn a_runbook_of_the_request_knows_better_than_the_tasks_literals() {
        let left = Workflow::of_chat_task().leaving_to(RUNBOOK).unwrap();
        let open = step(&left, json!({"instruction": RUNBOOK}));
        assert_eq!((open.snapshot, open.memory_bytes, open.cpus), (None, None, Some(4.0)));
        let led = step(&left, json!({"instruction": RUNBOOK, "snapshot": "prism-base"}));
        assert_eq!(led.snapshot.as_deref(), Some("prism-base"));
        let unreadable = Workflow::of_chat_task().leaving_to("---\n: [\n---\n").unwrap();
        assert_eq!(unreadable, Workflow::of_chat_task());
    }
}
