//! The commands that change a cluster itself: `drain`, `members`, `add-member`, `remove-member`.

use std::fmt::Write;
use std::process::ExitCode;
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use super::api::{MembersView, Request, Response};
use super::client::{Client, LOOK_EVERY, block_on, unexpected};
use crate::cli::{AddMemberArgs, DrainArgs, ListArgs, RemoveMemberArgs};

/// A worker that a leader has not known for so long is gone: one that lives comes to a new leader sooner.
const GONE_AFTER: Duration = Duration::from_secs(10);

/// Takes the work from a worker, and waits until it has none or is gone.
#[expect(clippy::print_stderr, reason = "the command's output")]
pub(crate) fn drain(args: &DrainArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let client = Client::new(&args.client)?;
        client.ask_leader(&Request::Drain { worker: args.worker.clone() }).await?;
        if args.no_wait {
            eprintln!("worker '{}' is asked to take nothing new", args.worker);
            return super::done();
        }
        let mut told = None;
        // Since when the coordinator that leads, if any does, has not known the worker.
        let mut unknown_since = None;
        loop {
            let answer = client.ask_any(&Request::Jobs).await;
            if let Ok(Response::Jobs { leads: true, workers, .. }) = answer {
                let name = &args.worker;
                let named = workers.iter().filter(|w| w.offer.worker.is_named(name));
                let (mut used, mut known) = (0, false);
                for worker in named {
                    used += worker.used;
                    known = true;
                }
                if known && used == 0 {
                    eprintln!("worker '{name}' is drained: it runs nothing and can be stopped");
                    return super::done();
                }
                if known {
                    unknown_since = None;
                } else if unknown_since.get_or_insert_with(Instant::now).elapsed() >= GONE_AFTER {
                    eprintln!("worker '{name}' is gone; what it ran goes on elsewhere, or waits for slots");
                    return super::done();
                }
                if known && told != Some(used) {
                    eprintln!("{used} slots of worker '{name}' are in use; jobs move when there is room on others");
                    told = Some(used);
                }
            } else {
                unknown_since = None;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    })
}

/// Shows who belongs to the coordinators.
#[expect(clippy::print_stderr, reason = "the command's output")]
pub(crate) fn members(args: &ListArgs) -> anyhow::Result<ExitCode> {
    block_on(async {
        let answer = Client::new(&args.client)?.ask_any(&Request::Members).await?;
        let Response::Members(view) = answer else { return unexpected() };
        if args.json {
            crate::show(&json!(view).to_string())?;
            return super::done();
        }
        if !view.leads {
            eprintln!("note: no coordinator that leads was found; what follows may be old");
        }
        crate::show(&table(&view))?;
        super::done()
    })
}

fn table(view: &MembersView) -> String {
    let mut text = format!("{:>4} {:<32} {:<8}\n", "ID", "ADDRESS", "ROLE");
    let leader = view.leader.as_ref().map(|(id, _)| *id);
    for (id, address) in &view.members {
        let role = if leader == Some(*id) { "leader" } else { "member" };
        let _ = writeln!(text, "{id:>4} {address:<32} {role:<8}");
    }
    for (id, address) in &view.learners {
        let _ = writeln!(text, "{id:>4} {address:<32} {:<8}", "joining");
    }
    let _ = writeln!(text, "term {}, {} entries agreed on", view.term, view.committed.map_or(0, |index| index + 1));
    text
}

/// Adds a coordinator.
#[expect(clippy::print_stderr, reason = "the command's output")]
pub(crate) fn add_member(args: &AddMemberArgs) -> anyhow::Result<ExitCode> {
    let (id, address) = args.member.clone();
    block_on(async {
        Client::new(&args.client)?.ask_leader(&Request::AddMember { id, address: address.clone() }).await?;
        eprintln!("coordinator {id} at {address} is a member");
        super::done()
    })
}

/// Removes a coordinator.
#[expect(clippy::print_stderr, reason = "the command's output")]
pub(crate) fn remove_member(args: &RemoveMemberArgs) -> anyhow::Result<ExitCode> {
    let id = args.id;
    block_on(async {
        Client::new(&args.client)?.ask_leader(&Request::RemoveMember { id }).await?;
        eprintln!("coordinator {id} is no member any more; its id is not to be used again");
        super::done()
    })
}
