//! Guests that do anything at all. `cargo bolero test` runs the same targets
//! under a coverage-guided engine.

use std::{panic::AssertUnwindSafe, time::Duration};

use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

use super::{
    super::{
        packet::tests::guest_bytes,
        ring::{Ring, Scratch},
        switch::CONNECTIONS,
    },
    rings::{MEMORY, set_up},
    *,
};

const FOR: Duration = Duration::from_secs(4);

/// One thing that happens: what, and numbers to do it with.
type Step = (u8, u32, u32, u16);

fn op(number: u32) -> Option<Op> {
    [Op::Request, Op::Response, Op::Reset, Op::Shutdown, Op::Data, Op::CreditUpdate, Op::CreditRequest]
        .get(number as usize % 8)
        .copied()
}

/// Guest and host programs in any order.
#[test]
fn the_switch_survives_any_conversation() {
    let steps = bolero::generator::produce::<Vec<Step>>();
    bolero::check!().with_test_time(FOR).with_generator(steps).for_each(|steps| {
        let mut bench = Bench::new();
        let mut programs = Vec::new();
        let mut buffer = vec![0; HEADER + MAX_PAYLOAD];
        for (what, a, b, c) in steps.iter().take(400) {
            let pick = *a as usize % programs.len().max(1);
            match what % 8 {
                0 => programs.push(bench.dial(format!("CONNECT {}\n", b % 4).as_bytes())),
                1 if !programs.is_empty() => drop(programs.swap_remove(pick)),
                2 if !programs.is_empty() => drop(programs[pick].write(&pattern(usize::from(*c)))),
                3 if !programs.is_empty() => drop(programs[pick].read(&mut vec![0; usize::from(*c)])),
                4 => bench.settle(),
                5 if c % 64 == 0 => bench.switch.driver_started(),
                6 => {
                    let room = HEADER + usize::from(*c);
                    if let Some(len) = bench.switch.next_packet(&mut buffer[..room]) {
                        assert!(len <= room);
                        Seen::decode(&buffer[..len]);
                    }
                }
                _ if !bench.switch.saturated() => {
                    let ports = Ports { host: (1 << 30) + b % 4, guest: b / 4 % 4 };
                    let credit = Credit { buffer: *a, consumed: *b };
                    let data = pattern(usize::from(*c));
                    let header = FromGuest { ports, op: op(*a), len: data.len() as u32, flags: *b, credit };
                    bench.switch.receive(&header, &data);
                }
                _ => {}
            }
            assert!(bench.switch.len() <= CONNECTIONS);
        }
        // Whatever happened: a new program is asked for, a new guest is served.
        bench.switch.driver_started();
        let _program = bench.dial(b"CONNECT 77\n");
        assert!(bench.packets().iter().any(|packet| packet.op == Op::Request && packet.ports.guest == 77));
    });
}

/// Rings, descriptors and packets made of noise. Writes are `(where, what)` in
/// the parts of memory that matter.
#[test]
fn rings_survive_any_memory() {
    let memory = AssertUnwindSafe(GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), MEMORY)]).unwrap());
    let writes = bolero::generator::produce::<(Vec<(u16, u64)>, Vec<(u16, u16)>, bool)>();
    bolero::check!().with_test_time(FOR).with_generator(writes).for_each(|(writes, positions, event_index)| {
        let mut bench = Bench::new();
        let _program = bench.dial(b"CONNECT 1\n");
        bench.settle();
        let header = FromGuest {
            ports: Ports { host: 1 << 30, guest: 1 },
            op: Some(Op::Data),
            len: 100,
            flags: 3,
            credit: ROOMY,
        };
        memory.write_slice(&guest_bytes(header), GuestAddress(0x100)).unwrap();
        for (at, value) in writes {
            // Descriptors that point somewhere plausible are the interesting ones.
            let value = if at % 2 == 0 { value & 0x0003_0000_ffff_fff0 & !0xff_0000 } else { *value };
            memory.write_obj(value, GuestAddress(0x1000 + u64::from(at % 0x500) * 8)).unwrap();
        }
        let (mut receive, mut transmit) = (Ring::new().unwrap(), Ring::new().unwrap());
        set_up(&mut receive.queue, 0x1000);
        set_up(&mut transmit.queue, 0x1000 + 0x800 * 2);
        for ring in [&mut receive, &mut transmit] {
            virtio_queue::QueueT::set_event_idx(&mut ring.queue, *event_index);
        }
        let mut scratch = Scratch::new();
        for (receive_at, transmit_at) in positions.iter().take(16) {
            memory.write_obj(*receive_at, GuestAddress(0x1402)).unwrap();
            memory.write_obj(*transmit_at, GuestAddress(0x2402)).unwrap();
            // An error is an answer too; the device stops the ring then.
            drop(transmit.take(&memory, &mut bench.switch, &mut scratch));
            drop(receive.give(&memory, &mut bench.switch, &mut scratch));
        }
    });
}
