//! Migrations: numbered, forward only, one tree for all engines.

use crate::catalog::tx::{Error, Tx, Value, collect};
use crate::domain::digest::Hasher;

/// All migrations in order. A released text is never edited; a new one is added.
const MIGRATIONS: &[(i64, &str)] = &[
    (1, include_str!("../../migrations/0001_create_accounts_and_keys.sql")),
    (2, include_str!("../../migrations/0002_create_buckets.sql")),
    (3, include_str!("../../migrations/0003_create_files.sql")),
    (4, include_str!("../../migrations/0004_create_replication.sql")),
    (5, include_str!("../../migrations/0005_rebuild_files_for_large_files.sql")),
    (7, include_str!("../../migrations/0007_rebuild_for_cheap_inserts.sql")),
    (8, include_str!("../../migrations/0008_create_lifecycle_walks.sql")),
    (10, include_str!("../../migrations/0010_mark_drawn_numbers.sql")),
    (11, include_str!("../../migrations/0011_add_ring_keys.sql")),
    (12, include_str!("../../migrations/0012_create_usage.sql")),
    (13, include_str!("../../migrations/0013_create_notifications.sql")),
    (15, include_str!("../../migrations/0015_add_part_sizes_and_checksums.sql")),
    (16, include_str!("../../migrations/0016_add_streams.sql")),
    (17, include_str!("../../migrations/0017_note_when_queues_changed.sql")),
];

/// The newest schema this program knows.
pub(crate) fn newest() -> i64 {
    MIGRATIONS.last().map_or(0, |(number, _)| *number)
}

/// The numbers of all migrations; some are left out.
#[cfg(test)]
pub(crate) fn numbers() -> Vec<i64> {
    MIGRATIONS.iter().map(|(number, _)| *number).collect()
}

fn fingerprint(text: &str) -> String {
    let mut hasher = Hasher::new();
    hasher.update(text.as_bytes());
    hasher.finish().sha1.to_string()
}

/// The statements of one migration. None of ours holds a semicolon inside a text.
fn statements(text: &'static str) -> impl Iterator<Item = &'static str> {
    text.split(';').map(str::trim).filter(|statement| {
        statement.lines().any(|line| !line.trim().is_empty() && !line.trim().starts_with("--"))
    })
}

/// Brings the schema up to date inside one transaction; answers how many migrations ran.
///
/// Refuses a database that a newer program wrote, and one whose applied texts differ from ours.
pub(crate) fn migrate(tx: &mut dyn Tx) -> Result<usize, Error> {
    tx.execute(
        "CREATE TABLE IF NOT EXISTS schema_migrations (
           number BIGINT PRIMARY KEY, fingerprint TEXT NOT NULL)",
        &[],
    )?;
    let applied = collect(
        tx,
        "SELECT number, fingerprint FROM schema_migrations ORDER BY number",
        &[],
        |row| Ok((row.int(0)?, row.text(1)?.to_owned())),
    )?;
    if let Some((number, _)) = applied.iter().find(|(number, _)| *number > newest()) {
        return Err(Error::Engine(format!(
            "the database has schema {number}, this program knows only {}: use a newer kiln",
            newest()
        )));
    }
    let mut ran = 0;
    for (number, text) in MIGRATIONS {
        match applied.iter().find(|(done, _)| done == number) {
            Some((_, known)) if *known == fingerprint(text) => {}
            Some(_) => {
                return Err(Error::Engine(format!(
                    "migration {number} differs from the one this database was made with"
                )));
            }
            None => {
                for statement in statements(text) {
                    tx.execute(statement, &[])?;
                }
                tx.execute(
                    "INSERT INTO schema_migrations (number, fingerprint) VALUES (?1, ?2)",
                    &[Value::Int(*number), Value::Text(&fingerprint(text))],
                )?;
                ran += 1;
            }
        }
    }
    Ok(ran)
}
