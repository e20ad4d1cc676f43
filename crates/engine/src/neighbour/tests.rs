//! What a batch says of itself to those who carry it.

use super::{is_receipt, put_text, Peer, COMPLETE, INTEREST, RECEIPT_APART};

/// Goal: nothing but a receipt alone may be read later. Method: what a neighbour writes, alone and
/// with something behind it.
#[test]
fn a_batch_can_wait_where_it_is_one_receipt_and_nothing_else() {
    let mut peer = Peer {
        receipt: Some(7),
        ..Peer::default()
    };
    assert!(!is_receipt(&peer.staged), "an empty batch says nothing");
    peer.write_receipt();
    assert!(is_receipt(&peer.staged));
    let mut more = peer.staged.clone();
    more.push(INTEREST);
    put_text(&mut more, "a/b");
    assert!(!is_receipt(&more));
    for kind in [COMPLETE, RECEIPT_APART] {
        let mut other = peer.staged.clone();
        other[0] = kind;
        assert!(!is_receipt(&other), "{kind} has the length of a receipt");
    }
}
