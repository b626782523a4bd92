//! The schema, as the steps that lead to it. A step that was released never changes.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Every step, in order: its number, its name, its text in `migrations/`.
const STEPS: &[(i64, &str, &str)] = &[
    (1, "queue", include_str!("migrations/0001_queue.sql")),
    (2, "catalog", include_str!("migrations/0002_catalog.sql")),
    (3, "steps", include_str!("migrations/0003_steps.sql")),
    (4, "last_words", include_str!("migrations/0004_last_words.sql")),
    (5, "run_ids", include_str!("migrations/0005_run_ids.sql")),
];

/// What brings a database of any age up to date.
pub(super) fn migrator() -> Migrator {
    let migration = |&(version, name, text): &(i64, &'static str, &'static str)| {
        Migration::new(version, name.into(), MigrationType::Simple, text.into_sql_str(), false)
    };
    Migrator::with_migrations(STEPS.iter().map(migration).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_folder_is_a_step_and_the_numbers_have_no_gap() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/database/migrations");
        let mut files: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        let steps: Vec<String> =
            STEPS.iter().map(|(number, name, _)| format!("{number:04}_{name}.sql")).collect();
        assert_eq!(files, steps);
        assert!((1..).zip(STEPS).all(|(expected, (number, _, _))| expected == *number));
    }
}
