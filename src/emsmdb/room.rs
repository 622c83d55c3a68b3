/// The largest RPC payload that a client takes (MS-OXCRPC R1628).
pub const MAX_PAYLOAD_OCTETS: usize = 32_768;

/// RPC_HEADER_EXT.
const HEADER_OCTETS: usize = 8;

/// RopSize.
const ROP_SIZE_OCTETS: usize = 2;

/// The octets that a response has left for RopNotify and RopPending: what [`take`](super::Session::take) may fill.
///
/// `pcb_out`: the size of the client's buffer (EcDoRpcExt2's pcbOut, or MaxRopOut of a MAPI/HTTP Execute).
/// `responses`: the octets of the normal ROP responses in it. `handles`: the entries of its table of handles. It is
/// `min(pcb_out, 32768) - 8 - 2 - responses - 4 * handles`, 0 if that is negative. The 3 octets of RopPending are in it:
/// `take` keeps them free only if something is left.
pub fn notification_room(pcb_out: usize, responses: usize, handles: usize) -> usize {
    let fixed = HEADER_OCTETS + ROP_SIZE_OCTETS;
    let used = responses.saturating_add(handles.saturating_mul(4)).saturating_add(fixed);
    pcb_out.min(MAX_PAYLOAD_OCTETS).saturating_sub(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_room_is_what_the_response_leaves() {
        assert_eq!(notification_room(32_768, 0, 0), 32_758);
        assert_eq!(notification_room(0x40000, 0, 0), 32_758, "never more than a payload");
        assert_eq!(notification_room(1_000, 200, 3), 1_000 - 10 - 200 - 12);
        assert_eq!(notification_room(8, 0, 0), 0);
        assert_eq!(notification_room(1_000, usize::MAX, usize::MAX), 0);
        // An otherwise empty reply takes about 860 mails of class IPM.Note (38 octets each).
        assert_eq!((notification_room(32_768, 0, 1) - 3) / 38, 861);
    }
}
