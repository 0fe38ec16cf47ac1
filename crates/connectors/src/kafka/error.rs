//! Errors of librdkafka in the words of the person who has to mend them.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::error::{ConnectorError, ErrorKind};

use super::client::Cluster;

/// A failed request.
pub(super) struct ClientError<'a> {
    pub(super) cluster: &'a Cluster,
    /// What was attempted; goes after "cannot".
    pub(super) what: &'a str,
    pub(super) error: &'a KafkaError,
    /// The newest trouble with brokers that the client spoke of.
    pub(super) heard: Option<String>,
}

/// Whether nothing but a change by the user helps, and which.
fn advice(code: RDKafkaErrorCode) -> Option<&'static str> {
    use RDKafkaErrorCode as Code;
    Some(match code {
        Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
            "create the topic, or check its name"
        }
        Code::InvalidTopic => "check the name of the topic",
        Code::TopicAuthorizationFailed => "give the user the right to use the topic",
        Code::GroupAuthorizationFailed => "give the user the right to use the group of 'properties.group.id'",
        Code::TransactionalIdAuthorizationFailed => {
            "give the user the right to write with transactional ids of 'sink.transactional-id-prefix'"
        }
        Code::ClusterAuthorizationFailed => "give the user the right to this on the cluster",
        Code::Authentication | Code::SaslAuthenticationFailed => "check 'properties.sasl.*'",
        Code::SSL => "check 'properties.security.protocol' and 'properties.ssl.*'",
        Code::UnsupportedSASLMechanism | Code::IllegalSASLState => "check 'properties.sasl.mechanism'",
        Code::MessageSizeTooLarge | Code::InvalidMessageSize => {
            "raise the topic's 'max.message.bytes' and the table's 'properties.message.max.bytes'"
        }
        Code::InvalidTransactionTimeout => {
            "'properties.transaction.timeout.ms' is above the broker's 'transaction.max.timeout.ms'"
        }
        _ => return None,
    })
}

/// Whether the error says no more than that nobody answered.
fn is_silence(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::OperationTimedOut
            | Code::AllBrokersDown
            | Code::BrokerTransportFailure
            | Code::Resolve
            | Code::MessageTimedOut
            | Code::RequestTimedOut
            | Code::TimedOutQueue
    )
}

impl From<ClientError<'_>> for ConnectorError {
    fn from(failed: ClientError<'_>) -> ConnectorError {
        let ClientError { cluster: Cluster { table, servers, .. }, what, error, heard } = failed;
        let code = error.rdkafka_error_code();
        let reason = match error {
            KafkaError::Transaction(error) => error.string(),
            error => code.map_or_else(|| error.to_string(), |code| code.to_string()),
        };
        if let Some(advice) = code.and_then(advice) {
            let message = format!("table '{table}' cannot {what}: {reason}; {advice}");
            return ConnectorError::new(ErrorKind::External, message);
        }
        let silence = code.is_some_and(is_silence) || matches!(error, KafkaError::Flush(_));
        let message = match heard {
            // What the client heard from a broker that refuses it is a matter of its settings.
            Some(heard) if heard.contains("SASL") || heard.contains("SSL") || heard.contains("uthentication") => {
                let message = format!(
                    "table '{table}' cannot {what}: {heard}; check 'properties.security.protocol', 'properties.sasl.*' and 'properties.ssl.*'"
                );
                return ConnectorError::new(ErrorKind::External, message);
            }
            heard if silence => {
                let heard = heard.map(|heard| format!(" ({heard})")).unwrap_or_default();
                format!(
                    "table '{table}' cannot {what}: no Kafka broker answers at '{servers}'{heard}; check 'properties.bootstrap.servers' and 'properties.security.protocol', and that the brokers run"
                )
            }
            Some(heard) if !reason.contains(&heard) => format!("table '{table}' cannot {what}: {reason} ({heard})"),
            _ => format!("table '{table}' cannot {what}: {reason}"),
        };
        ConnectorError::new(ErrorKind::Transient, message)
    }
}
