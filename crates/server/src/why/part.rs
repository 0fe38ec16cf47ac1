//! Where the time of a subtask's part of a checkpoint went, in words.

use mainstem_core::protocol::PartTimes;

/// What took any time, longest first; none where nothing did.
pub(super) fn spent(alignment_ms: Option<u64>, times: &PartTimes) -> Option<String> {
    let PartTimes { capture_ms, wait_ms, upload_ms, uploaded_bytes } = *times;
    let mut phases = [
        (alignment_ms.unwrap_or(0), "aligning the barrier".to_owned()),
        (capture_ms, "taking its state".to_owned()),
        (wait_ms, "waiting for its part of the checkpoint before, or for rows that were overtaken".to_owned()),
        (upload_ms, format!("writing and uploading (state: {uploaded_bytes} bytes)")),
    ];
    phases.sort_by_key(|(ms, _)| std::cmp::Reverse(*ms));
    let texts: Vec<String> =
        phases.iter().filter(|(ms, _)| *ms > 0).map(|(ms, what)| format!("{ms} ms {what}")).collect();
    (!texts.is_empty()).then(|| texts.join(", "))
}
