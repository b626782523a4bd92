//! Processes that are killed, and processes that want the same file.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use crate::database::DatabaseError;

use super::*;

/// Where the second process finds the folder of its database. Without it, it is an ordinary test
/// that has nothing to do.
const FOLDER: &str = "RUNBOOKD_TEST_CRASH_FOLDER";

/// How often the writer is killed.
const N_KILLS: u32 = 20;

/// A second process of this test binary that writes until it is killed.
struct Writer {
    child: Child,
    said: BufReader<ChildStdout>,
}

impl Writer {
    fn start(folder: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["queue::tests::crash::another_process_writes_until_it_is_killed", "--exact"])
            .arg("--nocapture")
            .env(FOLDER, folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self { child, said }
    }

    /// The next thing that it says is done.
    fn acknowledged(&mut self) -> Option<(String, u32)> {
        loop {
            let mut line = String::new();
            if self.said.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            // The test harness begins the first line.
            if let Some((_, done)) = line.split_once("done: ") {
                let (what, n) = done.trim().split_once(' ')?;
                return Some((what.to_owned(), n.parse().ok()?));
            }
        }
    }

    /// Ends it as the kernel would, and returns what it had still said.
    fn kill(mut self) -> Vec<(String, u32)> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::iter::from_fn(|| self.acknowledged()).collect()
    }
}

#[tokio::test]
async fn another_process_writes_until_it_is_killed() {
    #[expect(clippy::disallowed_methods, reason = "the settings of a test, not of the product")]
    let Some(folder) = std::env::var_os(FOLDER) else { return };
    let database = Database::open(&Path::new(&folder).join("runbookd.db")).await.unwrap();
    let queue = Queue::new(database);
    queue.adopt(&worker(1), at(0)).await.unwrap();
    let all = ListFilter { collection: slug("acme"), task: None, statuses: vec![], routine: None };
    let (_, total) = queue.list(&all, Page { number: 1, limit: 1 }).await.unwrap();
    for n in u32::try_from(total).unwrap().. {
        queue.submit(job(name("acme", n)), at(i64::from(n))).await.unwrap();
        println!("done: submitted {n}");
        let leased = queue
            .lease(&worker(1), Uuid::new_v4(), &limits(u32::MAX), at(i64::from(n)))
            .await
            .unwrap()
            .unwrap();
        queue.started(&leased.grant, at(0)).await.unwrap();
        queue.advance(&leased.grant, 0, 9, at(0)).await.unwrap();
        queue.finish(&leased.grant, &finish(Ended::Completed, 9), at(0)).await.unwrap();
        println!("done: finished {}", run_number(&leased.grant.name));
    }
}

fn run_number(name: &RunName) -> u32 {
    u32::from_str_radix(name.id.as_str(), 16).unwrap()
}

#[tokio::test]
async fn nothing_that_was_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let mut acknowledged = Vec::new();
    for kill in 0..N_KILLS {
        let mut writer = Writer::start(folder.path());
        // A different moment each time.
        for _ in 0..=(kill * 7 % 11) {
            acknowledged.push(writer.acknowledged().expect("the writer works until it is killed"));
        }
        acknowledged.extend(writer.kill());
    }
    let database = Database::open(&folder.path().join("runbookd.db")).await.unwrap();
    let whole: String =
        sqlx::query_scalar("PRAGMA integrity_check").fetch_one(database.readers()).await.unwrap();
    assert_eq!(whole, "ok");
    let queue = Queue::new(database);
    for (what, n) in &acknowledged {
        let job = queue.get(&name("acme", *n)).await.unwrap();
        let job = job.unwrap_or_else(|| panic!("run {n} was {what} and is gone"));
        if what == "finished" {
            assert_eq!(job.status, Status::Completed, "run {n}");
        }
    }
    let finished = acknowledged.iter().filter(|(what, _)| what == "finished").count();
    assert!(finished > N_KILLS as usize, "too little happened: {finished}");
}

#[tokio::test]
async fn a_second_process_on_one_file_is_refused_and_told_who_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("runbookd.db");
    let mut writer = Writer::start(folder.path());
    writer.acknowledged().expect("the writer has the file");
    let refused = Database::open(&path).await.unwrap_err();
    let pid = writer.child.id();
    assert!(
        matches!(refused, DatabaseError::InUse { holder: Some(holder), .. } if holder == pid),
        "{refused:?}"
    );
    assert_eq!(
        refused.to_string(),
        format!(
            "the database `{}` is in use by process {pid}: one process may open it at a time, so stop that one first or choose another folder",
            path.display()
        )
    );
    // A process that died holds nothing.
    writer.kill();
    Database::open(&path).await.unwrap();
}
