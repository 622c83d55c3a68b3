//! What the host answered, put into the events that wait for it.

use ocbus_wire::ropnotify::FolderId;

use super::folders::FolderKey;
use super::pending::{Pending, Slot, message_counts};
use super::{Answer, EngineConfig, QueryId, Statistics, User};

/// Puts the answer into the event that asked.
pub(super) fn fill(
    pending: &mut Pending,
    id: QueryId,
    answer: Answer,
    config: &EngineConfig,
    counters: &mut Statistics,
) {
    let (count, old_count) = message_counts(&pending.event);
    for (slot, count) in [(&mut pending.messages, count), (&mut pending.old_messages, old_count)] {
        if *slot == Slot::Asked(id) {
            *slot = match answer {
                Answer::Messages(messages) if u64::try_from(messages.len()) == Ok(count) => {
                    let unknown = messages.iter().filter(|message| message.is_none()).count();
                    counters.query_unknown += u64::try_from(unknown).unwrap_or(u64::MAX);
                    Slot::Known(messages)
                }
                Answer::Unknown => Slot::Unknown,
                Answer::Failed => Slot::Failed,
                _ => mistaken(counters),
            };
            return;
        }
    }
    if let Some(row) = pending.rows.iter_mut().find(|row| row.row == Slot::Asked(id)) {
        row.row = match answer {
            Answer::Row(found) if found.data.len() <= config.row_octets => Slot::Known(found),
            // Too large: the table is told to have changed.
            Answer::Row(_) | Answer::Unknown => Slot::Unknown,
            Answer::Failed => Slot::Failed,
            _ => mistaken(counters),
        };
    }
}

/// An answer to something else than was asked.
fn mistaken<T>(counters: &mut Statistics) -> Slot<T> {
    counters.query_failures += 1;
    Slot::Failed
}

/// Puts a folder's id into all events that wait for it, and says which they are.
pub(super) fn fill_folder(
    user: &mut User,
    key: &FolderKey,
    id: QueryId,
    answer: &Answer,
    counters: &mut Statistics,
) -> Vec<u64> {
    let slot = match *answer {
        Answer::Folder(folder) if folder != FolderId::NONE => Slot::Known(folder),
        Answer::Unknown => Slot::Unknown,
        Answer::Failed => Slot::Failed,
        _ => mistaken(counters),
    };
    user.folders.answered(key, id, slot.known().copied());
    let mut waiting = Vec::new();
    for pending in &mut user.pending {
        let mut filled = false;
        for own in pending.folders.all_mut() {
            if *own == Slot::Asked(id) {
                *own = slot.clone();
                filled = true;
            }
        }
        if filled {
            waiting.push(pending.number);
        }
    }
    waiting
}
