//! What a POST with an `Idempotency-Key` has made.
//!
//! The key is claimed in the transaction that makes the thing, so a repeated request finds the thing or makes it, also
//! when the server was killed between the two.

use super::Tx;
use crate::error::{Code, Error, Result};
use crate::limits;
use rusqlite::{Connection, OptionalExtension, params};

/// A key that a request came with.
#[derive(Clone, Debug)]
pub struct IdempotencyKey {
    /// Method and path.
    pub route: String,
    pub key: String,
    /// Of the body, so that another body under the same key is found out.
    pub body_hash: i64,
}

/// The id of what the key has made, if it has. Errors: `idempotency_mismatch` for another body.
pub fn find(connection: &Connection, claim: &IdempotencyKey) -> Result<Option<String>> {
    let found: Option<(i64, String)> = connection
        .prepare_cached(
            "SELECT body_hash, resource_id FROM idempotency WHERE route = ?1 AND key = ?2",
        )?
        .query_row(params![claim.route, claim.key], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?;
    match found {
        Some((body_hash, _)) if body_hash != claim.body_hash => Err(Error::new(
            Code::IdempotencyMismatch,
            format!("the Idempotency-Key {:?} was used with another body", claim.key),
        )
        .hint("use a new key for a new request")),
        Some((_, resource_id)) => Ok(Some(resource_id)),
        None => Ok(None),
    }
}

/// FNV-1a, 64 bits: kept for a day, so it must not change with a toolchain. It guards against mistakes, not attacks:
/// whoever finds two bodies with one hash has fooled nobody but himself.
pub fn body_hash(body: &[u8]) -> i64 {
    let start = 0xcbf2_9ce4_8422_2325_u64;
    let hash = body
        .iter()
        .fold(start, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    hash.cast_signed()
}

impl Tx<'_> {
    /// The id of what an earlier request with this key has made; None claims the key for `resource_id`.
    pub fn claim_key(
        &mut self,
        claim: &IdempotencyKey,
        resource_id: &str,
    ) -> Result<Option<String>> {
        if let Some(made) = find(self.connection(), claim)? {
            return Ok(Some(made));
        }
        let now_ms = self.now_ms();
        self.connection()
            .prepare_cached(
                "INSERT INTO idempotency (route, key, body_hash, resource_id, created_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![claim.route, claim.key, claim.body_hash, resource_id, now_ms])?;
        Ok(None)
    }

    /// What a key has made was undone: the key is good for another try. Reads the keys of a day.
    pub(super) fn free_key(&mut self, resource_id: &str) -> Result<()> {
        self.connection()
            .prepare_cached("DELETE FROM idempotency WHERE resource_id = ?1")?
            .execute([resource_id])?;
        Ok(())
    }

    /// Forgets keys that are older than the contract promises to remember them.
    pub fn expire_keys(&mut self) -> Result<()> {
        let before = self.now_ms() - limits::IDEMPOTENCY_HOURS * 3_600_000;
        self.connection()
            .prepare_cached("DELETE FROM idempotency WHERE created_at < ?1")?
            .execute([before])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_a_body_stays_the_same() {
        // The published values of FNV-1a.
        assert_eq!(body_hash(b"").cast_unsigned(), 0xcbf2_9ce4_8422_2325);
        assert_eq!(body_hash(b"a").cast_unsigned(), 0xaf63_dc4c_8601_ec8c);
    }
}
