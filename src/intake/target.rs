//! What a request is for: a task that is there, or one that a chat makes.

use jiff::Timestamp;
use serde_json::Value;

use super::submit::{Intake, IntakeError, unknown};
use super::{Lead, Submission};
use crate::catalog::{CatalogError, Collection, NewTask, Task, TaskFlags};
use crate::run::Slug;
use crate::workflow::Workflow;

/// The task of a request, as far as its run needs it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Target {
    pub(super) name: Slug,
    /// The workflow that the run is made of.
    pub(super) workflow: Value,
    /// Whether there is no such task yet.
    pub(super) is_missing: bool,
}

impl Target {
    /// A request that brings its own runbook runs it under the task's name. Only a task that a chat
    /// made was made for any runbook, so only its settings count then.
    fn of(task: Task, lead: Lead) -> Self {
        let is_own = match lead {
            Lead::Task | Lead::Request => true,
            Lead::OwnRunbook => task.flags.is_chat_flow && n_steps(&task.workflow) == 1,
        };
        let workflow =
            if is_own { task.workflow } else { Workflow::of_chat_task().document().clone() };
        Self { name: task.name, workflow, is_missing: false }
    }
}

fn n_steps(workflow: &Value) -> usize {
    workflow.get("steps").and_then(Value::as_array).map_or(0, Vec::len)
}

impl Intake {
    /// Looks the task of a request up.
    pub(super) async fn target(
        &self,
        collection: &Collection,
        wish: &Submission,
    ) -> Result<Target, IntakeError> {
        let found = self.catalog.task(&collection.name, &wish.task).await;
        match (found, wish.lead) {
            (Ok(task), lead) => Ok(Target::of(task, lead)),
            (Err(CatalogError::NotFound { .. }), Lead::OwnRunbook) => {
                let name = Slug::new(&wish.task).map_err(|e| {
                    IntakeError::Refused(vec![format!("The task cannot have this name: {e}.")])
                })?;
                let workflow = Workflow::of_chat_task().document().clone();
                Ok(Target { name, workflow, is_missing: true })
            }
            (Err(error), Lead::Task | Lead::Request | Lead::OwnRunbook) => {
                let text = format!(
                    "Task '{}' in collection '{}' not found: `POST /api/v1/tasks/{}` makes one",
                    wish.task, collection.name, collection.name
                );
                Err(unknown(error, text))
            }
        }
    }

    /// Makes the task of a request that brought its own runbook, unless it is there.
    pub(super) async fn make_task(
        &self,
        collection: &Collection,
        target: &Target,
        now: Timestamp,
    ) -> Result<(), IntakeError> {
        if !target.is_missing {
            return Ok(());
        }
        let flags = TaskFlags { is_chat_flow: true, ..TaskFlags::default() };
        let new = NewTask { flags, ..NewTask::new(target.name.as_str(), Workflow::of_chat_task()) };
        match self.catalog.ensure_task(&collection.name, new, now).await {
            Ok(_) => Ok(()),
            Err(CatalogError::Invalid { problem }) => {
                Err(IntakeError::Refused(vec![format!("The task cannot be made: {problem}.")]))
            }
            Err(error) => Err(IntakeError::Catalog(error)),
        }
    }
}
