//! Who calls, and which routes are theirs.
//!
//! The operator's token opens everything. An agent's opens the MCP gateway and nothing else, so that what an agent can
//! do to the runtime is what its tools do, and is in its session's log. Such a token is known by its form, so a wrong
//! text costs no look into the ledger.

use super::Api;
use crate::error::{Code, Error, Result};
use crate::http::Head;
use crate::secret;
use crate::session::AGENT_TOKEN_PREFIX;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Public,
    Operator,
    /// The operator, and agents.
    Gateway,
}

/// Whose token a request came with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Bearer {
    Operator,
    Agent { session_id: String },
}

impl Api {
    /// Errors: no good token, or a good one that is not for this.
    pub(super) fn check_access(&self, head: &Head, access: Access) -> Result<()> {
        if access == Access::Public {
            return Ok(());
        }
        match self.bearer(head)? {
            Bearer::Agent { .. } if access != Access::Gateway => {
                Err(Error::new(Code::Forbidden, "an agent's token opens the MCP gateway alone")
                    .hint("call a tool by POST /v1/mcp, or send the operator's token"))
            }
            _ => Ok(()),
        }
    }

    /// Errors: no token, or one that is not good any more.
    pub(super) fn bearer(&self, head: &Head) -> Result<Bearer> {
        let given = head.header("authorization").unwrap_or_default();
        let given = given.strip_prefix("Bearer ").unwrap_or_default();
        if secret::is_same(given.as_bytes(), self.token.as_bytes()) {
            return Ok(Bearer::Operator);
        }
        if given.starts_with(AGENT_TOKEN_PREFIX)
            && let Some(session_id) = self.mcp.session_of_token(given)?
        {
            return Ok(Bearer::Agent { session_id });
        }
        Err(Error::new(Code::Unauthorized, "missing or invalid bearer token"))
    }
}
