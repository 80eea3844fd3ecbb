//! A kine **row** as one line of SQL: what a log segment is made of.
//!
//! kine never changes a row, and a row's `old_value` is the value of the row that it supersedes (kine's own insert,
//! pkg/drivers/sqlite/sqlite.go), so it is looked up when the row is applied and not shipped. The line is applied by
//! `sqlite3` as it stands; this program never runs it as SQL, but reads the values back and binds them, and takes a
//! line only if it would write it byte for byte the same.

use std::fmt::Write as _;

use rusqlite::ToSql;
use rusqlite::types::{ToSqlOutput, ValueRef};

use crate::revision::Revision;
use crate::signing::Digest;

/// How a line begins. `REPLACE`, because a key that is made again after compaction collides on `(name, prev_revision)`
/// with history that kine had dropped.
const BEGIN: &str = "INSERT OR REPLACE INTO kine VALUES(";

/// The statement that a line means, with its values bound.
pub const APPLY: &str = "INSERT OR REPLACE INTO kine
    VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, (SELECT value FROM kine WHERE id = ?6))";

/// kine's columns without `old_value`, in the table's order.
pub const COLUMNS: usize = 8;

const PREV_REVISION: usize = 5;

/// A value as SQLite stores it. Text need not be UTF-8 there.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// INTEGER.
    Integer(i64),
    /// REAL.
    Real(f64),
    /// TEXT.
    Text(Vec<u8>),
    /// BLOB.
    Blob(Vec<u8>),
}

impl From<ValueRef<'_>> for Cell {
    fn from(value: ValueRef<'_>) -> Self {
        match value {
            ValueRef::Null => Self::Null,
            ValueRef::Integer(number) => Self::Integer(number),
            ValueRef::Real(number) => Self::Real(number),
            ValueRef::Text(text) => Self::Text(text.to_vec()),
            ValueRef::Blob(bytes) => Self::Blob(bytes.to_vec()),
        }
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(match self {
            Self::Null => ValueRef::Null,
            Self::Integer(number) => ValueRef::Integer(*number),
            Self::Real(number) => ValueRef::Real(*number),
            Self::Text(text) => ValueRef::Text(text),
            Self::Blob(bytes) => ValueRef::Blob(bytes),
        }))
    }
}

/// One row of table `kine`.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its revision.
    pub revision: Revision,
    /// All columns but `old_value`; the first is the revision.
    pub cells: [Cell; COLUMNS],
}

impl Row {
    /// Reads the first eight columns of a result.
    pub fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        let mut cells = [const { Cell::Null }; COLUMNS];
        for (column, cell) in cells.iter_mut().enumerate() {
            *cell = row.get_ref(column)?.into();
        }
        Ok(Self { revision: Revision::from_sql(row.get(0)?), cells })
    }

    /// Roughly how many bytes it holds.
    pub fn bytes(&self) -> usize {
        self.cells.iter().map(Cell::bytes).sum()
    }

    /// SHA-256 of its line. Values carry random uids and times, so the digest gives nothing of them away.
    pub fn digest(&self) -> Digest {
        Digest::of(self.encode().as_bytes())
    }

    /// The row as a line, without its end.
    pub fn encode(&self) -> String {
        let mut line = String::with_capacity(BEGIN.len() + 2 * self.bytes() + 64);
        line.push_str(BEGIN);
        for cell in &self.cells {
            cell.encode(&mut line);
            line.push(',');
        }
        line.push_str("(SELECT value FROM kine WHERE id=");
        self.cells[PREV_REVISION].encode(&mut line);
        line.push_str("));");
        line
    }

    /// Reads a line back; `None` for any that [`Row::encode`] would not write.
    pub fn decode(line: &str) -> Option<Self> {
        let mut rest = line.strip_prefix(BEGIN)?;
        let mut cells = [const { Cell::Null }; COLUMNS];
        for cell in &mut cells {
            (*cell, rest) = Cell::decode(rest)?;
            rest = rest.strip_prefix(',')?;
        }
        let Cell::Integer(id) = cells[0] else { return None };
        let row = Self { revision: Revision::from_sql(id), cells };
        (row.encode() == line).then_some(row)
    }
}

