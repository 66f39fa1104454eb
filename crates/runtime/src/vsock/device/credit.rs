//! Flow control of one connection: who may still send how much.
//!
//! Each side announces the size of its buffer and how many bytes it has taken
//! out of it; the other may have no more than that many bytes on the way. All
//! counters wrap at 2³² (virtio 1.2, section 5.10.6.3).
//!
//! The guest's numbers are whatever the guest says: a lie costs the guest its
//! own data and nothing else.

use super::packet::Credit;

/// Bytes kept for a host program that reads slowly, beyond what its socket
/// holds.
pub const BUFFER: usize = 256 << 10;

/// Consumed bytes the guest does not know of are announced at this point, long
/// before it runs dry.
const UNTOLD: u32 = (BUFFER / 4) as u32;

/// The account of one connection.
#[derive(Debug, Default)]
pub struct Account {
    /// Bytes of the guest that reached the host program.
    consumed: u32,
    /// What of `consumed` the guest has been told.
    told: u32,
    /// The guest asked to be told.
    asked: bool,
    /// Bytes sent to the guest.
    sent: u32,
    /// What the guest said last.
    theirs: Credit,
    /// We asked the guest, and it has not answered.
    waiting: bool,
}

impl Account {
    /// Our side for the next header, which settles what we owe.
    pub fn tell(&mut self) -> Credit {
        self.told = self.consumed;
        self.asked = false;
        Credit { buffer: BUFFER as u32, consumed: self.consumed }
    }

    /// Whether the guest should be told without a better occasion.
    pub fn owes(&self) -> bool {
        self.asked || self.consumed.wrapping_sub(self.told) >= UNTOLD
    }

    /// The guest asked to be told.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// `bytes` of the guest reached the host program.
    pub fn consume(&mut self, bytes: usize) {
        // No more than BUFFER bytes are ever pending, so nothing is cut off.
        self.consumed = self.consumed.wrapping_add(bytes as u32);
    }

    /// Takes in what a header of the guest says.
    pub fn hear(&mut self, theirs: Credit) {
        self.theirs = theirs;
        self.waiting &= self.room() == 0;
    }

    /// Bytes the guest has room for.
    pub fn room(&self) -> usize {
        let on_the_way = self.sent.wrapping_sub(self.theirs.consumed);
        self.theirs.buffer.saturating_sub(on_the_way) as usize
    }

    /// `bytes` were sent to the guest.
    pub fn spend(&mut self, bytes: usize) {
        self.sent = self.sent.wrapping_add(bytes as u32);
    }

    /// Whether to ask the guest for room: once each time it runs out.
    pub fn may_ask(&self) -> bool {
        self.room() == 0 && !self.waiting
    }

    /// The guest was asked.
    pub fn asked_guest(&mut self) {
        self.waiting = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_is_what_the_guest_has_not_consumed() {
        // (sent, buffer, consumed, room)
        let rows: [(u32, u32, u32, usize); 6] = [
            (0, 100, 0, 100),
            (60, 100, 0, 40),
            (100, 100, 0, 0),
            (100, 100, 100, 100),
            // Counters that wrapped.
            (5, 100, u32::MAX - 4, 90),
            // A guest that claims to have consumed what was never sent.
            (10, 100, 50, 0),
        ];
        for (sent, buffer, consumed, want) in rows {
            let mut account = Account { sent, ..Account::default() };
            account.hear(Credit { buffer, consumed });
            assert_eq!(account.room(), want, "{sent} {buffer} {consumed}");
        }
    }

    #[test]
    fn the_guest_is_told_before_it_runs_dry_and_when_it_asks() {
        let mut account = Account::default();
        account.consume(UNTOLD as usize - 1);
        assert!(!account.owes());
        account.consume(1);
        assert!(account.owes());
        assert_eq!(account.tell(), Credit { buffer: BUFFER as u32, consumed: UNTOLD });
        assert!(!account.owes());
        account.ask();
        assert!(account.owes());
    }

    #[test]
    fn the_guest_is_asked_once_each_time_it_has_no_room() {
        let mut account = Account::default();
        account.hear(Credit { buffer: 4, consumed: 0 });
        assert!(!account.may_ask());
        account.spend(4);
        assert!(account.may_ask());
        account.asked_guest();
        assert!(!account.may_ask());
        account.hear(Credit { buffer: 4, consumed: 4 });
        account.spend(4);
        assert!(account.may_ask());
    }
}
