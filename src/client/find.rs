//! Finding a run by whichever of its names a person has.

use std::fmt;
use std::str::FromStr;

use serde_json::Value;

use super::connect::Client;
use super::error::ClientError;
use crate::run::{InvalidName, RunId, RunName, Slug};

/// What stands before a run's id in its workflow id.
const BEFORE_ID: &str = "--";

/// A run as a person names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedRun {
    /// `COLLECTION/TASK/ID`.
    Name(RunName),
    /// The workflow id, `COLLECTION-TASK--ID`. Where the collection ends is not in it.
    Workflow {
        /// Collection and task.
        task: String,
        /// The id.
        id: RunId,
    },
    /// The id alone.
    Id(RunId),
}

impl FromStr for NamedRun {
    type Err = InvalidName;

    fn from_str(text: &str) -> Result<Self, InvalidName> {
        if let [collection, task, id] = text.split('/').collect::<Vec<_>>()[..] {
            return Ok(Self::Name(RunName {
                collection: Slug::new(collection)?,
                task: Slug::new(task)?,
                id: RunId::new(id)?,
            }));
        }
        match text.rsplit_once(BEFORE_ID) {
            Some((task, id)) => Ok(Self::Workflow { task: task.to_owned(), id: RunId::new(id)? }),
            None => Ok(Self::Id(RunId::new(text)?)),
        }
    }
}

impl fmt::Display for NamedRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Workflow { task, id } => write!(f, "{task}{BEFORE_ID}{id}"),
            Self::Id(id) => write!(f, "{id}"),
        }
    }
}

impl Client {
    /// The run's whole name. Without it, every task that the token opens is asked.
    ///
    /// # Errors
    /// [`ClientError`]: there is no such run, or there are several.
    pub async fn find(&self, run: &NamedRun) -> Result<RunName, ClientError> {
        let (wanted, id) = match run {
            NamedRun::Name(name) => return Ok(name.clone()),
            NamedRun::Workflow { task, id } => (Some(task.as_str()), id),
            NamedRun::Id(id) => (None, id),
        };
        let mut found = Vec::new();
        for collection in names(self.collections().await?) {
            let is_possible = |wanted: &str| wanted.starts_with(&format!("{collection}-"));
            if !wanted.is_none_or(is_possible) {
                continue;
            }
            for task in names(self.tasks(collection.as_str()).await?) {
                let is_it = |wanted: &str| wanted == format!("{collection}-{task}");
                if !wanted.is_none_or(is_it) {
                    continue;
                }
                let name = RunName { collection: collection.clone(), task, id: id.clone() };
                if self.run(&name).await?.is_some() {
                    found.push(name);
                }
            }
        }
        match found.len() {
            1 => Ok(found.remove(0)),
            0 => Err(ClientError::NoRun { run: run.to_string() }),
            _ => Err(ClientError::Ambiguous {
                run: run.to_string(),
                names: found.iter().map(RunName::to_string).collect(),
            }),
        }
    }
}

/// The names of what a list shows.
fn names(items: Vec<Value>) -> Vec<Slug> {
    items.iter().filter_map(|item| Slug::new(item["name"].as_str()?).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_known_by_each_of_its_names() {
        let name = RunName {
            collection: Slug::new("team").unwrap(),
            task: Slug::new("a--b").unwrap(),
            id: RunId::new("1a2b3c4d").unwrap(),
        };
        let read = |text: &str| text.parse::<NamedRun>().unwrap();
        assert_eq!(read("team/a--b/1a2b3c4d"), NamedRun::Name(name.clone()));
        let workflow = NamedRun::Workflow { task: "team-a--b".to_owned(), id: name.id.clone() };
        assert_eq!(read(&name.workflow_id()), workflow);
        assert_eq!(read("1a2b3c4d"), NamedRun::Id(name.id.clone()));
        for text in ["", "a/b", "a/b/c/d", "../x/1", "a--"] {
            assert!(text.parse::<NamedRun>().is_err(), "{text:?}");
        }
    }
}
