//! A decision as it is proposed: with whose it is, and when. What an older release has proposed stands in logs without.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, IntoDeserializer, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use super::messages::WorkerId;
use super::state::Command;
use crate::time::Timestamp;

/// Whose a proposal is, and when it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// By the clock of the coordinator that proposes it.
    pub at: Timestamp,
    /// That coordinator; 0 where it is not known.
    pub node: u64,
    /// The term in which it led, as far as it knew.
    pub term: u64,
    /// The user who wants it: what the user's command says, and where it comes from. None where the coordinator decides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

impl Stamp {
    /// Of a proposal that was made by an older release.
    #[must_use]
    pub fn unknown() -> Stamp {
        Stamp { at: Timestamp(0), node: 0, term: 0, user: None }
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, self.node) {
            (_, 0) => f.write_str("unknown"),
            (Some(user), node) => write!(f, "{user} through coordinator {node}"),
            (None, node) => write!(f, "coordinator {node}"),
        }
    }
}

/// What happened to a cluster that is no decision about a job, for the audit trail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// A worker has come. Said of one that is known, it is no news.
    WorkerJoined {
        /// Who.
        worker: WorkerId,
        /// Where other workers reach it.
        address: String,
        /// What it brings.
        slots: u32,
    },
    /// A worker counts as lost. Said of one that is not known, it is no news.
    WorkerLost {
        /// Who.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// A worker is drained.
    WorkerDrained {
        /// Who.
        worker: WorkerId,
    },
    /// The coordinators with a vote, with their addresses. Said when some are known, it is no news.
    Members {
        /// By their ids.
        members: BTreeMap<u64, String>,
    },
    /// A user wants another coordinator.
    MemberAddAsked {
        /// Its id.
        node: u64,
        /// Its address.
        address: String,
    },
    /// A user wants a coordinator left out.
    MemberRemoveAsked {
        /// Its id.
        node: u64,
    },
}

/// A decision to agree on, with whose it is.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Proposal {
    /// Whose.
    pub stamp: Stamp,
    /// What.
    pub command: Command,
}

impl<'de> Deserialize<'de> for Proposal {
    /// Also of a bare [`Command`], as older releases have proposed it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Proposal, D::Error> {
        deserializer.deserialize_any(AnyProposal)
    }
}

struct AnyProposal;

impl<'de> Visitor<'de> for AnyProposal {
    type Value = Proposal;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a stamp and a command, or a command")
    }

    fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Proposal, E> {
        Ok(Proposal { stamp: Stamp::unknown(), command: Command::deserialize(name.into_deserializer())? })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Proposal, A::Error> {
        use serde::de::Error;
        let first: String = map.next_key()?.ok_or_else(|| A::Error::custom("it is empty"))?;
        if first != "stamp" {
            let whole = MapAccessDeserializer::new(Unread { first: Some(first), rest: map });
            return Ok(Proposal { stamp: Stamp::unknown(), command: Command::deserialize(whole)? });
        }
        let stamp = map.next_value()?;
        match map.next_entry::<String, Command>()? {
            Some((key, command)) if key == "command" => Ok(Proposal { stamp, command }),
            _ => Err(A::Error::custom("it has no command")),
        }
    }
}

/// A map whose first key was looked at.
struct Unread<A> {
    first: Option<String>,
    rest: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Unread<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(first) => seed.deserialize(first.into_deserializer()).map(Some),
            None => self.rest.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.rest.next_value_seed(seed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::JobId;

    #[test]
    fn proposals_are_read_as_written_and_those_of_older_releases_too() {
        let stamp = Stamp { at: Timestamp(5), node: 2, term: 7, user: Some("ada at 10.0.0.1:5".to_owned()) };
        let job = JobId::new("j").unwrap();
        let rescale = Command::Rescale { job, parallelism: 3 };
        for command in [rescale.clone(), Command::Settle] {
            let proposal = Proposal { stamp: stamp.clone(), command };
            let json = serde_json::to_string(&proposal).unwrap();
            assert_eq!(serde_json::from_str::<Proposal>(&json).unwrap(), proposal);
        }
        for (json, command) in
            [("\"Settle\"", Command::Settle), (r#"{"Rescale":{"job":"j","parallelism":3}}"#, rescale)]
        {
            let old: Proposal = serde_json::from_str(json).unwrap();
            assert_eq!(old, Proposal { stamp: Stamp::unknown(), command });
        }
        for wrong in ["{}", "\"Other\"", r#"{"stamp":{"at":1,"node":1,"term":1}}"#, r#"{"Other":{}}"#] {
            assert!(serde_json::from_str::<Proposal>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_stamp_says_who() {
        let mut stamp = Stamp::unknown();
        assert_eq!(stamp.to_string(), "unknown");
        stamp.node = 2;
        assert_eq!(stamp.to_string(), "coordinator 2");
        stamp.user = Some("ada at 10.0.0.1:5".to_owned());
        assert_eq!(stamp.to_string(), "ada at 10.0.0.1:5 through coordinator 2");
    }
}