impl Cell {
    /// Roughly how many bytes it holds.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Text(bytes) | Self::Blob(bytes) => bytes.len(),
            _ => 8,
        }
    }

    fn encode(&self, line: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Null => write!(line, "NULL"),
            Self::Integer(number) => write!(line, "{number}"),
            Self::Real(number) => write!(line, "{number:?}"),
            Self::Blob(bytes) => write!(line, "x'{}'", hex::encode(bytes)),
            // A line must stay one line, and text that every terminal and editor leaves alone.
            Self::Text(text) => match std::str::from_utf8(text) {
                Ok(text) if text.bytes().all(|byte| (0x20..0x7f).contains(&byte)) => {
                    write!(line, "'{}'", text.replace('\'', "''"))
                }
                _ => write!(line, "CAST(x'{}' AS TEXT)", hex::encode(text)),
            },
        };
    }

    /// A cell at the beginning of `text`, and what follows it.
    fn decode(text: &str) -> Option<(Self, &str)> {
        if let Some(rest) = text.strip_prefix("NULL") {
            return Some((Self::Null, rest));
        }
        if let Some(rest) = text.strip_prefix("x'") {
            let (digits, rest) = rest.split_once('\'')?;
            return Some((Self::Blob(hex::decode(digits).ok()?), rest));
        }
        if let Some(rest) = text.strip_prefix("CAST(x'") {
            let (digits, rest) = rest.split_once("' AS TEXT)")?;
            return Some((Self::Text(hex::decode(digits).ok()?), rest));
        }
        if let Some(rest) = text.strip_prefix('\'') {
            return quoted(rest);
        }
        let (number, rest) = text.split_at(text.find(',')?);
        let cell = match number.parse() {
            Ok(number) => Self::Integer(number),
            Err(_) => Self::Real(number.parse().ok()?),
        };
        Some((cell, rest))
    }
}

/// Text up to its closing quote; two quotes are one.
fn quoted(mut rest: &str) -> Option<(Cell, &str)> {
    let mut text = String::new();
    loop {
        let (part, after) = rest.split_once('\'')?;
        text.push_str(part);
        match after.strip_prefix('\'') {
            Some(after) => {
                text.push('\'');
                rest = after;
            }
            None => return Some((Cell::Text(text.into_bytes()), after)),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use rusqlite::{Connection, params_from_iter};

    use super::*;

    fn cell() -> impl Strategy<Value = Cell> {
        prop_oneof![
            Just(Cell::Null),
            any::<i64>().prop_map(Cell::Integer),
            "\\PC{0,20}".prop_map(|text| Cell::Text(text.into_bytes())),
            "[a-z'\\n,();-]{0,20}".prop_map(|text| Cell::Text(text.into_bytes())),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Cell::Text),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Cell::Blob),
        ]
    }

    fn row() -> impl Strategy<Value = Row> {
        (1..i64::MAX, proptest::collection::vec(cell(), COLUMNS - 1)).prop_map(|(id, cells)| {
            let mut cells: Vec<Cell> = cells;
            cells.insert(0, Cell::Integer(id));
            Row { revision: Revision::from_sql(id), cells: cells.try_into().unwrap() }
        })
    }

    fn table() -> Connection {
        let connection = Connection::open_in_memory().unwrap();
        // Without types, so that nothing is converted.
        connection
            .execute_batch("CREATE TABLE kine (id INTEGER PRIMARY KEY, b, c, d, e, f, g, value, old_value)")
            .unwrap();
        connection
    }

    fn only(connection: &Connection) -> Row {
        connection.query_row("SELECT * FROM kine", [], Row::read).unwrap()
    }

    proptest! {
        #[test]
        fn every_row_round_trips(row in row()) {
            let line = row.encode();
            prop_assert!(!line.contains('\n'));
            prop_assert_eq!(Row::decode(&line), Some(row));
        }

        /// What `sqlite3` makes of a line is what this program makes of it.
        #[test]
        fn the_line_and_the_bound_statement_do_the_same(row in row()) {
            let (by_line, by_binding) = (table(), table());
            by_line.execute_batch(&row.encode()).unwrap();
            by_binding.execute(APPLY, params_from_iter(&row.cells)).unwrap();
            prop_assert_eq!(&only(&by_line), &row);
            prop_assert_eq!(only(&by_binding), row);
        }

        #[test]
        fn nothing_else_is_taken_for_a_row(line in "INSERT OR REPLACE INTO kine VALUES\\([0-9x',NULL();a ]{0,60}") {
            if let Some(row) = Row::decode(&line) {
                prop_assert_eq!(row.encode(), line);
            }
        }
    }

    #[test]
    fn sql_that_is_no_row_is_refused() {
        let good = "INSERT OR REPLACE INTO kine VALUES(7,'/a',1,0,0,5,0,x'00ff',(SELECT value FROM kine WHERE id=5));";
        assert!(Row::decode(good).is_some());
        for bad in [
            good.replace("id=5", "id=6"),
            good.replace("x'00ff'", "x'00FF'"),
            good.replace("(7,", "(07,"),
            good.replace("(7,", "('7',"),
            good.replace("kine VALUES", "other VALUES"),
            format!("{good} DELETE FROM kine;"),
            good.replace("'/a'", "'/a'||'b'"),
            good.replace("'/a'", "CAST(x'2f61' AS TEXT)"),
        ] {
            assert_eq!(Row::decode(&bad), None, "{bad}");
        }
    }
}
