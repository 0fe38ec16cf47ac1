//! The whole of the crate on loopback. Everything waits with a bound.

mod certificates;
mod frames;
mod handshake;
mod rpc;
mod tls;

use std::time::Duration;

use tokio::time::timeout;

use crate::{Connection, Hello, Listener, NetError, Service, Transport};

/// No step of these tests needs longer, on the slowest machine.
const DEADLINE: Duration = Duration::from_secs(10);

/// Waits, but not for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(DEADLINE, what).await.expect("the step ends in time")
}

fn hello(service: Service) -> Hello {
    Hello::new(service, "one", "test")
}

/// Both ends of a connection.
async fn pair(listener: &mut Listener, transport: &Transport) -> (Connection, Connection) {
    let address = listener.local_address();
    let hello = hello(Service::Data);
    let (called, accepted) = soon(async { tokio::join!(transport.connect(&address, &hello), listener.accept()) }).await;
    (called.expect("connects"), accepted.expect("accepts"))
}

/// What both sides say of a connection that must not come to be: the connecting one's error and the refusal at the port.
async fn refusals(listener: &mut Listener, connecting: &Transport, address: &str) -> (NetError, String) {
    let refused = listener.refused();
    let hello = hello(Service::Data);
    let error = tokio::select! {
        connected = connecting.connect(address, &hello) => connected.err().expect("the connection is refused"),
        _ = listener.accept() => panic!("a connection was accepted that must be refused"),
    };
    // The port may need a moment longer than the caller.
    let counted = async {
        while listener.refused() == refused {
            let _ = timeout(Duration::from_millis(10), listener.accept()).await;
        }
    };
    soon(counted).await;
    (error, listener.last_refusal().unwrap_or_default().to_owned())
}

#[track_caller]
fn assert_says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "'{message}' should say '{part}'");
    }
}
