//! One page of a list: how much it may hold, and whether there may be more.
//!
//! Owns: the reading of rows up to a bound. A page ends at its rows or at its bytes, whichever comes first; one row
//! that is larger than all the bytes still makes a page of its own, so that whoever follows the cursor comes to the
//! end. The bytes are those of the columns, before anything is made of them. Runs on the thread that reads. It
//! deliberately knows no cursor: where the next page begins is the caller's to say.

use crate::error::Result;
use rusqlite::types::ValueRef;
use rusqlite::{Row, Rows};

/// What one page holds at most.
#[derive(Clone, Copy, Debug, Default)]
pub struct Most {
    pub rows: usize,
    pub bytes: usize,
}

impl Most {
    /// For callers that need all that there is.
    pub fn rows(rows: usize) -> Most {
        Most { rows, bytes: usize::MAX }
    }

    /// The rows as a LIMIT takes them.
    pub(super) fn limit(self) -> i64 {
        i64::try_from(self.rows).unwrap_or(i64::MAX)
    }
}

/// What was read of a list.
#[derive(Debug)]
pub struct Listed<T> {
    pub records: Vec<T>,
    /// A bound ended it: there may be more.
    pub is_cut: bool,
}

/// Reads up to the bound.
pub(super) fn read<T>(
    mut rows: Rows<'_>,
    most: Most,
    record_of: impl Fn(&Row<'_>) -> rusqlite::Result<T>,
) -> Result<Listed<T>> {
    let (mut records, mut bytes) = (Vec::new(), 0);
    let mut is_full = most.rows == 0;
    while !is_full && let Some(row) = rows.next()? {
        bytes += row_bytes(row)?;
        records.push(record_of(row)?);
        is_full = records.len() == most.rows || bytes >= most.bytes;
    }
    Ok(Listed { records, is_cut: is_full })
}

fn row_bytes(row: &Row<'_>) -> rusqlite::Result<usize> {
    let mut bytes = 0;
    for column in 0..row.as_ref().column_count() {
        bytes += match row.get_ref(column)? {
            ValueRef::Text(text) | ValueRef::Blob(text) => text.len(),
            _ => size_of::<i64>(),
        };
    }
    Ok(bytes)
}

impl<T> Listed<T> {
    /// What a LIMIT of so many rows gave: a full one may have more behind it.
    pub fn of_rows(records: Vec<T>, limit: usize) -> Listed<T> {
        Listed { is_cut: records.len() == limit, records }
    }

    /// Ends the page at the record with which what was added to all of them reaches the bound.
    pub fn cut_at(
        &mut self,
        bytes_max: usize,
        mut added: impl FnMut(&mut T) -> Result<usize>,
    ) -> Result<()> {
        let mut bytes = 0;
        for place in 0..self.records.len() {
            bytes += added(&mut self.records[place])?;
            if bytes >= bytes_max && place + 1 < self.records.len() {
                self.records.truncate(place + 1);
                self.is_cut = true;
                break;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    /// The lengths of the texts on a page of five: 10, 20, 30, 40 and 50 bytes.
    fn page(most: Most) -> Listed<usize> {
        let db = Connection::open_in_memory().unwrap();
        let mut statement = db
            .prepare(
                "WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number LIMIT 5)
                 SELECT printf('%.*c', n * 10, 'x') FROM number LIMIT ?",
            )
            .unwrap();
        let rows = statement.query([most.limit()]).unwrap();
        read(rows, most, |row| Ok(row.get::<_, String>(0)?.len())).unwrap()
    }

    fn check(rows: usize, bytes: usize, expected: &[usize], is_cut: bool) {
        let page = page(Most { rows, bytes });
        assert_eq!((page.records.as_slice(), page.is_cut), (expected, is_cut), "{rows} {bytes}");
    }

    #[test]
    fn a_page_ends_at_its_rows_or_its_bytes_and_says_so() {
        check(9, usize::MAX, &[10, 20, 30, 40, 50], false);
        check(5, usize::MAX, &[10, 20, 30, 40, 50], true);
        check(2, usize::MAX, &[10, 20], true);
        check(0, usize::MAX, &[], true);
        check(9, 60, &[10, 20, 30], true);
        check(9, 61, &[10, 20, 30, 40], true);
        // One row is always told.
        check(9, 1, &[10], true);
        check(9, 0, &[10], true);
    }

    #[test]
    fn a_page_is_cut_where_what_was_added_reaches_the_bound() {
        for (bytes_max, records, is_cut) in [(5, 5, false), (2, 2, true), (0, 1, true)] {
            let mut page = page(Most::rows(9));
            page.cut_at(bytes_max, |_| Ok(1)).unwrap();
            assert_eq!((page.records.len(), page.is_cut), (records, is_cut), "{bytes_max}");
        }
    }
}
