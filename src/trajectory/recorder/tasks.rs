//! Sub-agents and background commands, each on the call that started it.

use super::{Arrival, MAX_NAMES, Recorder};
use crate::trajectory::clip::one_line;
use crate::trajectory::event::{Task, TaskStage};
use crate::trajectory::step::{StepKind, TaskReport};

impl Recorder {
    pub(super) fn record_task(&mut self, arrival: Arrival, task: Task) {
        let description = one_line(&task.description);
        let status = match &task.stage {
            TaskStage::Ended { status } => Some(one_line(status)),
            TaskStage::Started { .. } | TaskStage::Progress { .. } | TaskStage::Updated => None,
        };
        let known = self.tasks.get(&task.task_id).copied();
        let number = match (known, &task.stage) {
            (Some(number), _) => number,
            (None, TaskStage::Started { kind }) => {
                let report = TaskReport {
                    task_id: task.task_id.clone(),
                    kind: one_line(kind),
                    status: "running".to_owned(),
                    description: description.clone(),
                    usage: None,
                };
                self.begin_task(arrival, task.tool_call.as_deref(), report)
            }
            // The beginning was never told: there is no report to complete.
            (None, TaskStage::Progress { .. } | TaskStage::Ended { .. } | TaskStage::Updated) => {
                return;
            }
        };
        self.steps.update(number, |step| {
            let report = match &mut step.kind {
                StepKind::ToolCall(call) => call.task.as_mut(),
                StepKind::Task(report) => {
                    step.ended = status.as_ref().map(|_| arrival.at);
                    Some(report)
                }
                StepKind::Message(_)
                | StepKind::UserText { .. }
                | StepKind::Retry { .. }
                | StepKind::Compaction { .. }
                | StepKind::RateLimit { .. }
                | StepKind::Result { .. } => None,
            };
            if let Some(report) = report {
                report.usage = task.usage.or(report.usage);
                if let Some(status) = &status {
                    report.status.clone_from(status);
                }
            }
        });
        if status.is_some() {
            self.summary.open_tasks.remove(&task.task_id);
        }
    }

    /// Puts a task's report on the call that started it, or on a step of its own.
    fn begin_task(&mut self, arrival: Arrival, call: Option<&str>, report: TaskReport) -> u64 {
        let (id, description) = (report.task_id.clone(), report.description.clone());
        let number = match call.and_then(|call| self.open_calls.get(call)).copied() {
            Some(number) => {
                self.steps.update(number, |step| {
                    if let StepKind::ToolCall(call) = &mut step.kind {
                        call.task = Some(report);
                    }
                });
                number
            }
            None => self.push(arrival, None, StepKind::Task(report)),
        };
        if self.tasks.len() >= MAX_NAMES {
            self.tasks.retain(|id, _| self.summary.open_tasks.contains_key(id));
        }
        if self.tasks.len() < MAX_NAMES {
            self.tasks.insert(id.clone(), number);
            self.summary.open_tasks.insert(id, description);
        }
        number
    }
}
